"""How much leakage inflates scores: the same model on the same items, in leaky folds and in subject folds.

The protocols differ only in what a fold keeps together. Frame folds put neighbouring frames of a clip on both sides,
clip folds put clips of the same subject on both sides; validation items are drawn in the same way. All results of such
folds are marked LEAKY: the word is in the protocol's name, and therefore in every table, file and key.
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
        name: name in files and keys; a leaky protocol's ends in LEAKY.
        title: name in tables and on pages; a leaky protocol's begins with LEAKY.
        together: the unit that is never divided between folds.
        shared: what training and test items of a fold share; empty if they share no subject.
    """

    name: str
    title: str
    together: Literal["frame", "clip", "subject"]
    shared: str

    @property
    def leaky(self) -> bool:
        """Whether subjects are on both sides of a fold."""
        return self.together != "subject"


FRAME_FOLDS = FoldProtocol("frame_kfold_LEAKY", "LEAKY frame folds", "frame", "frames of the same clips")
CLIP_FOLDS = FoldProtocol("clip_kfold_LEAKY", "LEAKY clip folds", "clip", "clips of the same people")
SUBJECT_FOLDS = FoldProtocol("subject_kfold", "subject folds", "subject", "")


def protocols_of(unit: Unit) -> tuple[FoldProtocol, ...]:
    """Protocols for items of this unit, subject folds last; frame folds need frames as items."""
    return (FRAME_FOLDS, CLIP_FOLDS, SUBJECT_FOLDS) if unit == "frames" else (CLIP_FOLDS, SUBJECT_FOLDS)


@dataclass(frozen=True)
class ProtocolResult:
    """Out-of-fold predictions under one protocol, and their scores.

    Args:
        protocol: how the items were divided.
        predictions: by unit: "clips", and also "frames" if items are frames (clips are then votes of their frames).
        evaluations: scores of these predictions, by unit.
    """

    protocol: FoldProtocol
    predictions: Mapping[Unit, Predictions]
    evaluations: Mapping[Unit, Evaluation]


@dataclass(frozen=True)
class Inflation:
    """A score under a leaky protocol minus the score under subject folds, paired by subject."""

    protocol: FoldProtocol
    unit: Unit
    statistic: str
    difference: Difference

    def sentence(self) -> str:
        """Describe the inflation in one or two sentences."""
        difference, name = self.difference, self.statistic.replace("_", " ")
        if difference.value is None:
            return f"{self.protocol.title}, {self.unit}: the {name} is not defined."
        claim = (
            f"{self.protocol.title}: with {self.protocol.shared} on both sides, the {name} over {self.unit} is "
            f"{difference.first:.3f}; on subjects the model has never seen it is {difference.second:.3f}."
        )
        low, high = difference.interval.low, difference.interval.high
        if low is None or high is None:
            return f"{claim} Inflation {difference.value:+.3f}, {difference.interval.note}."
        interval = f"95 % interval {low:+.3f} to {high:+.3f}, {difference.interval.subjects} subjects"
        if low > 0:
            return f"{claim} Leakage inflates it by {difference.value:.3f} ({interval})."
        if high < 0:
            return f"{claim} The leaky score is lower by {-difference.value:.3f} ({interval}): no inflation."
        return f"{claim} The difference is {difference.value:+.3f} ({interval}), which shows no inflation."


@dataclass(frozen=True)
class Audit:
    """The same model on the same items under several protocols.

    Args:
        results: one for each protocol, subject folds last.
        inflations: one for each leaky protocol, unit and statistic.
    """

    results: tuple[ProtocolResult, ...]
    inflations: tuple[Inflation, ...]

    @property
    def subject_folds(self) -> ProtocolResult:
        """The result under subject folds, which do not leak."""
        return self.results[-1]

    @property
    def unit(self) -> Unit:
        """The unit of the items."""
        return "frames" if "frames" in self.subject_folds.predictions else "clips"

    def inflation(self, protocol: FoldProtocol, unit: Unit, statistic: str) -> Inflation | None:
        """The inflation of a statistic under a leaky protocol; None for subject folds."""
        for inflation in self.inflations:
            if (inflation.protocol, inflation.unit, inflation.statistic) == (protocol, unit, statistic):
                return inflation
        return None

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON; leaky results are below a key that contains LEAKY."""
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
                    "protocol": inflation.protocol.name,
                    "unit": inflation.unit,
                    "statistic": inflation.statistic,
                    **inflation.difference.to_dict(),
                    "sentence": inflation.sentence(),
                }
                for inflation in self.inflations
            ],
        }


def audit_of(predictions: Mapping[FoldProtocol, Predictions], clips: Mapping[str, str] | None = None) -> Audit:
    """Score predictions of the same items under each protocol, and compare them with subject folds.

    Args:
        predictions: protocol -> predictions of frames or of clips; must include subject folds.
        clips: frame id -> clip id, if the predictions are of frames; None for clips.

    Raises:
        PainseqError: items, subjects or truths differ between protocols.
    """
    results = []
    for protocol in sorted(predictions, key=lambda protocol: not protocol.leaky):
        of_items = predictions[protocol]
        by_unit: dict[Unit, Predictions] = {"clips": of_items}
        if clips is not None:
            by_unit = {"frames": of_items, "clips": by_vote(of_items, clips)}
        evaluations = {unit: score(predicted) for unit, predicted in by_unit.items()}
        results.append(ProtocolResult(protocol, by_unit, evaluations))
    subject_folds = results[-1]
    inflations = []
    for result in results[:-1]:
        for unit, leaky in result.predictions.items():
            differences = paired_difference(leaky, subject_folds.predictions[unit], AUDIT_STATISTICS)
            inflations += [Inflation(result.protocol, unit, name, differences[name]) for name in AUDIT_STATISTICS]
    return Audit(tuple(results), tuple(inflations))


def by_vote(frames: Predictions, clips: Mapping[str, str]) -> Predictions:
    """Predict clips by majority vote of their frames; the mean probability of the frames breaks ties.

    Args:
        frames: one row for each frame.
        clips: frame id -> clip id.
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
