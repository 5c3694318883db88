"""Scores as functions of a confusion matrix.

A confusion matrix counts clips, (..., K, K) with rows by truth and columns by label. All leading axes are scored at
once, which makes resampling subjects cheap. Divisions by zero follow scikit-learn:

- precision, recall and F1 of a class with a zero denominator are 0 (`zero_division=0`);
- macro averages are over the classes that occur in the truth or among the labels (the default `labels`);
- balanced accuracy is the mean recall of the classes that occur in the truth;
- kappa if truth and labels are all of one class, and any score of no clips, is NaN, and None with a reason in
  `Scores`.

Probabilities are scored in `painseq.evaluation.probability`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def numbered_subjects(subject_ids: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Sorted distinct subjects, and for each of n clips the (n,) index of its subject."""
    subjects = tuple(sorted(set(subject_ids)))
    place = {subject: index for index, subject in enumerate(subjects)}
    return subjects, np.fromiter(map(place.__getitem__, subject_ids), np.int64, len(subject_ids))


def rows_by_subject(subject_ids: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Sorted subject -> indices of the subject's clips, ascending."""
    subjects, subject = numbered_subjects(subject_ids)
    order = np.argsort(subject, kind="stable")
    ends = np.cumsum(np.bincount(subject, minlength=len(subjects)))
    return {name: rows for name, rows in zip(subjects, np.split(order, ends[:-1]), strict=False)}


def confusion_matrix(truth: NDArray[np.int64], label: NDArray[np.int64], num_classes: int) -> Floats:
    """Count clips with both a truth and a label (neither is -1), (K, K); `truth` and `label` are (n,) indices."""
    both = (truth >= 0) & (label >= 0)
    cells = truth[both] * num_classes + label[both]
    counts: Floats = np.bincount(cells, minlength=num_classes**2).astype(np.float64)
    square: Floats = counts.reshape(num_classes, num_classes)
    return square


def confusion_by_subject(
    truth: NDArray[np.int64], label: NDArray[np.int64], subject_ids: Sequence[str], num_classes: int
) -> tuple[tuple[str, ...], Floats]:
    """Sorted subjects with at least one scored clip, and their (S, K, K) confusion matrices."""
    both = (truth >= 0) & (label >= 0)
    subjects, subject = numbered_subjects(list(compress(subject_ids, both.tolist())))
    cells = (subject * num_classes + truth[both]) * num_classes + label[both]
    counts = np.bincount(cells, minlength=len(subjects) * num_classes**2).astype(np.float64)
    return subjects, counts.reshape(-1, num_classes, num_classes)


def _ratio(numerator: Floats, denominator: Floats, otherwise: float) -> Floats:
    """Return numerator / denominator, with `otherwise` for a denominator of 0."""
    filled = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), otherwise)
    ratio: Floats = np.divide(numerator, denominator, out=filled, where=denominator != 0)
    return ratio


def _hits(confusion: Floats) -> Floats:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def precision(confusion: Floats) -> Floats:
    """(..., K) share of a class's labels that are correct; 0 for a class that is never predicted."""
    return _ratio(_hits(confusion), confusion.sum(-2), 0.0)


def recall(confusion: Floats) -> Floats:
    """(..., K) share of a class's clips that are labelled correctly; 0 for a class that is not in the truth."""
    return _ratio(_hits(confusion), confusion.sum(-1), 0.0)


def f1(confusion: Floats) -> Floats:
    """(..., K) harmonic mean of precision and recall; 0 for a class without a hit."""
    return _ratio(2 * _hits(confusion), confusion.sum(-1) + confusion.sum(-2), 0.0)


def _macro(by_class: Floats, confusion: Floats) -> Floats:
    """(...) mean over the classes that occur in the truth or among the labels."""
    occurs = (confusion.sum(-1) + confusion.sum(-2)) > 0
    return _ratio((by_class * occurs).sum(-1), occurs.sum(-1).astype(np.float64), np.nan)


def macro_precision(confusion: Floats) -> Floats:
    """(...) mean precision of the classes that occur."""
    return _macro(precision(confusion), confusion)


def macro_recall(confusion: Floats) -> Floats:
    """(...) mean recall of the classes that occur; a class that is only predicted counts as 0."""
    return _macro(recall(confusion), confusion)


def macro_f1(confusion: Floats) -> Floats:
    """(...) mean F1 of the classes that occur."""
    return _macro(f1(confusion), confusion)


def accuracy(confusion: Floats) -> Floats:
    """(...) share of clips labelled correctly; NaN for no clips."""
    return _ratio(_hits(confusion).sum(-1), confusion.sum((-2, -1)), np.nan)


def balanced_accuracy(confusion: Floats) -> Floats:
    """(...) mean recall of the classes that occur in the truth; NaN for no clips."""
    in_truth = (confusion.sum(-1) > 0).sum(-1).astype(np.float64)
    return _ratio(recall(confusion).sum(-1), in_truth, np.nan)


def quadratic_weighted_kappa(confusion: Floats) -> Floats:
    """(...) Cohen's kappa with disagreement weighted by the squared distance between class indices.

    1 is perfect agreement, 0 is guessing with the same margins, below 0 is worse than guessing. NaN if truth and
    labels are all of one class.
    """
    steps = np.arange(confusion.shape[-1], dtype=np.float64)
    weights = (steps[:, None] - steps[None, :]) ** 2
    total = confusion.sum((-2, -1), keepdims=True)
    expected = confusion.sum(-1)[..., :, None] * confusion.sum(-2)[..., None, :]
    observed = (weights * confusion * total).sum((-2, -1))
    return 1 - _ratio(observed, (weights * expected).sum((-2, -1)), np.nan)


def mean_absolute_error(confusion: Floats) -> Floats:
    """(...) mean distance between the indices of truth and label, in levels; NaN for no clips. Lower is better."""
    steps = np.arange(confusion.shape[-1], dtype=np.float64)
    distance = np.abs(steps[:, None] - steps[None, :])
    return _ratio((distance * confusion).sum((-2, -1)), confusion.sum((-2, -1)), np.nan)


STATISTICS: dict[str, Callable[[Floats], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "quadratic_weighted_kappa": quadratic_weighted_kappa,
    "mean_absolute_error": mean_absolute_error,
}
"""The scores with an interval, shown in the main table."""

LOWER_IS_BETTER = frozenset({"mean_absolute_error", "brier", "ece", "mae", "mse"})
"""The statistics that are errors, among all of classes, probabilities and values."""

NEEDS_ORDER = ("quadratic_weighted_kappa", "mean_absolute_error")
"""Statistics that are only defined if the order of the classes is known."""


@dataclass(frozen=True)
class Scores:
    """All scores of one confusion matrix of K classes; None if a score is not defined.

    Args:
        class_names: K names, in order of pain.
        accuracy: share of clips labelled correctly.
        balanced_accuracy: mean recall of the classes in the truth.
        macro_precision, macro_recall, macro_f1: mean over the classes that occur.
        quadratic_weighted_kappa: agreement beyond chance; distant errors weigh more.
        mean_absolute_error: mean distance of label and truth, in levels (steps between classes); lower is better.
        precision, recall, f1: one value per class (K); 0 if the denominator is 0.
        support: clips of each class in the truth (K).
        predicted: clips of each class among the labels (K).
        confusion: K rows by truth, K columns by label.
        undefined: name of a score -> why it is None.
    """

    class_names: tuple[str, ...]
    accuracy: float | None
    balanced_accuracy: float | None
    macro_precision: float | None
    macro_recall: float | None
    macro_f1: float | None
    quadratic_weighted_kappa: float | None
    mean_absolute_error: float | None
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    support: tuple[float, ...]
    predicted: tuple[float, ...]
    confusion: tuple[tuple[float, ...], ...]
    undefined: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """One of the `STATISTICS` by name."""
        values = {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "quadratic_weighted_kappa": self.quadratic_weighted_kappa,
            "mean_absolute_error": self.mean_absolute_error,
        }
        return values[name]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        by_class = zip(self.precision, self.recall, self.f1, self.support, self.predicted, strict=True)
        keys = ("precision", "recall", "f1", "support", "predicted")
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "macro_f1": self.macro_f1,
            "quadratic_weighted_kappa": self.quadratic_weighted_kappa,
            "mean_absolute_error": self.mean_absolute_error,
            "per_class": {
                name: dict(zip(keys, row, strict=True)) for name, row in zip(self.class_names, by_class, strict=True)
            },
            "confusion": [list(row) for row in self.confusion],
            "undefined": dict(self.undefined),
        }


def scores_of(confusion: Floats, class_names: Sequence[str], order_known: bool = True) -> Scores:
    """Compute all scores of a (K, K) confusion matrix; kappa and mean error need a known order of the classes."""
    undefined: dict[str, str] = {}

    def number(name: str, value: Floats) -> float | None:
        if np.isnan(value):
            undefined[name] = (
                "truth and labels are all of one class" if confusion.sum() else "there is no clip to score"
            )
            return None
        return float(value)

    ordered = {name: number(name, STATISTICS[name](confusion)) for name in NEEDS_ORDER}
    if not order_known:
        ordered = dict.fromkeys(NEEDS_ORDER)
        undefined.update(dict.fromkeys(NEEDS_ORDER, "the order of the classes is not stated"))

    def counts(values: Floats) -> tuple[float, ...]:
        # Counts are written as integers; only the expected matrix of guessing has fractions.
        return tuple(int(value) if value == int(value) else float(value) for value in values)

    return Scores(
        class_names=tuple(class_names),
        accuracy=number("accuracy", accuracy(confusion)),
        balanced_accuracy=number("balanced_accuracy", balanced_accuracy(confusion)),
        macro_precision=number("macro_precision", macro_precision(confusion)),
        macro_recall=number("macro_recall", macro_recall(confusion)),
        macro_f1=number("macro_f1", macro_f1(confusion)),
        quadratic_weighted_kappa=ordered["quadratic_weighted_kappa"],
        mean_absolute_error=ordered["mean_absolute_error"],
        precision=tuple(precision(confusion).tolist()),
        recall=tuple(recall(confusion).tolist()),
        f1=tuple(f1(confusion).tolist()),
        support=counts(confusion.sum(1)),
        predicted=counts(confusion.sum(0)),
        confusion=tuple(counts(row) for row in confusion),
        undefined=undefined,
    )
