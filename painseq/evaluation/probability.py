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
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from painseq.evaluation.intervals import Interval, bootstrap_interval, bootstrap_intervals, mean_interval
from painseq.evaluation.metrics import Floats, numbered_subjects
from painseq.evaluation.predictions import Predictions

Ints = NDArray[np.int64]

BINS = 15
CELLS_AT_ONCE = 500_000
"""Largest number of sums (thresholds x draws) in memory at once: 4 MB, which stays in a processor's cache."""

PROBABILITY_STATISTICS = ("auroc", "auprc", "brier", "ece")

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
    subjects, subject = numbered_subjects(list(compress(predictions.subject_ids, rows.tolist())))
    return Rated(
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
        subject=subject,
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
    areas = one_against_rest(clips, once)
    roc, precision = areas.auroc[0], areas.auprc[0]
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
        brier=float(_brier(clips, once)[0]),
        ece=float(_calibration_error(clips, once)[0]),
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
    names = [name for name in PROBABILITY_STATISTICS if scores.value(name) is not None]
    intervals = bootstrap_intervals(lambda times: drawn_statistics(clips, times), names, len(clips.subjects))
    if len(set(np.bincount(clips.subject).tolist())) == 1:
        sums = (_per_subject(clips, values) for values in (_squared_error(clips), np.ones(len(clips.truth))))
        intervals["brier"] = mean_interval(_divided(*sums), (0.0, 2.0))
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


def drawn_statistics(clips: Rated, times: NDArray[np.int64] | Floats) -> dict[str, Floats]:
    """Each of `PROBABILITY_STATISTICS` of (draws, S), how often each subject is drawn: (draws,), NaN if undefined."""
    areas = one_against_rest(clips, times)
    return {
        "auroc": _mean_of_defined(areas.auroc),
        "auprc": _mean_of_defined(areas.auprc),
        "brier": _brier(clips, times),
        "ece": _calibration_error(clips, times),
    }


class Areas(NamedTuple):
    """Areas of each class against the rest, (draws, K) each; NaN if a draw lacks one of the two sides.

    `auroc` is how often a clip of the class has the higher probability; ties count half. `auprc` is the mean precision
    at the thresholds of the clips of the class.
    """

    auroc: Floats
    auprc: Floats


def one_against_rest(clips: Rated, times: NDArray[np.int64] | Floats) -> Areas:
    """Areas for (draws, S), how often each subject is drawn."""
    drawn = np.ascontiguousarray(times.T, np.float64)
    areas = [_areas(clips, index, drawn) for index in range(clips.probabilities.shape[1])]
    return Areas(np.stack([roc for roc, _ in areas], axis=1), np.stack([precision for _, precision in areas], axis=1))


def _areas(clips: Rated, index: int, drawn: Floats) -> tuple[Floats, Floats]:
    """(draws,) AUROC and average precision of one class; `drawn` is (S, draws).

    Only probabilities that a clip of the class has are thresholds. Clips between two of them are counted at the lower
    one, and sums over subjects and thresholds are sparse: time and memory grow with the clips, not with
    clips x subjects.
    """
    is_hit = clips.truth == index
    order = -clips.probabilities[:, index]
    thresholds = np.unique(order[is_hit])
    rank = np.searchsorted(thresholds, order)

    def counts(rows: NDArray[np.bool_]) -> csr_array:
        shape = (len(thresholds) + 1, len(clips.subjects))
        return csr_array((np.ones(int(rows.sum())), (rank[rows], clips.subject[rows])), shape)

    hits, misses, ties = counts(is_hit), counts(~is_hit), counts(~is_hit & np.isin(order, thresholds))
    all_hits, all_misses = hits.sum(axis=0) @ drawn, misses.sum(axis=0) @ drawn
    found_before, missed_before, won, precisions = np.zeros((4, drawn.shape[1]))
    step = max(1, CELLS_AT_ONCE // max(1, drawn.shape[1]))
    for start in range(0, len(thresholds), step):
        block = slice(start, min(start + step, len(thresholds)))
        found = hits[block] @ drawn
        found_so_far = found.cumsum(axis=0) + found_before
        missed_so_far = (misses[block] @ drawn).cumsum(axis=0) + missed_before
        won += (found * (all_misses - missed_so_far + (ties[block] @ drawn) / 2)).sum(axis=0)
        precisions += (found * _ratio_or_0(found_so_far, found_so_far + missed_so_far)).sum(axis=0)
        found_before, missed_before = found_so_far[-1], missed_so_far[-1]
    roc = _divided(won, all_hits * all_misses)
    return roc, np.where(all_misses > 0, _divided(precisions, all_hits), np.nan)


def _ratio_or_0(numerator: Floats, denominator: Floats) -> Floats:
    ratio: Floats = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return ratio


def _mean_of_defined(by_class: Floats) -> Floats:
    """(...) mean over the classes with a value; NaN without any."""
    defined = ~np.isnan(by_class)
    return _divided(np.where(defined, by_class, 0).sum(-1), defined.sum(-1).astype(np.float64))


def _squared_error(clips: Rated) -> Floats:
    """(n,) sum over classes of the squared error of the probabilities."""
    error: Floats = ((clips.probabilities - np.eye(clips.probabilities.shape[1])[clips.truth]) ** 2).sum(1)
    return error


def _brier(clips: Rated, times: NDArray[np.int64] | Floats) -> Floats:
    error = _squared_error(clips)
    return _divided(times @ _per_subject(clips, error), times @ _per_subject(clips, np.ones(len(error))))


def _calibration_error(clips: Rated, times: NDArray[np.int64] | Floats) -> Floats:
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


def _divided(numerator: Floats, denominator: Floats) -> Floats:
    filled = np.full(np.shape(denominator), np.nan)
    ratio: Floats = np.divide(numerator, denominator, out=filled, where=denominator != 0)
    return ratio


def _number(value: Floats | np.float64) -> float | None:
    return None if np.isnan(value) else float(value)
