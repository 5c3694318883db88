"""How much leakage flatters: the same model on the same items, in the folds of the literature and in subject folds.

Nothing differs but what is kept together. Frame folds put neighbouring frames of a clip on both sides, clip folds other
clips of the same person; the part for early stopping is drawn in the same way. Whatever comes of such folds is named
LEAKY: the word is in the protocol's name, and so in every table, file and key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from painseq.evaluation.intervals import Difference, paired_difference
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.score import Evaluation, score
from painseq.records import UNKNOWN

AUDIT_STATISTICS = ("balanced_accuracy", "accuracy")
Unit = Literal["frames", "clips"]


@dataclass(frozen=True)
class FoldProtocol:
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


FRAME_FOLDS = FoldProtocol("frame_kfold_LEAKY", "LEAKY frame folds", "frame", "frames of the same clips")
CLIP_FOLDS = FoldProtocol("clip_kfold_LEAKY", "LEAKY clip folds", "clip", "clips of the same people")
SUBJECT_FOLDS = FoldProtocol("subject_kfold", "subject folds", "subject", "")


def protocols_of(unit: Unit) -> tuple[FoldProtocol, ...]:
    """The protocols that items can be divided by, subject folds last: a clip as an item is not divided into frames."""
    return (FRAME_FOLDS, CLIP_FOLDS, SUBJECT_FOLDS) if unit == "frames" else (CLIP_FOLDS, SUBJECT_FOLDS)


@dataclass(frozen=True)
class ProtocolResult:
    """One protocol's predictions, each item by the model that was not fitted on it, and their scores.

    Args:
        predictions: by unit: "frames" where items are frames, and "clips", by vote of their frames.
        evaluations: of these, by unit.
    """

    protocol: FoldProtocol
    predictions: Mapping[Unit, Predictions]
    evaluations: Mapping[Unit, Evaluation]


@dataclass(frozen=True)
class Inflation:
    """A score under a leaky protocol minus that under subject folds, paired by subject."""

    protocol: FoldProtocol
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

    results: tuple[ProtocolResult, ...]
    inflations: tuple[Inflation, ...]

    @property
    def subject_folds(self) -> ProtocolResult:
        """Subject folds."""
        return self.results[-1]

    @property
    def unit(self) -> Unit:
        """What the items are."""
        return "frames" if "frames" in self.subject_folds.predictions else "clips"

    def inflation(self, protocol: FoldProtocol, unit: Unit, statistic: str) -> Inflation | None:
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


def audit_of(predictions: Mapping[FoldProtocol, Predictions], clips: Mapping[str, str] | None = None) -> Audit:
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
        results.append(ProtocolResult(protocol, by_unit, {unit: score(each) for unit, each in by_unit.items()}))
    honest = results[-1]
    inflations = []
    for result in results[:-1]:
        for unit, leaky in result.predictions.items():
            found = paired_difference(leaky, honest.predictions[unit], AUDIT_STATISTICS)
            inflations += [Inflation(result.protocol, unit, name, found[name]) for name in AUDIT_STATISTICS]
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
