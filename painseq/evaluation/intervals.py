"""95 % intervals over subjects, since clips of one subject are not independent.

There are two methods, and each interval names its own:

- Student's t on the subjects' values, if the score is exactly their mean: accuracy, balanced accuracy and mean errors,
  if every subject has the same number of clips of each class. Clipped to the range of the score.
- Otherwise a bootstrap: subjects are drawn with replacement, with all their clips, and the interval is between two
  percentiles of the draws. The 2.5th and 97.5th percentiles are too close with few subjects, so they are expanded as
  Student's t would (Hesterberg 2015, "What teachers should know about the bootstrap", The American Statistician 69(4),
  section 5.3). Draws never leave the range of a score, so the interval does not either.

`benchmarks/coverage.py` measures how often each method covers the true value; the method for unbalanced clips was
chosen by it. Both are too narrow if the subjects' values are strongly skewed, as with a model that fails on few
subjects, or with squared errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from painseq.errors import PainseqError, first_few
from painseq.evaluation.metrics import STATISTICS, Floats, confusion_by_subject
from painseq.evaluation.predictions import Predictions

FEW_SUBJECTS = 20
DRAWS = 2000
BOOTSTRAP = "bootstrap over subjects, expanded percentiles"
STUDENT_T = "Student's t on subject means"

CELLS_AT_ONCE = 8_000_000
"""Largest number of cells (draws x subjects) in memory at once: 64 MB."""

MEANS = ("accuracy", "balanced_accuracy", "mean_absolute_error")
"""Scores that are the mean of the subjects' scores, if every subject has the same number of clips of each class."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; `low` and `high` are None if there is none, with the reason in `note`.

    Args:
        low: lower limit.
        high: upper limit.
        subjects: number of subjects that it is based on.
        note: a caution about the interval, or why there is none.
        method: `BOOTSTRAP` or `STUDENT_T`.
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
        first: the statistic of the first model; None if not defined.
        second: the statistic of the second model; None if not defined.
        value: first minus second.
        interval: interval of the value, over the subjects that both models share.
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
    """Draw S subjects with replacement: (draws, S) how often each subject is drawn; rows sum to S."""
    return np.concatenate(list(_blocks_of_draws(subjects, draws, seed)))


def _blocks_of_draws(subjects: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The rows of `draw_subjects` in blocks of at most `CELLS_AT_ONCE`."""
    generator, step = np.random.default_rng(seed), max(1, CELLS_AT_ONCE // max(1, subjects))
    for start in range(0, draws, step):
        yield generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=min(step, draws - start))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], Floats], subjects: int, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Bootstrap interval of any statistic over subjects.

    Args:
        statistic: function of (draws, S), how often each subject is drawn, to (draws,) values; NaN if not defined.
            Also works for paired differences.
        subjects: number of subjects S.
        draws: number of resamples.
        seed: seed of the draws; the same seed draws the same subjects.

    Returns:
        The interval. Undefined draws are left out and counted in the note. There is no interval if more than half of
        the draws are undefined, or with fewer than 2 subjects.
    """
    return bootstrap_intervals(lambda times: {"": statistic(times)}, [""], subjects, draws, seed)[""]


def bootstrap_intervals(
    statistics: Callable[[NDArray[np.int64]], Mapping[str, Floats]],
    names: Sequence[str],
    subjects: int,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Bootstrap intervals of several statistics on the same draws; see `bootstrap_interval`.

    Args:
        statistics: function of (draws, S), how often each subject is drawn, to name -> (draws,) values. It is called
            with some of the draws at a time.
        names: the statistics that get an interval.
        subjects, draws, seed: see `bootstrap_interval`.
    """
    if subjects < 2:
        return {name: _no_interval(subjects, BOOTSTRAP) for name in names}
    if not names:
        return {}
    blocks = [statistics(times) for times in _blocks_of_draws(subjects, draws, seed)]
    return {name: _of_draws(np.concatenate([block[name] for block in blocks]), subjects) for name in names}


def _of_draws(values: Floats, subjects: int) -> Interval:
    draws = len(values)
    defined = values[~np.isnan(values)]
    notes = []
    if len(defined) < draws:
        notes.append(f"not defined in {draws - len(defined)} of {draws} draws, which are left out")
    if len(defined) < draws / 2:
        return Interval(None, None, subjects, "; ".join(["no interval", *notes]))
    low, high = np.quantile(defined, _tails(subjects)).tolist()
    return _with_notes(low, high, subjects, BOOTSTRAP, notes)


def mean_interval(by_subject: Floats, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """Student's t interval of the mean of one value per subject.

    Args:
        by_subject: (S,) values whose plain mean is the score. NaN (no value) is left out and counted in the note.
        bounds: least and greatest possible score, to which the interval is clipped.
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
    margin = stdtrit(subjects - 1, 0.975) * deviation / np.sqrt(subjects)
    low, high = np.clip([mean - margin, mean + margin], *bounds).tolist()
    return _with_notes(low, high, subjects, STUDENT_T, notes)


def confusion_intervals(confusion: Floats, statistics: Sequence[str] = tuple(STATISTICS)) -> dict[str, Interval]:
    """Intervals of statistics of a confusion matrix.

    Args:
        confusion: (S, K, K), one matrix per subject, each with at least one clip.
        statistics: keys of `STATISTICS`.

    Returns:
        Name -> interval: Student's t for `MEANS` if every subject has the same number of clips of each class, the
        bootstrap otherwise. With fewer than 2 subjects there is no interval, only a note; below `FEW_SUBJECTS` a note
        calls it rough.
    """
    means = [name for name in statistics if name in MEANS and _balanced(confusion)]
    drawn = subject_bootstrap(confusion, [name for name in statistics if name not in means])
    by_mean = {name: mean_interval(STATISTICS[name](confusion), (0, _highest(name, confusion))) for name in means}
    return {name: (by_mean | drawn)[name] for name in statistics}


def subject_bootstrap(
    confusion: Floats, statistics: Sequence[str] = tuple(STATISTICS), draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Bootstrap intervals of statistics of the summed confusion matrix; `confusion` is (S, K, K), one per subject."""

    def drawn(times: NDArray[np.int64]) -> dict[str, Floats]:
        sums = _resample(confusion, times)
        return {name: STATISTICS[name](sums) for name in statistics}

    return bootstrap_intervals(drawn, statistics, len(confusion), draws, seed)


def paired_difference(
    first: Predictions,
    second: Predictions,
    statistics: Sequence[str] = tuple(STATISTICS),
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Difference]:
    """Statistics of `first` minus those of `second`, paired by subject.

    Only clips with a prediction of both models count. `MEANS` get Student's t on the subjects' differences if every
    subject has the same number of clips of each class; otherwise each bootstrap draw scores both models on the same
    subjects.

    Raises:
        PainseqError: the two differ in classes, clips, subjects or truth.
    """
    row_of = {clip_id: row for row, clip_id in enumerate(second.clip_ids)}
    if first.class_names != second.class_names:
        raise PainseqError(
            f"Models with different classes cannot be compared: {first_few(first.class_names)} and "
            f"{first_few(second.class_names)}."
        )
    unshared = set(first.clip_ids) ^ set(second.clip_ids)
    if unshared:
        raise PainseqError(
            f"A paired comparison needs the same clips; {len(unshared)} are in only one of the two, such as "
            f"{min(unshared)!r}."
        )
    second = second.only([row_of[clip_id] for clip_id in first.clip_ids])
    if first.subject_ids != second.subject_ids or not np.array_equal(first.truth, second.truth):
        raise PainseqError("A paired comparison needs the same subject and truth for each clip, but they differ.")

    both = first.scored & second.scored
    first, second = first.only(both), second.only(both)
    k = len(first.class_names)
    subjects, a = confusion_by_subject(first.truth, first.label, first.subject_ids, k)
    _, b = confusion_by_subject(second.truth, second.label, second.subject_ids, k)

    means = [name for name in statistics if name in MEANS and _balanced(a)]

    def drawn(times: NDArray[np.int64]) -> dict[str, Floats]:
        of_a, of_b = _resample(a, times), _resample(b, times)
        return {name: STATISTICS[name](of_a) - STATISTICS[name](of_b) for name in statistics if name not in means}

    intervals = bootstrap_intervals(
        drawn, [name for name in statistics if name not in means], len(subjects), draws, seed
    )
    for name in means:
        limit = _highest(name, a)
        intervals[name] = mean_interval(STATISTICS[name](a) - STATISTICS[name](b), (-limit, limit))

    def difference(name: str) -> Difference:
        of_a, of_b = (_number(STATISTICS[name](sums.sum(0))) for sums in (a, b))
        return Difference(of_a, of_b, None if of_a is None or of_b is None else of_a - of_b, intervals[name])

    return {name: difference(name) for name in statistics}


def _tails(subjects: int) -> tuple[float, float]:
    """The expanded percentiles as shares: normal quantiles widened by Student's t and the divisor S - 1."""
    low = float(ndtr(np.sqrt(subjects / (subjects - 1)) * stdtrit(subjects - 1, 0.025)))
    return low, 1 - low


def _balanced(confusion: Floats) -> bool:
    """Whether every subject has the same number of clips of each class."""
    clips = confusion.sum(-1)
    return bool((clips == clips[:1]).all())


def _highest(name: str, confusion: Floats) -> float:
    """The largest possible value of one of `MEANS`; the smallest is 0."""
    return confusion.shape[-1] - 1 if name == "mean_absolute_error" else 1


def _resample(confusion: Floats, times: NDArray[np.int64]) -> Floats:
    """(draws, K, K) sums of the subjects' matrices, weighted by how often each was drawn."""
    sums: Floats = np.tensordot(times.astype(np.float64), confusion, axes=1)
    return sums


def _number(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)


def _no_interval(subjects: int, method: str) -> Interval:
    found = "there is 1" if subjects else "there are none"
    return Interval(None, None, subjects, f"no interval: it needs at least 2 subjects, and {found}", method)


def _with_notes(low: float, high: float, subjects: int, method: str, notes: Sequence[str] = ()) -> Interval:
    cautions = []
    if subjects < FEW_SUBJECTS:
        cautions.append(f"only {subjects} subjects: the interval is rough")
    if low == high:
        cautions.append("the subjects do not differ, so the interval has no width and does not express uncertainty")
    return Interval(low, high, subjects, "; ".join([*cautions, *notes]) or None, method)
