"""Paired comparison of models on the same subjects.

Two models are compared on the clips that both have a prediction for, and subject by subject, since clips of one subject
are not independent. Each pair gets the difference with its interval and two tests:

- Wilcoxon's signed rank test of the subjects' values (Wilcoxon 1945). Subjects with equal values are left out (SciPy's
  zero_method "wilcox"). With fewer than `FEWEST_PAIRS` remaining subjects there is no p value, as none could be below
  0.05.
- A permutation test of the statistic over all clips: under the null hypothesis, the two models' predictions for a
  subject are exchangeable. It is two-sided and uses all 2^S exchanges if these are at most `MOST_EXACT`, otherwise
  `RANDOM_DRAWS` random ones plus the observed one (Phipson & Smyth 2010).

The p values of all pairs are corrected with Holm's method (1979), separately for each test. Intervals are not
corrected. Neither includes the variation between training runs: that takes several seeds of each model.
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

from painseq.errors import PainseqError, first_few
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
"""Statistics of predictions on a scale -> function of a clip's error, applied before the mean over clips."""

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
    """Result of a significance test of two models.

    Args:
        p: two-sided p value; None if there is none, with the reason in `note`.
        method: how it was computed.
        note: a caution, or why there is no p value.
        corrected: p value after Holm's correction over all pairs compared.
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
        first, second: names of the models.
        statistic: a key of `STATISTIC_NAMES`.
        clips: number of clips with a known truth and a prediction of both models; all figures are of these.
        left_out: reason -> number of clips left out.
        difference: the statistic of the first model minus that of the second, with its interval.
        by_subject: subject -> the statistic of each model within that subject; NaN if not defined.
        wilcoxon, permutation: the significance tests.
        pairs: number of pairs that the tests are corrected for.
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
        """Name of the significantly better model, or None.

        Significant means a corrected p value of the permutation test of at most `LEVEL` and an interval without 0.
        """
        p, value, interval = self.permutation.corrected, self.difference.value, self.difference.interval
        if p is None or p > LEVEL or value is None or interval.low is None or interval.high is None:
            return None
        if interval.low <= 0 <= interval.high:
            return None
        return self.first if (value > 0) != (self.statistic in LOWER_IS_BETTER) else self.second

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
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
            return f"{self.first} and {self.second} do not differ significantly on {these}: {found} ({evidence})."
        if self.statistic in LOWER_IS_BETTER:
            ahead, behind = behind, ahead
            by = f"a {words} that is lower by {abs(value):.3f}"
            return f"On the same {people} {ahead} is better than {behind}, with {by} ({evidence})."
        return f"On the same {people} {ahead} is better than {behind} by {abs(value):.3f} in {words} ({evidence})."

    def _p_in_words(self) -> str:
        if self.permutation.corrected is None:
            return "has no p value"
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
    """Compare models in pairs, on the clips that both models of a pair have a prediction for.

    Args:
        models: name -> predictions of two or more models; all of classes, or all on one scale.
        statistic: a key of `STATISTICS`, or of `ERRORS` for predictions on a scale.
        against: name of the model that all others are compared with; None compares all pairs.
        seed: seed of the resampling in intervals and tests.

    Raises:
        PainseqError: fewer than two models, an unknown name or statistic, or a statistic of ordered classes if their
            order is not known; two models with different classes or scales, with different truths or subjects for a
            clip, or without a clip that both have a prediction for.
    """
    if len(models) < 2:
        raise PainseqError(f"A comparison needs two or more models; {len(models)} given.")
    if against is not None and against not in models:
        raise PainseqError(f"No model is called {against!r}; the models are {first_few(models)}.")
    if against is None:
        names = list(itertools.combinations(models, 2))
    else:
        names = [(name, against) for name in models if name != against]
    pairs = [_compare_pair(a, models[a], b, models[b], statistic, seed) for a, b in names]
    wilcoxons = holm([pair.wilcoxon.p for pair in pairs])
    permutations = holm([pair.permutation.p for pair in pairs])

    def too_few_subjects(pair: Pair) -> str | None:
        # Pairs with more subjects may have smaller p values, which leave fewer tests to correct for.
        tests = [p for p in pairs if p.permutation.p is not None and len(p.by_subject) <= len(pair.by_subject)]
        return _too_few(len(pair.by_subject), len(tests))

    return tuple(
        dataclasses.replace(
            pair,
            wilcoxon=dataclasses.replace(pair.wilcoxon, corrected=wilcoxon_p),
            permutation=dataclasses.replace(
                pair.permutation,
                corrected=permutation_p,
                note=pair.permutation.note or too_few_subjects(pair),
            ),
            pairs=len(pairs),
        )
        for pair, wilcoxon_p, permutation_p in zip(pairs, wilcoxons, permutations, strict=True)
    )


def _too_few(people: int, tests: int) -> str | None:
    """A caution if the smallest possible p value for this number of people, after correction, is above `LEVEL`."""
    smallest = min(1.0, 2 * tests / 2**people)
    if smallest <= LEVEL:
        return None
    return f"{_people(people)} cannot give a p value below {smallest:.2g}{' after correction' if tests > 1 else ''}"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values with Holm's method (1979), in the order given; tests without a p value do not count."""
    ordered = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(ordered):
        largest = max(largest, min(1.0, p * (len(ordered) - rank)))
        corrected[place] = largest
    return corrected


def wilcoxon_test(differences: Floats) -> SignificanceTest:
    """Wilcoxon's signed rank test of (S,) differences of subjects; NaN for a subject without a value."""
    method = "signed rank of subjects' values, two-sided, subjects without a difference left out (zero_method wilcox)"
    # Rounding errors in the last digit must not count as differences, nor break ties.
    rounded = differences[~np.isnan(differences)].round(12)
    unequal = rounded[rounded != 0]
    note = f"{len(differences) - len(unequal)} of {len(differences)} subjects without a difference" * (
        len(unequal) < len(differences)
    )
    if not len(unequal):
        return SignificanceTest(None, method, "no p value: no subject has a difference")
    if len(unequal) < FEWEST_PAIRS:
        return SignificanceTest(
            None, method, f"no p: only {_people(len(unequal))} with a difference, and it takes {FEWEST_PAIRS} or more"
        )
    return SignificanceTest(float(wilcoxon(unequal).pvalue), method, note or None)


def permutation_test(
    first: Floats, second: Floats, statistic: Callable[[Floats], Floats], seed: int = 0, most_exact: int = MOST_EXACT
) -> SignificanceTest:
    """Test whether a difference is larger than expected if the models' predictions were exchangeable within subjects.

    Args:
        first, second: (S, ...) sums over each subject's clips, such as confusion matrices, of the two models.
        statistic: function of the sum over subjects, (D, ...) to (D,).
        seed: seed of the random exchanges.
        most_exact: all exchanges are tried if they are at most this many.

    Returns:
        The two-sided test. An exchange with an undefined statistic counts as a difference at least as large.
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
        return SignificanceTest(None, method, "no p value: the statistic is not defined")
    mixed = first.sum(0) + np.tensordot(exchanged.astype(np.float64), second - first, axes=1)
    left, right = statistic(mixed), statistic(both - mixed)
    # Allow for rounding: the observed exchange itself must count.
    slack = 1e-12 + 1e-10 * (np.abs(left) + np.abs(right))
    differences = np.abs(left - right)
    as_large = int((np.isnan(differences) | (differences + slack >= abs(observed))).sum())
    p = as_large / len(exchanged) if exact else (as_large + 1) / (RANDOM_DRAWS + 1)
    return SignificanceTest(p, method, _too_few(subjects, tests=1))


def _compare_pair(a: str, first: AnyPredictions, b: str, second: AnyPredictions, statistic: str, seed: int) -> Pair:
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
            raise PainseqError("one predicts classes and the other predicts values on a scale.")
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
    """Both models' predictions of the shared scored clips in the same order, and reason -> clips left out."""
    row_of = {clip_id: row for row, clip_id in enumerate(second.clip_ids)}
    rows = [row for row, clip_id in enumerate(first.clip_ids) if clip_id in row_of]
    left_out = {f"not in {b}": len(first) - len(rows), f"not in {a}": len(second) - len(rows)}
    first, second = first.only(rows), second.only([row_of[first.clip_ids[row]] for row in rows])
    if first.subject_ids != second.subject_ids:
        clip = next(c for c, x, y in zip(first.clip_ids, first.subject_ids, second.subject_ids, strict=True) if x != y)
        raise PainseqError(f"clip {clip!r} has a different subject in each.")
    known = ~(first.hidden | second.hidden)
    missing = [known & ~predictions.scored for predictions in (first, second)]
    left_out["with a hidden truth"] = int((~known).sum())
    left_out[f"without a prediction of {a}"] = int(missing[0].sum())
    left_out[f"without a prediction of {b}"] = int((missing[1] & ~missing[0]).sum())
    counts = first.scored & second.scored
    if not counts.any():
        raise PainseqError(
            "no clip has both a known truth and a prediction of both models. If a file lacks the truth, add it with "
            "`painseq evaluate --predictions FILE --truth TRUTH --out FOLDER`."
        )
    first, second = first.only(counts), second.only(counts)
    return first, second, {reason: clips for reason, clips in left_out.items() if clips}


SubjectSums = tuple[tuple[str, ...], Floats, Floats, Callable[[Floats], Floats]]
"""Subjects, (S, ...) sums over their clips for each of the two models, and the statistic as a function of a sum."""


def _confusions(first: Predictions, second: Predictions, statistic: str) -> SubjectSums:
    if statistic not in STATISTICS:
        raise PainseqError(
            f"statistic is {statistic!r}, which is not a statistic of classes; those are {', '.join(STATISTICS)}."
        )
    if first.class_names != second.class_names:
        differ = f"{first_few(first.class_names)} and {first_few(second.class_names)}."
        if set(first.class_names) != set(second.class_names):
            raise PainseqError(f"their classes differ: {differ}")
        raise PainseqError(
            f"their classes are in different orders: {differ} If one of them is not in order of pain, rewrite the file "
            "with `painseq evaluate --predictions FILE --classes NAMES IN ORDER --out FOLDER`."
        )
    if statistic in NEEDS_ORDER and not (first.order_known and second.order_known):
        raise PainseqError(
            f"the {STATISTIC_NAMES[statistic]} needs the order of the classes, which the files do not state; columns "
            "prob_<class> in order of pain do."
        )
    if not np.array_equal(first.truth, second.truth):
        raise PainseqError(f"{_some_clip(first.clip_ids, first.truth != second.truth)} has a different truth in each.")
    k = len(first.class_names)
    subjects, of_first = confusion_by_subject(first.truth, first.label, first.subject_ids, k)
    _, of_second = confusion_by_subject(second.truth, second.label, second.subject_ids, k)
    return subjects, of_first, of_second, STATISTICS[statistic]


def _error_sums(first: ValuePredictions, second: ValuePredictions, statistic: str) -> SubjectSums:
    """(S, 2) for each model: the sum of a subject's errors, and the number of its clips."""
    if statistic not in ERRORS:
        raise PainseqError(
            f"statistic is {statistic!r}, which is not a statistic of values on a scale; those are {', '.join(ERRORS)}."
        )
    if first.scale != second.scale:
        raise PainseqError(f"their scales differ: {first.scale} and {second.scale}.")
    if not np.allclose(first.truth, second.truth, rtol=1e-6, atol=1e-9):
        different = ~np.isclose(first.truth, second.truth, rtol=1e-6, atol=1e-9)
        raise PainseqError(f"{_some_clip(first.clip_ids, different)} has a different truth in each.")
    subjects, subject = np.unique(np.asarray(first.subject_ids), return_inverse=True)
    clips = np.bincount(subject).astype(np.float64)

    def sums(predictions: ValuePredictions) -> Floats:
        errors = ERRORS[statistic](predictions.value - predictions.truth)
        return np.stack([np.bincount(subject, errors), clips], axis=1)

    return tuple(subjects.tolist()), sums(first), sums(second), _mean_error


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


def _some_clip(clip_ids: Sequence[str], different: NDArray[np.bool_]) -> str:
    return f"clip {clip_ids[int(different.argmax())]!r}, one of {int(different.sum())},"


def _people(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"


def _negative(value: float | None) -> float | None:
    # Subtracted from 0, as -0.0 would be shown with its sign.
    return None if value is None else 0.0 - value
