"""The folds of an audit: items dealt out under a protocol, and a model fitted on each fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import FrameWindow
from painseq.data.resident import ResidentClips, single_frames
from painseq.errors import PainseqError
from painseq.evaluation.audit import FoldProtocol, Unit
from painseq.evaluation.predictions import Predictions, joined
from painseq.records import Part
from painseq.studies.fold_fits import Candidate
from painseq.studies.predict_part import predict_part, predict_unchecked
from painseq.training.fitting import fit_fold


@dataclass(frozen=True)
class Fold:
    """Numbers of the items of one fold; each item is in one of the three."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def parts(self) -> dict[Part, tuple[int, ...]]:
        """The three by their names."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class Overlap:
    """What the training side of the folds knew of those tested.

    Args:
        clips: share of test items whose clip has another item that was trained on.
        subjects: share of test items whose subject was trained on.
    """

    clips: float
    subjects: float


def folds_of(
    target: NDArray[np.int64],
    group: Sequence[str] | None,
    folds: int,
    seed: int,
    validation_share: float = 0.2,
) -> tuple[Fold, ...]:
    """Stratified folds, each with a part for early stopping that is drawn from its training side in the same way.

    By scikit-learn's `StratifiedKFold`, or `StratifiedGroupKFold` where items belong together.

    Args:
        target: (n,) class of each item.
        group: what each item belongs to and stays with; None: each item is on its own.
        folds: how many, 2 or more.
        seed: of the order in which items, or groups, are dealt out.
        validation_share: of the training side, as nearly as whole groups allow.

    Raises:
        PainseqError: fewer groups, or items of a class, than folds; nobody left for early stopping.
    """
    if folds < 2:
        raise PainseqError(f"folds is {folds}; it must be 2 or more.")
    if not 0 < validation_share < 1:
        raise PainseqError(
            f"The data's split.validation_share is {validation_share}. The audit stops early in each fold as a fit "
            "does; give a share above 0 and below 1."
        )
    names = np.arange(len(target)).astype(str) if group is None else np.asarray(group)
    fewest = _fewest(target, names)
    if fewest < folds:
        raise PainseqError(
            f"{folds} folds need as many groups and items of each class; there are {fewest}. Lower folds."
        )
    made = []
    for rest, test in _divide(target, names, folds, seed):
        inner = min(round(1 / validation_share), _fewest(target[rest], names[rest]))
        if inner < 2:
            raise PainseqError(f"{folds} folds leave too few items to stop early on. Lower folds.")
        train, validation = _divide(target[rest], names[rest], max(2, inner), seed)[0]
        made.append(Fold(_numbers(rest[train]), _numbers(rest[validation]), _numbers(test)))
    return tuple(made)


def _divide(
    target: NDArray[np.int64], names: NDArray[np.str_], folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    alone = len(np.unique(names)) == len(names)
    splitter = (StratifiedKFold if alone else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    made = list(splitter.split(target, target, None if alone else names))
    if not all(len(test) for _, test in made):
        raise PainseqError(f"The classes of the groups are too uneven for {folds} folds: one is empty. Lower folds.")
    return made


def _fewest(target: NDArray[np.int64], names: NDArray[np.str_]) -> int:
    """The number of groups, or of the items of the rarest class if there are fewer of these."""
    return int(min(len(np.unique(names)), *np.unique(target, return_counts=True)[1]))


def _numbers(items: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(items.tolist())


def overlap(folds: Sequence[Fold], clips: Sequence[str], subjects: Sequence[str]) -> Overlap:
    """How many test items have their clip, or their subject, on the training side (early stopping is part of it)."""

    def share(names: Sequence[str]) -> float:
        seen = tested = 0
        for fold in folds:
            known = {names[item] for item in (*fold.train, *fold.validation)}
            seen += sum(names[item] in known for item in fold.test)
            tested += len(fold.test)
        return seen / tested

    return Overlap(share(clips), share(subjects))


# ---- fitting ----


def audit_items(data: PainDataModule, unit: Unit, frames_per_clip: int | None = None) -> ResidentClips:
    """What is divided into folds: the clips with a known label and a face, or single frames of them.

    Args:
        frames_per_clip: take so many frames of each clip, evenly spread over those with a face; None is all.

    Raises:
        PainseqError: a number below 1, or for clips; see `PainDataModule.everything`.
    """
    clips = data.everything()
    if unit == "clips":
        if frames_per_clip is not None:
            raise PainseqError("frames_per_clip thins out frames, but this head takes whole clips. Leave it out.")
        return clips.only(clips.with_a_face())
    if frames_per_clip is not None and frames_per_clip < 1:
        raise PainseqError(f"frames_per_clip is {frames_per_clip}; it must be 1 or more.")
    frames = single_frames(clips, FrameWindow(0.0, np.inf)) if data.options.frames is None else clips
    of_clip: dict[str, list[int]] = {}
    for number in frames.with_a_face():
        of_clip.setdefault(frames.clips[number].clip_id, []).append(number)
    if frames_per_clip is not None:
        of_clip = {clip: _spread(numbers, frames_per_clip) for clip, numbers in of_clip.items()}
    return frames.only([number for numbers in of_clip.values() for number in numbers])


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many, at the middles of equal stretches."""
    count = min(most, len(numbers))
    return [numbers[int((place + 0.5) * len(numbers) / count)] for place in range(count)]


@dataclass(frozen=True)
class ProtocolFolds:
    """Items dealt out under a protocol."""

    protocol: FoldProtocol
    folds: tuple[Fold, ...]


def groups_of(items: ResidentClips, protocol: FoldProtocol) -> list[str] | None:
    """What each item stays with under a protocol; None: each is on its own."""
    if protocol.together == "frame":
        return None
    return [clip.clip_id if protocol.together == "clip" else clip.subject_id for clip in items.clips]


def fit_protocol(
    candidate: Candidate,
    data: PainDataModule,
    items: ResidentClips,
    divided: ProtocolFolds,
    out: Path,
    epochs: int | None = None,
    on_fold: Callable[[], None] = lambda: None,
) -> Predictions:
    """Predictions of every item, by the model of the fold that tests it; LEAKY unless the protocol divides by subject.

    Under a leaky protocol no leak check is made, since it would refuse: such rows are to be scored by `audit_of` alone.

    Args:
        divided: the items' folds.
        out: holds a folder for each fold; folds that are finished there are not fitted again.
        epochs: train for so many, on the part for early stopping too; None: stop early on it.
        on_fold: called after each fold.

    Raises:
        PainseqError: see `fit_fold`.
    """
    protocol = divided.protocol
    predict = predict_unchecked if protocol.leaky else predict_part
    tested = []
    for number, fold in enumerate(divided.folds):
        chosen = fold if epochs is None else Fold((*fold.train, *fold.validation), (), fold.test)
        fold_data = data.with_items(items, chosen.parts, protocol.name.removesuffix("_LEAKY"))
        model = fit_fold(candidate.make, fold_data, out / f"fold_{number}", candidate.options, epochs)
        tested.append(predict(model, fold_data, "test"))
        on_fold()
    return joined(tested)
