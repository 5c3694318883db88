"""95 % intervals over subjects, since clips of one person are not independent.

Two ways, and each interval says which one made it:

- Student's t on the subjects' own values, where the score is exactly their mean: accuracy, balanced accuracy, mean
  errors, if every subject has the same number of clips of each class. Cut off at the ends of the score's range.
- Else subjects are drawn with replacement, all clips of one together, and the interval lies between two percentiles
  of the draws: not the 2.5th and 97.5th, which are too close with few subjects, but those of Hesterberg 2015
  ("What teachers should know about the bootstrap", The American Statistician 69(4), section 5.3), who widens them
  by what Student's t would. Draws never leave the range of a score, so neither does the interval.

`benchmarks/coverage.py` measures how often either holds the true value; the way for unbalanced clips was chosen by it.
Both are too narrow where the subjects' values lie far to one side, as with a model that fails few people, or with
squared errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from painseq.errors import PainseqError
from painseq.evaluation.metrics import STATISTICS, Floats, confusion_by_subject
from painseq.evaluation.predictions import Predictions

FEW_SUBJECTS = 20
DRAWS = 2000
BOOTSTRAP = "bootstrap over subjects, expanded percentiles"
STUDENT_T = "Student's t on subject means"

MEANS = ("accuracy", "balanced_accuracy", "mean_absolute_error")
"""Scores that are the mean of the subjects' own, if every subject has the same number of clips of each class."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; `low` and `high` are None where there is none, and `note` says why.

    Args:
        low: its lower end.
        high: its upper end.
        subjects: how many it rests on.
        note: a caution about the interval, or why there is none.
        method: how it was made, `BOOTSTRAP` or `STUDENT_T`.
    """

    low: float | None
    high: float | None
    subjects: int
    note: str | None = None
    method: str = BOOTSTRAP

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "low": self.low,
            "high": self.high,
            "subjects": self.subjects,
            "method": self.method,
            "note": self.note,
        }


@dataclass(frozen=True)
class Difference:
    """A statistic of one model minus that of another on the same clips.

    Args:
        first: the statistic of the first model; None where it is not defined.
        second: the statistic of the second.
        value: first minus second.
        interval: of the value, from the subjects that both models share.
    """

    first: float | None
    second: float | None
    value: float | None
    interval: Interval

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.value,
            "interval": self.interval.to_dict(),
        }


def draw_subjects(subjects: int, draws: int, seed: int) -> NDArray[np.int64]:
    """(draws, S) how often each subject is drawn when S are drawn with replacement; rows sum to S."""
    return np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), size=draws)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], Floats], subjects: int, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Interval of any statistic by drawing subjects.

    Args:
        statistic: of (draws, S) how often each subject is drawn, the (draws,) values; NaN where it is not defined.
            It decides how a subject's clips count, so it serves paired differences too.
        subjects: S.
        draws: resamples.
        seed: of the draws; the same seed draws the same subjects.

    Returns:
        The interval. Undefined draws are left out, and told in the note; with more than half of them undefined, or
        with fewer than 2 subjects, there is none.
    """
    if subjects < 2:
        return _no_interval(subjects, BOOTSTRAP)
    values = np.asarray(statistic(draw_subjects(subjects, draws, seed)), np.float64)
    defined = values[~np.isnan(values)]
    notes = []
    if len(defined) < draws:
        notes.append(f"not defined in {draws - len(defined)} of {draws} draws, which are left out")
    if len(defined) < draws / 2:
        return Interval(None, None, subjects, "; ".join(["no interval", *notes]))
    low, high = np.quantile(defined, _tails(subjects)).tolist()
    return _noted(low, high, subjects, BOOTSTRAP, notes)


def mean_interval(by_subject: Floats, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """Interval of the mean of one value a subject, by Student's t.

    Args:
        by_subject: (S,); the score must be their plain mean. NaN, a subject without a value, is left out and told.
        bounds: least and greatest value of the score, where the interval is cut off.
    """
    known = by_subject[~np.isnan(by_subject)]
    subjects, left_out = len(known), len(by_subject) - len(known)
    notes = []
    if left_out:
        are = "subjects without a value are" if left_out > 1 else "subject without a value is"
        notes.append(f"{left_out} {are} left out")
    if subjects < 2:
        return _no_interval(subjects, STUDENT_T)
    mean, deviation = known.mean(), known.std(ddof=1)
    reach = stdtrit(subjects - 1, 0.975) * deviation / np.sqrt(subjects)
    low, high = np.clip([mean - reach, mean + reach], *bounds).tolist()
    return _noted(low, high, subjects, STUDENT_T, notes)


def confusion_intervals(confusion: Floats, statistics: Sequence[str] = tuple(STATISTICS)) -> dict[str, Interval]:
    """The interval of each statistic, by the way that fits it.

    Args:
        confusion: (S, K, K), one matrix a subject, each with at least one clip.
        statistics: names out of `STATISTICS`.

    Returns:
        By name: Student's t for `MEANS` where every subject has the same number of clips of each class, the
        bootstrap otherwise. With one subject or none there is no interval, only a note; under `FEW_SUBJECTS` a note
        says that it is rough.
    """
    means = [name for name in statistics if name in MEANS and _balanced(confusion)]
    drawn = subject_bootstrap(confusion, [name for name in statistics if name not in means])
    by_mean = {name: mean_interval(STATISTICS[name](confusion), (0, _highest(name, confusion))) for name in means}
    return {name: (by_mean | drawn)[name] for name in statistics}


def subject_bootstrap(
    confusion: Floats, statistics: Sequence[str] = tuple(STATISTICS), draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """`bootstrap_interval` of statistics of the summed confusion matrix; (S, K, K), one matrix a subject."""

    def interval(statistic: Callable[[Floats], Floats]) -> Interval:
        return bootstrap_interval(lambda times: statistic(_resample(confusion, times)), len(confusion), draws, seed)

    return {name: interval(STATISTICS[name]) for name in statistics}


def paired_difference(
    first: Predictions,
    second: Predictions,
    statistics: Sequence[str] = tuple(STATISTICS),
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Difference]:
    """Statistics of `first` minus those of `second`, paired by subject.

    Only clips for which both models have a prediction count, for both. `MEANS` have Student's t on the subjects'
    differences where every subject has the same number of clips of each class; otherwise each draw of subjects
    scores both models.

    Raises:
        PainseqError: the two differ in classes, clips, subjects or truth.
    """
    position = {clip_id: row for row, clip_id in enumerate(second.clip_ids)}
    if first.class_names != second.class_names:
        raise PainseqError(
            f"Two models of different classes cannot be compared: {', '.join(first.class_names)} and "
            f"{', '.join(second.class_names)}."
        )
    odd = set(first.clip_ids) ^ set(second.clip_ids)
    if odd:
        raise PainseqError(
            f"A paired comparison needs the same clips: {len(odd)} are in one of the two only, such as {min(odd)!r}."
        )
    second = second.only([position[clip_id] for clip_id in first.clip_ids])
    if first.subject_ids != second.subject_ids or not np.array_equal(first.truth, second.truth):
        raise PainseqError("A paired comparison needs the same subject and truth for each clip; they differ.")

    both = first.scored & second.scored
    first, second = first.only(both), second.only(both)
    k = len(first.class_names)
    subjects, a = confusion_by_subject(first.truth, first.label, first.subject_ids, k)
    _, b = confusion_by_subject(second.truth, second.label, second.subject_ids, k)

    def difference(name: str) -> Difference:
        statistic = STATISTICS[name]
        if name in MEANS and _balanced(a):
            reach = _highest(name, a)
            interval = mean_interval(statistic(a) - statistic(b), (-reach, reach))
        else:
            interval = bootstrap_interval(
                lambda times: statistic(_resample(a, times)) - statistic(_resample(b, times)),
                len(subjects),
                draws,
                seed,
            )
        of_a, of_b = _number(statistic(a.sum(0))), _number(statistic(b.sum(0)))
        return Difference(of_a, of_b, None if of_a is None or of_b is None else of_a - of_b, interval)

    return {name: difference(name) for name in statistics}


def _tails(subjects: int) -> tuple[float, float]:
    """The two percentiles, as shares: what Student's t and the divisor S - 1 add, on the scale of the normal."""
    low = float(ndtr(np.sqrt(subjects / (subjects - 1)) * stdtrit(subjects - 1, 0.025)))
    return low, 1 - low


def _balanced(confusion: Floats) -> bool:
    """Whether every subject has the same number of clips of each class."""
    clips = confusion.sum(-1)
    return bool((clips == clips[:1]).all())


def _highest(name: str, confusion: Floats) -> float:
    """The largest value that one of `MEANS` can take; the smallest is 0."""
    return confusion.shape[-1] - 1 if name == "mean_absolute_error" else 1


def _resample(confusion: Floats, times: NDArray[np.int64]) -> Floats:
    """(draws, K, K) sums of the subjects' matrices, each as often as it was drawn."""
    sums: Floats = np.tensordot(times.astype(np.float64), confusion, axes=1)
    return sums


def _number(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)


def _no_interval(subjects: int, method: str) -> Interval:
    there = "there is 1" if subjects else "there are none"
    return Interval(None, None, subjects, f"no interval: it needs at least 2 subjects, and {there}", method)


def _noted(low: float, high: float, subjects: int, method: str, notes: Sequence[str] = ()) -> Interval:
    cautions = []
    if subjects < FEW_SUBJECTS:
        cautions.append(f"{subjects} subjects only: the interval is rough")
    if low == high:
        cautions.append(
            "the subjects do not differ, so that the interval has no width: it does not say how sure one is"
        )
    return Interval(low, high, subjects, "; ".join([*cautions, *notes]) or None, method)
