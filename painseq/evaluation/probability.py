"""Scores of probabilities: how well they rank clips, and how well they are calibrated.

All scores are functions of how often each subject is drawn, so 2,000 resamples take a few array operations. They
follow scikit-learn if it defines them:

- AUROC and AUPRC (`average_precision_score`) are of one class against the rest; their means are over the classes with
  clips on both sides. Ties count half in AUROC and share a threshold in AUPRC.
- The Brier score is the sum over classes of the squared error, averaged over clips: 0 is perfect, 2 is certain and
  wrong for every clip (`scale_by_half=False`; half of it is the usual score of two classes).
- The expected calibration error follows Guo et al. 2017: clips are sorted into 15 bins of equal width by the
  probability of their most probable class. It is the mean over clips of the distance between a bin's mean probability
  and its share of clips whose most probable class is correct. With few clips in a bin it is too large by chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from painseq.evaluation.intervals import Interval, bootstrap_interval, mean_interval
from painseq.evaluation.metrics import Floats
from painseq.evaluation.predictions import Predictions

Ints = NDArray[np.int64]

BINS = 15
CELLS_AT_ONCE = 4_000_000
"""Largest number of sums (draws x thresholds) in memory at once: 32 MB."""

ECE_NOTE = "chance raises this error, and more so in the draws: the interval is too high and seldom reaches 0"


@dataclass(frozen=True)
class Reliability:
    """Clips in bins of equal width from 0 to 1, by the probability of the most probable class.

    Args:
        confidence: mean probability of the most probable class, by bin; None for an empty bin.
        accuracy: share of clips whose most probable class is correct, by bin; None for an empty bin.
        clips: number of clips, by bin.
    """

    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    clips: tuple[int, ...]

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of the bins, one more than bins. A bin includes its upper edge but not its lower edge."""
        bins = len(self.clips)
        return tuple(edge / bins for edge in range(bins + 1))

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "edges": list(self.edges),
            "confidence": list(self.confidence),
            "accuracy": list(self.accuracy),
            "clips": list(self.clips),
        }


@dataclass(frozen=True)
class ProbabilityScores:
    """Scores of the probabilities of K classes; None if a score is not defined.

    Args:
        class_names: K names, in order of pain.
        auroc: area under the ROC curve; mean over the classes with clips on both sides.
        auprc: area under the precision-recall curve (average precision); mean over the same classes. The chance level
            is the class's share of the clips.
        auroc_by_class: each class against the rest (K); None if all clips or no clips are of the class.
        auprc_by_class: average precision of each class against the rest (K); None likewise.
        brier: sum over classes of the squared error, mean over clips; 0 to 2, lower is better.
        ece: expected calibration error of the most probable class; lower is better.
        reliability: the bins that `ece` is computed from.
        clips: number of scored clips with probabilities; all scores here are of these.
        left_out: number of scored clips without probabilities.
        undefined: name of a score -> why it is None.
    """

    class_names: tuple[str, ...]
    auroc: float | None
    auprc: float | None
    auroc_by_class: tuple[float | None, ...]
    auprc_by_class: tuple[float | None, ...]
    brier: float
    ece: float
    reliability: Reliability
    clips: int
    left_out: int
    undefined: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """One of the `PROBABILITY_STATISTICS` by name."""
        return {"auroc": self.auroc, "auprc": self.auprc, "brier": self.brier, "ece": self.ece}[name]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        by_class = zip(self.class_names, self.auroc_by_class, self.auprc_by_class, strict=True)
        return {
            "auroc": self.auroc,
            "auprc": self.auprc,
            "brier": self.brier,
            "ece": self.ece,
            "per_class": {name: {"auroc": auroc, "auprc": auprc} for name, auroc, auprc in by_class},
            "reliability": self.reliability.to_dict(),
            "clips": self.clips,
            "left_out": self.left_out,
            "undefined": dict(self.undefined),
        }


@dataclass(frozen=True)
class Rated:
    """The scored clips that have probabilities, and the index of their subject.

    Args:
        truth: (n,) class index.
        probabilities: (n, K).
        subject: (n,) index into `subjects`.
        subjects: S names, sorted.
    """

    truth: Ints
    probabilities: Floats
    subject: Ints
    subjects: tuple[str, ...]


def rated(predictions: Predictions) -> Rated:
    """Select the clips whose probabilities can be scored."""
    rows = predictions.scored & ~np.isnan(predictions.probabilities).any(axis=1)
    ids = np.asarray(predictions.subject_ids, dtype=object)[rows]
    subjects = tuple(sorted(set(ids)))
    number = {name: index for index, name in enumerate(subjects)}
    return Rated(
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
        subject=np.array([number[name] for name in ids], np.int64),
        subjects=subjects,
    )


def probability_scores(predictions: Predictions) -> ProbabilityScores | None:
    """Score the probabilities; None if no scored clip has any."""
    clips = rated(predictions)
    n = len(clips.truth)
    if not n:
        return None
    once = np.ones((1, len(clips.subjects)))
    names = predictions.class_names
    roc, precision = (one_against_rest(clips, once, area)[0] for area in (auroc, average_precision))
    undefined = {}
    if np.isnan(roc).all():
        only = names[int(clips.truth[0])]
        undefined = dict.fromkeys(("auroc", "auprc"), f"all {n} clips with probabilities are “{only}”")
    return ProbabilityScores(
        class_names=names,
        auroc=_number(_mean_of_defined(roc)),
        auprc=_number(_mean_of_defined(precision)),
        auroc_by_class=tuple(_number(value) for value in roc),
        auprc_by_class=tuple(_number(value) for value in precision),
        brier=float(PROBABILITY_STATISTICS["brier"](clips, once)[0]),
        ece=float(PROBABILITY_STATISTICS["ece"](clips, once)[0]),
        reliability=reliability(clips),
        clips=n,
        left_out=int(predictions.scored.sum()) - n,
        undefined=undefined,
    )


def probability_intervals(predictions: Predictions) -> dict[str, Interval]:
    """Intervals over subjects of the `PROBABILITY_STATISTICS` that are defined.

    The Brier score gets Student's t if every subject has the same number of clips, since it is then the mean of the
    subjects' scores. All others use the bootstrap.
    """
    clips, scores = rated(predictions), probability_scores(predictions)
    if scores is None:
        return {}
    subjects = len(clips.subjects)
    intervals = {}
    for name, statistic in PROBABILITY_STATISTICS.items():
        if scores.value(name) is None:
            continue
        if name == "brier" and len(set(np.bincount(clips.subject).tolist())) == 1:
            intervals[name] = mean_interval(_brier(clips, np.eye(subjects)), (0.0, 2.0))
        else:
            intervals[name] = bootstrap_interval(partial(statistic, clips), subjects)
    note = intervals["ece"].note
    intervals["ece"] = dataclasses.replace(intervals["ece"], note="; ".join(filter(None, (note, ECE_NOTE))))
    return intervals


def overconfidence(predictions: Predictions) -> tuple[float, Interval] | None:
    """Mean probability of the most probable class minus its accuracy, as shares, with its interval.

    Below 0 the model is underconfident. Unlike the expected calibration error it needs no bins, and errors cancel out.
    None if no scored clip has probabilities.
    """
    clips = rated(predictions)
    if not len(clips.truth):
        return None
    confidence, hit = _confidence_and_hit(clips)
    excess, count = _per_subject(clips, confidence - hit), np.bincount(clips.subject).astype(np.float64)
    interval = bootstrap_interval(lambda times: (times @ excess) / (times @ count), len(count))
    return float(excess.sum() / count.sum()), interval


def auroc(hits: Floats, misses: Floats, times: Floats) -> Floats:
    """(draws,) area under the ROC curve: how often a clip of the class has the higher probability; ties count half.

    Args:
        hits: (S, thresholds) clips of the class, by subject, at each probability that occurs, the highest first.
        misses: (S, thresholds) clips of the other classes.
        times: (draws, S) how often each subject is drawn.

    Returns:
        The areas; NaN if a draw has no clip of the class, or no clip of the others.
    """
    lower = misses.sum(1, keepdims=True) - misses.cumsum(1) + misses / 2
    # Correctly ranked pairs of clips, by the subjects of the two clips, so that draws need not revisit the clips.
    won = hits @ lower.T
    return _divided(((times @ won) * times).sum(1), (times @ hits.sum(1)) * (times @ misses.sum(1)))


def average_precision(hits: Floats, misses: Floats, times: Floats) -> Floats:
    """(draws,) average precision: mean precision at the thresholds of the clips of the class; arguments as `auroc`."""
    with_hits = hits.any(axis=0)
    found_at, predicted_at = hits[:, with_hits], (hits + misses).cumsum(1)[:, with_hits]
    sums = np.zeros(len(times))
    step = max(1, CELLS_AT_ONCE // max(1, found_at.shape[1]))
    for start in range(0, len(times), step):
        drawn = times[start : start + step]
        found, predicted = drawn @ found_at, drawn @ predicted_at
        precision = np.divide(found.cumsum(1), predicted, out=np.zeros_like(found), where=predicted > 0)
        sums[start : start + step] = (found * precision).sum(1)
    area = _divided(sums, times @ hits.sum(1))
    return np.where(times @ misses.sum(1) > 0, area, np.nan)


def one_against_rest(clips: Rated, times: Floats, area: Callable[[Floats, Floats, Floats], Floats]) -> Floats:
    """(draws, K) area of each class against the rest; NaN if a draw lacks one of the two sides."""
    by_class = []
    for index, probability in enumerate(clips.probabilities.T):
        thresholds, threshold = np.unique(-probability, return_inverse=True)
        sides = []
        for side in (clips.truth == index, clips.truth != index):
            counts = np.zeros((len(clips.subjects), len(thresholds)))
            np.add.at(counts, (clips.subject[side], threshold[side]), 1)
            sides.append(counts)
        by_class.append(area(sides[0], sides[1], times.astype(np.float64)))
    return np.stack(by_class, axis=1)


def _mean_of_defined(by_class: Floats) -> Floats:
    """(...) mean over the classes with a value; NaN without any."""
    defined = ~np.isnan(by_class)
    return _divided(np.where(defined, by_class, 0).sum(-1), defined.sum(-1).astype(np.float64))


def _brier(clips: Rated, times: Floats) -> Floats:
    error = ((clips.probabilities - np.eye(clips.probabilities.shape[1])[clips.truth]) ** 2).sum(1)
    return _divided(times @ _per_subject(clips, error), times @ _per_subject(clips, np.ones(len(error))))


def _calibration_error(clips: Rated, times: Floats) -> Floats:
    by_bin = np.stack([_per_subject_and_bin(clips, values) for values in _confidence_and_hit(clips)])
    confidence, hits = times @ by_bin
    distance: Floats = np.abs(confidence - hits).sum(1)
    return _divided(distance, times @ _per_subject(clips, np.ones(len(clips.truth))))


def reliability(clips: Rated) -> Reliability:
    """Bins of the expected calibration error and of the reliability diagram."""
    confidence, hit = _confidence_and_hit(clips)
    count = _per_subject_and_bin(clips, np.ones(len(hit))).sum(0)
    means = [_divided(_per_subject_and_bin(clips, values).sum(0), count) for values in (confidence, hit)]
    return Reliability(
        tuple(_number(value) for value in means[0]),
        tuple(_number(value) for value in means[1]),
        tuple(int(value) for value in count),
    )


def _confidence_and_hit(clips: Rated) -> tuple[Floats, Floats]:
    top = clips.probabilities.argmax(1)
    confidence: Floats = clips.probabilities.max(1)
    return confidence, (top == clips.truth).astype(np.float64)


def _bin(confidence: Floats) -> Ints:
    """Index of the bin (lower edge, upper edge] of a confidence, which may be outside 0..1 by rounding."""
    edges = np.arange(1, BINS) / BINS
    index: Ints = np.searchsorted(edges, confidence, side="left").astype(np.int64)
    return index


def _per_subject(clips: Rated, values: Floats) -> Floats:
    """(S,) sums over clips of (n,) values."""
    return np.bincount(clips.subject, values, minlength=len(clips.subjects)).astype(np.float64)


def _per_subject_and_bin(clips: Rated, values: Floats) -> Floats:
    """(S, bins) sums over clips of (n,) values."""
    cell = clips.subject * BINS + _bin(clips.probabilities.max(1))
    sums = np.bincount(cell, values, minlength=len(clips.subjects) * BINS).astype(np.float64)
    return sums.reshape(len(clips.subjects), BINS)


PROBABILITY_STATISTICS: dict[str, Callable[[Rated, Floats], Floats]] = {
    "auroc": lambda clips, times: _mean_of_defined(one_against_rest(clips, times, auroc)),
    "auprc": lambda clips, times: _mean_of_defined(one_against_rest(clips, times, average_precision)),
    "brier": _brier,
    "ece": _calibration_error,
}
"""Name -> function of the clips and (draws, S), how often each subject is drawn, to (draws,); NaN if undefined."""


def _divided(numerator: Floats, denominator: Floats) -> Floats:
    filled = np.full(np.shape(denominator), np.nan)
    ratio: Floats = np.divide(numerator, denominator, out=filled, where=denominator != 0)
    return ratio


def _number(value: Floats | np.float64) -> float | None:
    return None if np.isnan(value) else float(value)
