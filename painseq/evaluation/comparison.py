"""Which of several models does better on the same people.

Two models are compared on the clips that both have a prediction for, and subject by subject, since clips of one person
are not independent. Each pair gets the difference with its interval and two tests:

- Wilcoxon's signed rank test of the subjects' own values (Wilcoxon 1945). Subjects whose values are equal are left out
  (SciPy's zero_method "wilcox"); with fewer than `FEWEST_PAIRS` others there is no p, as none could be below 0.05.
- A permutation test of the statistic of all clips together: were the models alike, the two predictions of a subject
  could be exchanged. All 2^S exchanges where these are at most `MOST_EXACT`, else `RANDOM_DRAWS` random ones, beside
  which the observed one counts as one more (Phipson & Smyth 2010). Two-sided.

The p values of all pairs are corrected together after Holm (1979), those of each test by themselves. Intervals are not
corrected. Neither tells what training again would change: that takes several seeds of each model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from painseq.errors import PainseqError
from painseq.evaluation.intervals import Difference, Interval, bootstrap_interval, mean_interval, paired_difference
from painseq.evaluation.metrics import LOWER_IS_BETTER, NEEDS_ORDER, STATISTICS, Floats, confusion_by_subject
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.value_predictions import ValuePredictions

AnyPredictions = Predictions | ValuePredictions
Either = TypeVar("Either", Predictions, ValuePredictions)

FEWEST_PAIRS = 6
MOST_EXACT = 20_000
RANDOM_DRAWS = 9_999
LEVEL = 0.05

ERRORS: Mapping[str, Callable[[Floats], Floats]] = {"mae": np.abs, "mse": np.square}
"""Statistics of predictions on a scale: what becomes of a clip's error before the mean over clips."""

STATISTIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "quadratic_weighted_kappa": "quadratic-weighted kappa",
    "mean_absolute_error": "mean absolute error in levels",
    "mae": "mean absolute error",
    "mse": "mean squared error",
}


@dataclass(frozen=True)
class SignificanceTest:
    """What a test of two models says.

    Args:
        p: two-sided; None where there is none, and `note` says why.
        method: how it was made.
        note: a caution, or why there is no p.
        corrected: p after Holm's correction over all pairs compared.
    """

    p: float | None
    method: str
    note: str | None = None
    corrected: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Pair:
    """Two models on the same clips.

    Args:
        first, second: their names.
        statistic: one of `STATISTIC_NAMES`.
        clips: that both have a prediction for, with a known truth; all figures are of these.
        left_out: why other clips do not count -> how many of them.
        difference: the statistic of the first minus that of the second, with its interval.
        by_subject: subject -> the statistic of either model within that subject; NaN where it is not defined.
        wilcoxon, permutation: the tests.
        pairs: how many pairs the tests are corrected for.
    """

    first: str
    second: str
    statistic: str
    clips: int
    left_out: Mapping[str, int]
    difference: Difference
    by_subject: Mapping[str, tuple[float, float]]
    wilcoxon: SignificanceTest
    permutation: SignificanceTest
    pairs: int = 1

    @property
    def better(self) -> str | None:
        """The model that is better, if the two can be told apart.

        That takes both: a corrected p of the permutation test of at most `LEVEL`, and an interval without 0.
        """
        p, value, interval = self.permutation.corrected, self.difference.value, self.difference.interval
        if p is None or p > LEVEL or value is None or interval.low is None or interval.high is None:
            return None
        if interval.low <= 0 <= interval.high:
            return None
        return self.first if (value > 0) != (self.statistic in LOWER_IS_BETTER) else self.second

    @property
    def sentence(self) -> str:
        """What was found, in plain words."""
        words, value, interval = STATISTIC_NAMES[self.statistic], self.difference.value, self.difference.interval
        people = _people(len(self.by_subject))
        these = f"{'this' if len(self.by_subject) == 1 else 'these'} {people}"
        if value is None:
            return f"{self.first} and {self.second}: the {words} is not defined on {these}."
        ahead, behind = (self.first, self.second) if value >= 0 else (self.second, self.first)
        low, high = (interval.low, interval.high) if value >= 0 else (_negative(interval.high), _negative(interval.low))
        span = "no interval" if low is None or high is None else f"95 % interval {low:.3f} to {high:.3f}"
        evidence = f"{span}; permutation test {self._p_in_words()}"
        if self.better is None:
            if abs(value) < 5e-13:
                found = f"both have the same {words}"
            else:
                found = f"the {words} of {ahead} is higher by {abs(value):.3f}"
            return f"{self.first} and {self.second} cannot be told apart from {these}: {found} ({evidence})."
        if self.statistic in LOWER_IS_BETTER:
            # Ahead in an error is behind in quality.
            ahead, behind = behind, ahead
            by = f"a {words} that is lower by {abs(value):.3f}"
            return f"On the same {people} {ahead} is better than {behind}, with {by} ({evidence})."
        return f"On the same {people} {ahead} is better than {behind} by {abs(value):.3f} in {words} ({evidence})."

    def _p_in_words(self) -> str:
        if self.permutation.corrected is None:
            return "has no p"
        p = self.permutation.corrected
        shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        return shown if self.pairs == 1 else f"{shown} after correction for {self.pairs} comparisons"

    def to_dict(self) -> dict[str, object]:
        """Plain values with stable keys, ready for JSON."""
        values = {s: [None if np.isnan(v) else v for v in both] for s, both in self.by_subject.items()}
        return {
            "first": self.first,
            "second": self.second,
            "statistic": self.statistic,
            "clips": self.clips,
            "left_out": dict(self.left_out),
            "subjects": len(self.by_subject),
            "difference": self.difference.to_dict(),
            "wilcoxon": self.wilcoxon.to_dict(),
            "permutation": self.permutation.to_dict(),
            "better": self.better,
            "sentence": self.sentence,
            "by_subject": values,
        }


def compare(
    models: Mapping[str, AnyPredictions],
    statistic: str = "balanced_accuracy",
    against: str | None = None,
    seed: int = 0,
) -> tuple[Pair, ...]:
    """Compare models two by two, on the clips that both of a pair have a prediction for.

    Args:
        models: name -> predictions, two or more; all of classes, or all of one scale.
        statistic: a name out of `STATISTICS`, or for predictions on a scale out of `ERRORS`.
        against: the model that all others are compared with; None compares each with each.
        seed: of the intervals' and the tests' draws.

    Raises:
        PainseqError: fewer than two models, a name or statistic that does not exist, a statistic of ordered classes
            where their order is not known; two models of different classes or scales, with another truth or subject
            for a clip, or without a clip that both have a prediction for.
    """
    if len(models) < 2:
        raise PainseqError(f"A comparison needs two models or more; {len(models)} given.")
    if against is not None and against not in models:
        raise PainseqError(f"No model is called {against!r}; there are {', '.join(models)}.")
    if against is None:
        names = list(itertools.combinations(models, 2))
    else:
        names = [(name, against) for name in models if name != against]
    pairs = [_compared(a, models[a], b, models[b], statistic, seed) for a, b in names]
    wilcoxons = holm([pair.wilcoxon.p for pair in pairs])
    permutations = holm([pair.permutation.p for pair in pairs])

    def few(pair: Pair) -> str | None:
        # Pairs of more people may have smaller p values, which leave fewer to correct for.
        as_few = [p for p in pairs if p.permutation.p is not None and len(p.by_subject) <= len(pair.by_subject)]
        return _too_few(len(pair.by_subject), len(as_few))

    return tuple(
        dataclasses.replace(
            pair,
            wilcoxon=dataclasses.replace(pair.wilcoxon, corrected=of_wilcoxon),
            permutation=dataclasses.replace(
                pair.permutation,
                corrected=of_permutation,
                note=pair.permutation.note or few(pair),
            ),
            pairs=len(pairs),
        )
        for pair, of_wilcoxon, of_permutation in zip(pairs, wilcoxons, permutations, strict=True)
    )


def _too_few(people: int, tests: int) -> str | None:
    """A caution where the smallest p that so many people can give is too large, or is once corrected for all tests."""
    smallest = min(1.0, 2 * tests / 2**people)
    if smallest <= LEVEL:
        return None
    return f"{_people(people)} cannot give a p below {smallest:.2g}{' after correction' if tests > 1 else ''}"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected after Holm (1979), in the order given; a test without a p does not count."""
    ordered = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(ordered):
        largest = max(largest, min(1.0, p * (len(ordered) - rank)))
        corrected[place] = largest
    return corrected


def wilcoxon_test(differences: Floats) -> SignificanceTest:
    """Wilcoxon's signed rank test of (S,) differences of subjects; NaN is a subject without one."""
    method = "signed rank of subjects' values, two-sided, subjects without a difference left out (zero_method wilcox)"
    # Equal scores may differ in their last digit, and would then count as a difference or break a tie.
    rounded = differences[~np.isnan(differences)].round(12)
    unequal = rounded[rounded != 0]
    note = f"{len(differences) - len(unequal)} of {len(differences)} subjects without a difference" * (
        len(unequal) < len(differences)
    )
    if not len(unequal):
        return SignificanceTest(None, method, "no p: no subject has a difference")
    if len(unequal) < FEWEST_PAIRS:
        return SignificanceTest(
            None, method, f"no p: only {_people(len(unequal))} with a difference, and it takes {FEWEST_PAIRS} or more"
        )
    return SignificanceTest(float(wilcoxon(unequal).pvalue), method, note or None)


def permutation_test(
    first: Floats, second: Floats, statistic: Callable[[Floats], Floats], seed: int = 0, most_exact: int = MOST_EXACT
) -> SignificanceTest:
    """Exchange the two models' predictions within subjects, and see how often the difference is as large.

    Args:
        first, second: (S, ...) what a subject's clips add up to, such as a confusion matrix, of either model.
        statistic: of the sum over subjects, (..., D, ...) to (D,).
        seed: of the random exchanges.
        most_exact: at most so many exchanges are all tried.

    Returns:
        The two-sided p. An exchange that leaves the statistic undefined counts as one with as large a difference.
    """
    subjects = len(first)
    exact = 2**subjects <= most_exact
    if exact:
        exchanged = (np.arange(2**subjects)[:, None] >> np.arange(subjects)) & 1
        method = f"subjects' predictions exchanged, all {2**subjects} ways, two-sided"
    else:
        exchanged = np.random.default_rng(seed).integers(0, 2, (RANDOM_DRAWS, subjects))
        method = f"subjects' predictions exchanged, {RANDOM_DRAWS} random ways and the observed one, two-sided"
    both = first.sum(0) + second.sum(0)
    observed = float(statistic(first.sum(0)) - statistic(second.sum(0)))
    if np.isnan(observed):
        return SignificanceTest(None, method, "no p: the statistic is not defined")
    mixed = first.sum(0) + np.tensordot(exchanged.astype(np.float64), second - first, axes=1)
    one, other = statistic(mixed), statistic(both - mixed)
    # What rounding makes of equal differences; the observed exchange itself must count.
    slack = 1e-12 + 1e-10 * (np.abs(one) + np.abs(other))
    differences = np.abs(one - other)
    as_large = int((np.isnan(differences) | (differences + slack >= abs(observed))).sum())
    p = as_large / len(exchanged) if exact else (as_large + 1) / (RANDOM_DRAWS + 1)
    return SignificanceTest(p, method, _too_few(subjects, tests=1))


def _compared(a: str, first: AnyPredictions, b: str, second: AnyPredictions, statistic: str, seed: int) -> Pair:
    try:
        if isinstance(first, Predictions) and isinstance(second, Predictions):
            first, second, left_out = _shared(a, first, b, second)
            subjects, of_first, of_second, function = _confusions(first, second, statistic)
            difference = paired_difference(first, second, [statistic], seed=seed)[statistic]
        elif isinstance(first, ValuePredictions) and isinstance(second, ValuePredictions):
            first, second, left_out = _shared(a, first, b, second)
            subjects, of_first, of_second, function = _error_sums(first, second, statistic)
            difference = _error_difference(of_first, of_second, seed)
        else:
            raise PainseqError("one predicts classes, the other values on a scale.")
    except PainseqError as error:
        raise PainseqError(f"{a} and {b} cannot be compared: {error}") from error
    values, others = function(of_first), function(of_second)
    return Pair(
        first=a,
        second=b,
        statistic=statistic,
        clips=len(first),
        left_out=left_out,
        difference=difference,
        by_subject=dict(zip(subjects, zip(values.tolist(), others.tolist(), strict=True), strict=True)),
        wilcoxon=wilcoxon_test(values - others),
        permutation=permutation_test(of_first, of_second, function, seed),
    )


def _shared(a: str, first: Either, b: str, second: Either) -> tuple[Either, Either, dict[str, int]]:
    """Both on the clips that count, in the same order; and why others do not."""
    place = {clip_id: row for row, clip_id in enumerate(second.clip_ids)}
    rows = [row for row, clip_id in enumerate(first.clip_ids) if clip_id in place]
    left_out = {f"not in {b}": len(first) - len(rows), f"not in {a}": len(second) - len(rows)}
    first, second = first.only(rows), second.only([place[first.clip_ids[row]] for row in rows])
    if first.subject_ids != second.subject_ids:
        clip = next(c for c, x, y in zip(first.clip_ids, first.subject_ids, second.subject_ids, strict=True) if x != y)
        raise PainseqError(f"clip {clip!r} is of another subject in each.")
    known = ~(first.hidden | second.hidden)
    missing = [known & ~predictions.scored for predictions in (first, second)]
    left_out["of hidden truth"] = int((~known).sum())
    left_out[f"without a prediction of {a}"] = int(missing[0].sum())
    left_out[f"without a prediction of {b}"] = int((missing[1] & ~missing[0]).sum())
    counts = first.scored & second.scored
    if not counts.any():
        raise PainseqError(
            "there is no clip that both have a prediction for, and whose truth is known. Where it is the truth that a "
            "file lacks: `painseq evaluate --predictions FILE --truth TRUTH --out FOLDER` writes it in."
        )
    first, second = first.only(counts), second.only(counts)
    return first, second, {why: clips for why, clips in left_out.items() if clips}


Summed = tuple[tuple[str, ...], Floats, Floats, Callable[[Floats], Floats]]
"""Subjects, (S, ...) what their clips add up to for either model, and the statistic of such a sum."""


def _confusions(first: Predictions, second: Predictions, statistic: str) -> Summed:
    if statistic not in STATISTICS:
        raise PainseqError(f"statistic is {statistic!r}, which is none of classes; those are {', '.join(STATISTICS)}.")
    if first.class_names != second.class_names:
        differ = f"{', '.join(first.class_names)}, and {', '.join(second.class_names)}."
        if set(first.class_names) != set(second.class_names):
            raise PainseqError(f"their classes differ: {differ}")
        raise PainseqError(
            f"their classes are in different orders: {differ} If one of the two is not that of pain, `painseq evaluate "
            "--predictions FILE --classes NAMES IN ORDER --out FOLDER` writes the file anew."
        )
    if statistic in NEEDS_ORDER and not (first.order_known and second.order_known):
        raise PainseqError(
            f"the {STATISTIC_NAMES[statistic]} needs the order of the classes, which the files do not state; columns "
            "prob_<class> in order of pain do."
        )
    if not np.array_equal(first.truth, second.truth):
        raise PainseqError(f"{_some_clip(first.clip_ids, first.truth != second.truth)} has another truth in each.")
    k = len(first.class_names)
    subjects, of_first = confusion_by_subject(first.truth, first.label, first.subject_ids, k)
    _, of_second = confusion_by_subject(second.truth, second.label, second.subject_ids, k)
    return subjects, of_first, of_second, STATISTICS[statistic]


def _error_sums(first: ValuePredictions, second: ValuePredictions, statistic: str) -> Summed:
    """A subject's clips add up to (2,): the sum of their errors, and how many they are."""
    if statistic not in ERRORS:
        raise PainseqError(
            f"statistic is {statistic!r}, which is none of values on a scale; those are {', '.join(ERRORS)}."
        )
    if first.scale != second.scale:
        raise PainseqError(f"their scales differ: {first.scale} and {second.scale}.")
    if not np.allclose(first.truth, second.truth, rtol=1e-6, atol=1e-9):
        odd = ~np.isclose(first.truth, second.truth, rtol=1e-6, atol=1e-9)
        raise PainseqError(f"{_some_clip(first.clip_ids, odd)} has another truth in each.")
    subjects, number = np.unique(np.asarray(first.subject_ids), return_inverse=True)
    clips = np.bincount(number).astype(np.float64)

    def summed(predictions: ValuePredictions) -> Floats:
        errors = ERRORS[statistic](predictions.value - predictions.truth)
        return np.stack([np.bincount(number, errors), clips], axis=1)

    return tuple(subjects.tolist()), summed(first), summed(second), _mean_error


def _mean_error(sums: Floats) -> Floats:
    mean: Floats = sums[..., 0] / sums[..., 1]
    return mean


def _error_difference(first: Floats, second: Floats, seed: int) -> Difference:
    of_first, of_second = float(_mean_error(first.sum(0))), float(_mean_error(second.sum(0)))
    interval: Interval
    if (first[:, 1] == first[0, 1]).all():
        interval = mean_interval(_mean_error(first) - _mean_error(second))
    else:
        interval = bootstrap_interval(
            lambda times: _mean_error(times @ first) - _mean_error(times @ second), len(first), seed=seed
        )
    return Difference(of_first, of_second, of_first - of_second, interval)


def _some_clip(clip_ids: Sequence[str], odd: NDArray[np.bool_]) -> str:
    return f"clip {clip_ids[int(odd.argmax())]!r}, as one of {int(odd.sum())},"


def _people(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"


def _negative(value: float | None) -> float | None:
    # Taken from 0, as -0.0 would be shown with its sign.
    return None if value is None else 0.0 - value
