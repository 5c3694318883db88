"""The folds of an audit: items divided by a protocol, and a model fitted on each fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import FrameWindow, target_of
from painseq.data.resident import ResidentClips, single_frames
from painseq.data.splits import LeakySplit, fewest, leaky_split, stratified_folds
from painseq.errors import PainseqError
from painseq.evaluation.audit import FoldProtocol, Unit
from painseq.evaluation.predictions import Predictions, joined
from painseq.records import UNKNOWN, Clip, Part
from painseq.studies.fold_fits import Candidate
from painseq.studies.predict_part import predict_part, predict_unchecked
from painseq.training.fitting import fit_fold


@dataclass(frozen=True)
class Fold:
    """Indices of the items of one fold; each item is in one part."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def parts(self) -> dict[Part, tuple[int, ...]]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class Overlap:
    """Overlap of the training and the test side of the folds.

    Args:
        clips: share of test items whose clip has another item on the training side.
        subjects: share of test items whose subject is on the training side.
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
    """Return stratified folds, each with a validation part that is drawn from its training side in the same way.

    Uses scikit-learn's `StratifiedKFold`, or `StratifiedGroupKFold` if items have groups.

    Args:
        target: (n,) class of each item.
        group: group of each item, which stays in one part; None: each item is its own group.
        folds: number of folds, 2 or more.
        seed: seed of the random division.
        validation_share: share of the training side, as close as whole groups allow.

    Raises:
        PainseqError: fewer groups, or items of a class, than folds; no item left for early stopping.
    """
    if folds < 2:
        raise PainseqError(f"folds is {folds}; it must be 2 or more.")
    if not 0 < validation_share < 1:
        raise PainseqError(
            f"The data's split.validation_share is {validation_share}. The audit stops early in each fold; "
            "give a share above 0 and below 1."
        )
    names = np.arange(len(target)).astype(str) if group is None else np.asarray(group)
    result = []
    for rest, test in stratified_folds(target, names, folds, seed):
        inner = min(round(1 / validation_share), fewest(target[rest], names[rest]))
        if inner < 2:
            raise PainseqError(f"{folds} folds leave too few items for early stopping. Lower folds.")
        train, validation = stratified_folds(target[rest], names[rest], max(2, inner), seed)[0]
        result.append(Fold(_numbers(rest[train]), _numbers(rest[validation]), _numbers(test)))
    return tuple(result)


def _numbers(items: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(items.tolist())


def leaky_holdout(data: PainDataModule) -> LeakySplit:
    """Split clips with a known label at random, balanced by class, whoever is in them.

    Args:
        data: data whose split options have the shares of the test and the validation part, and the seed.

    Raises:
        PainseqError: labels on a scale; too few clips of a class.
    """
    if data.scheme.predicts_values:
        raise PainseqError(f"A random split of clips is balanced by class, but {data.options.labels!r} is a scale.")
    options = data.options.split
    targets = {clip: int(target_of(clip, data.scheme)) for clip in data.manifest}
    rest = [clip for clip, target in targets.items() if target != UNKNOWN]
    parts: dict[Part, list[Clip]] = {}
    shares: dict[Part, float] = {"test": options.test_share, "validation": options.validation_share}
    for part, share in shares.items():
        if share:
            try:
                rest, parts[part] = train_test_split(
                    rest, test_size=share, random_state=options.seed, stratify=[targets[clip] for clip in rest]
                )
            except ValueError as error:
                problem = f"{len(rest)} clips cannot be split with a {part} share of {share}"
                raise PainseqError(f"{problem}: {error}") from error
    return leaky_split({"train": rest, **parts}, data.manifest, "clip_holdout")


def overlap(folds: Sequence[Fold], clips: Sequence[str], subjects: Sequence[str]) -> Overlap:
    """Return the shares of test items with their clip, or subject, on the training side (including early stopping)."""

    def share(names: Sequence[str]) -> float:
        seen = tested = 0
        for fold in folds:
            known = {names[item] for item in (*fold.train, *fold.validation)}
            seen += sum(names[item] in known for item in fold.test)
            tested += len(fold.test)
        return seen / tested

    return Overlap(share(clips), share(subjects))


def audit_items(data: PainDataModule, unit: Unit, frames_per_clip: int | None = None) -> ResidentClips:
    """Return the items to divide into folds: clips with a known label and a face, or their single frames.

    Args:
        frames_per_clip: number of frames of each clip, evenly spaced among those with a face; None: all.

    Raises:
        PainseqError: `frames_per_clip` below 1, or given for clips; see `PainDataModule.everything`.
    """
    clips = data.everything()
    if unit == "clips":
        if frames_per_clip is not None:
            raise PainseqError(f"frames_per_clip is {frames_per_clip}, but this head takes whole clips. Omit it.")
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
    """Select at most this many, at the centres of equal segments."""
    count = min(most, len(numbers))
    return [numbers[int((place + 0.5) * len(numbers) / count)] for place in range(count)]


@dataclass(frozen=True)
class ProtocolFolds:
    """The folds of one protocol."""

    protocol: FoldProtocol
    folds: tuple[Fold, ...]


def groups_of(items: ResidentClips, protocol: FoldProtocol) -> list[str] | None:
    """Return the group of each item under a protocol; None: each item is its own group."""
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
    """Fit every fold, and predict its test items; the result is LEAKY unless the protocol divides by subject.

    There is no leak check for leaky protocols, as it would fail: their rows must only be scored by `audit_of`.

    Args:
        divided: the protocol and its folds.
        out: folder with a folder for each fold; finished folds are not fitted again.
        epochs: train for this many epochs, including on the validation part; None: stop early on the validation part.
        on_fold: called after each fold.

    Raises:
        PainseqError: see `fit_fold`.
    """
    protocol = divided.protocol
    predict = predict_unchecked if protocol.leaky else predict_part
    groups = groups_of(items, protocol) or items.names
    predictions = []
    for number, fold in enumerate(divided.folds):
        chosen = fold if epochs is None else Fold((*fold.train, *fold.validation), (), fold.test)
        fold_data = data.with_items(items, chosen.parts, protocol.name.removesuffix("_LEAKY"), groups)
        model = fit_fold(candidate.make, fold_data, out / f"fold_{number}", candidate.options, epochs)
        predictions.append(predict(model, fold_data, "test"))
        on_fold()
    return joined(predictions)
