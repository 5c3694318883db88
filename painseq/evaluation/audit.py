"""How much leakage flatters: the same model on the same items, in the folds of the literature and in subject folds.

Nothing differs but what is kept together. Frame folds put neighbouring frames of a clip on both sides, clip folds other
clips of the same person; the part for early stopping is drawn in the same way. Whatever comes of such folds is named
LEAKY: the word is in the protocol's name, and so in every table, file and key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from painseq.classifier import PainClassifier
from painseq.datamodule import PainDataModule
from painseq.datasets import FrameWindow, ResidentClips, single_frames
from painseq.errors import PainseqError
from painseq.evaluation.intervals import Difference, paired_difference
from painseq.evaluation.predict import predict_part, predict_unchecked
from painseq.evaluation.predictions import UNKNOWN, Predictions
from painseq.evaluation.score import Evaluation, score
from painseq.fitting import FitOptions, fit_fold
from painseq.records import Part

STATISTICS = ("balanced_accuracy", "accuracy")
Unit = Literal["frames", "clips"]


@dataclass(frozen=True)
class Protocol:
    """A way to divide items into folds.

    Args:
        name: in files and keys; one that leaks ends in LEAKY.
        title: in tables and on pages; one that leaks begins with LEAKY.
        together: what is never divided.
        shared: what both sides of a fold share; empty where they share nobody.
    """

    name: str
    title: str
    together: Literal["frame", "clip", "subject"]
    shared: str

    @property
    def leaky(self) -> bool:
        """Whether people are on both sides."""
        return self.together != "subject"


FRAME_FOLDS = Protocol("frame_kfold_LEAKY", "LEAKY frame folds", "frame", "frames of the same clips")
CLIP_FOLDS = Protocol("clip_kfold_LEAKY", "LEAKY clip folds", "clip", "clips of the same people")
SUBJECT_FOLDS = Protocol("subject_kfold", "subject folds", "subject", "")


def protocols_of(unit: Unit) -> tuple[Protocol, ...]:
    """The protocols that items can be divided by, subject folds last: a clip as an item is not divided into frames."""
    return (FRAME_FOLDS, CLIP_FOLDS, SUBJECT_FOLDS) if unit == "frames" else (CLIP_FOLDS, SUBJECT_FOLDS)


# ---- folds ----


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
        raise PainseqError(f"--folds is {folds}; it must be 2 or more.")
    if not 0 < validation_share < 1:
        raise PainseqError(
            f"--data.options.split.validation_share is {validation_share}. The audit stops early in each fold as a fit "
            "does; give a share above 0 and below 1."
        )
    names = np.arange(len(target)).astype(str) if group is None else np.asarray(group)
    fewest = _fewest(target, names)
    if fewest < folds:
        raise PainseqError(
            f"{folds} folds need as many groups and items of each class; there are {fewest}. Lower --folds."
        )
    made = []
    for rest, test in _divide(target, names, folds, seed):
        inner = min(round(1 / validation_share), _fewest(target[rest], names[rest]))
        if inner < 2:
            raise PainseqError(f"{folds} folds leave too few items to stop early on. Lower --folds.")
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
        raise PainseqError(f"The classes of the groups are too uneven for {folds} folds: one is empty. Lower --folds.")
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


# ---- from predictions to the inflation ----


@dataclass(frozen=True)
class Result:
    """One protocol's predictions, each item by the model that was not fitted on it, and their scores.

    Args:
        predictions: by unit: "frames" where items are frames, and "clips", by vote of their frames.
        evaluations: of these, by unit.
    """

    protocol: Protocol
    predictions: Mapping[Unit, Predictions]
    evaluations: Mapping[Unit, Evaluation]


@dataclass(frozen=True)
class Inflation:
    """A score under a leaky protocol minus that under subject folds, paired by subject."""

    protocol: Protocol
    unit: Unit
    statistic: str
    difference: Difference

    def sentence(self) -> str:
        """What it means, in plain words."""
        found, name = self.difference, self.statistic.replace("_", " ")
        if found.value is None:
            return f"{self.protocol.title}, {self.unit}: the {name} is not defined."
        claim = (
            f"{self.protocol.title}: with {self.protocol.shared} on both sides, the {name} over {self.unit} is "
            f"{found.first:.3f}; on people the model has never seen it is {found.second:.3f}."
        )
        low, high = found.interval.low, found.interval.high
        if low is None or high is None:
            return f"{claim} Inflation {found.value:+.3f}, {found.interval.note}."
        interval = f"95 % interval {low:+.3f} to {high:+.3f}, {found.interval.subjects} subjects"
        if low > 0:
            return f"{claim} Leakage inflates it by {found.value:.3f} ({interval})."
        if high < 0:
            return f"{claim} The leaky score is lower, by {-found.value:.3f} ({interval}): no inflation here."
        return f"{claim} The difference is {found.value:+.3f} ({interval}), which shows no inflation here."


@dataclass(frozen=True)
class Audit:
    """The same model on the same items under several protocols.

    Args:
        results: a protocol each, subject folds last.
        inflations: of every leaky protocol, unit and statistic.
    """

    results: tuple[Result, ...]
    inflations: tuple[Inflation, ...]

    @property
    def honest(self) -> Result:
        """Subject folds."""
        return self.results[-1]

    @property
    def unit(self) -> Unit:
        """What the items are."""
        return "frames" if "frames" in self.honest.predictions else "clips"

    def inflation(self, protocol: Protocol, unit: Unit, statistic: str) -> Inflation | None:
        """None for subject folds."""
        for found in self.inflations:
            if (found.protocol, found.unit, found.statistic) == (protocol, unit, statistic):
                return found
        return None

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON; whatever is leaky lies below a key with that word."""
        return {
            "protocols": {
                result.protocol.name: {
                    "title": result.protocol.title,
                    **{unit: evaluation.to_dict() for unit, evaluation in result.evaluations.items()},
                }
                for result in self.results
            },
            "inflation_LEAKY_minus_subject_folds": [
                {
                    "protocol": found.protocol.name,
                    "unit": found.unit,
                    "statistic": found.statistic,
                    **found.difference.to_dict(),
                    "sentence": found.sentence(),
                }
                for found in self.inflations
            ],
        }


def audit_of(predictions: Mapping[Protocol, Predictions], clips: Mapping[str, str] | None = None) -> Audit:
    """Score predictions of the same items under each protocol, and compare.

    Args:
        predictions: subject folds among them; of frames or of clips.
        clips: frame -> its clip, where the predictions are of frames.

    Raises:
        PainseqError: other items, subjects or truths under one protocol than under another.
    """
    results = []
    for protocol in sorted(predictions, key=lambda protocol: not protocol.leaky):
        of_items = predictions[protocol]
        by_unit: dict[Unit, Predictions] = {"clips": of_items}
        if clips is not None:
            by_unit = {"frames": of_items, "clips": by_vote(of_items, clips)}
        results.append(Result(protocol, by_unit, {unit: score(each) for unit, each in by_unit.items()}))
    honest = results[-1]
    inflations = []
    for result in results[:-1]:
        for unit, leaky in result.predictions.items():
            found = paired_difference(leaky, honest.predictions[unit], STATISTICS)
            inflations += [Inflation(result.protocol, unit, name, found[name]) for name in STATISTICS]
    return Audit(tuple(results), tuple(inflations))


def by_vote(frames: Predictions, clips: Mapping[str, str]) -> Predictions:
    """Predictions of clips: the majority vote of their frames, ties settled by the mean of the frames' probabilities.

    Args:
        frames: one row a frame.
        clips: frame -> its clip.
    """
    names, first, clip = np.unique([clips[frame] for frame in frames.clip_ids], return_index=True, return_inverse=True)
    n, k = len(names), len(frames.class_names)
    votes, probabilities = np.zeros((n, k)), np.zeros((n, k))
    voting = frames.label != UNKNOWN
    np.add.at(votes, (clip[voting], frames.label[voting]), 1)
    np.add.at(probabilities, clip[voting], frames.probabilities[voting])
    counts = np.bincount(clip[voting], minlength=n)
    with np.errstate(invalid="ignore"):
        votes, probabilities = votes / counts[:, None], probabilities / counts[:, None]
    tied = votes >= votes.max(axis=1, keepdims=True) - 1e-9
    label = np.where(counts > 0, np.where(tied, probabilities, -1.0).argmax(axis=1), UNKNOWN)
    return Predictions(
        class_names=frames.class_names,
        clip_ids=tuple(names.tolist()),
        subject_ids=tuple(frames.subject_ids[row] for row in first),
        truth=frames.truth[first],
        label=label.astype(np.int64),
        probabilities=probabilities,
        frames=np.bincount(clip, weights=frames.frames, minlength=n).astype(np.int64),
        faceless=np.bincount(clip, weights=frames.faceless, minlength=n).astype(np.int64),
        votes=votes,
    )


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
            raise PainseqError("--frames-per-clip thins out frames, but this head takes whole clips. Leave it out.")
        return clips.only(clips.with_a_face())
    if frames_per_clip is not None and frames_per_clip < 1:
        raise PainseqError(f"--frames-per-clip is {frames_per_clip}; it must be 1 or more.")
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


def groups_of(items: ResidentClips, protocol: Protocol) -> list[str] | None:
    """What each item stays with under a protocol; None: each is on its own."""
    if protocol.together == "frame":
        return None
    return [clip.clip_id if protocol.together == "clip" else clip.subject_id for clip in items.clips]


def fit_protocol(
    make_model: Callable[[], PainClassifier],
    data: PainDataModule,
    items: ResidentClips,
    protocol: Protocol,
    folds: Sequence[Fold],
    out: Path,
    options: FitOptions,
    epochs: int | None = None,
    on_fold: Callable[[], None] = lambda: None,
) -> Predictions:
    """Predictions of every item, by the model of the fold that tests it; LEAKY unless the protocol divides by subject.

    Under a leaky protocol no leak check is made, since it would refuse: such rows are to be scored by `audit_of` alone.

    Args:
        out: holds a folder for each fold; folds that are finished there are not fitted again.
        epochs: train for so many, on the part for early stopping too; None: stop early on it.
        on_fold: called after each fold.

    Raises:
        PainseqError: see `fit_fold`.
    """
    tested = []
    for number, fold in enumerate(folds):
        chosen = fold if epochs is None else Fold((*fold.train, *fold.validation), (), fold.test)
        divided = data.with_items(items, chosen.parts, protocol.name.removesuffix("_LEAKY"))
        model = fit_fold(make_model, divided, out / f"fold_{number}", options, epochs)
        predict = predict_unchecked if protocol.leaky else predict_part
        tested.append(predict(model, divided, "test"))
        on_fold()
    return _joined(tested)


def _joined(parts: Sequence[Predictions]) -> Predictions:
    votes = [part.votes for part in parts if part.votes is not None]
    return Predictions(
        class_names=parts[0].class_names,
        clip_ids=tuple(clip_id for part in parts for clip_id in part.clip_ids),
        subject_ids=tuple(subject_id for part in parts for subject_id in part.subject_ids),
        truth=np.concatenate([part.truth for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        frames=np.concatenate([part.frames for part in parts]),
        faceless=np.concatenate([part.faceless for part in parts]),
        votes=np.concatenate(votes) if votes else None,
    )
