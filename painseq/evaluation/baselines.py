"""What needs no model: always the same class, and guessing. A score is read beside these or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from painseq.errors import PainseqError
from painseq.evaluation.metrics import Scores, confusion_matrix, scores_of
from painseq.evaluation.predictions import UNKNOWN, Predictions


@dataclass(frozen=True)
class Baseline:
    """Scores of a rule without a model.

    Args:
        name: "majority class" or "chance".
        rule: the rule in words, with the class and where its frequency was counted.
        scores: of the same clips that the model is scored on.
    """

    name: str
    rule: str
    scores: Scores

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {"name": self.name, "rule": self.rule, **self.scores.to_dict()}


def majority_class(predictions: Predictions, train_counts: Mapping[str, int] | None = None) -> tuple[int, str]:
    """Index of the most frequent class (the first of several), and the part it was counted in.

    Args:
        predictions: whose truth is counted where there are no training counts.
        train_counts: clips a class name in the training part, if known: a rule may not look at test labels.

    Raises:
        PainseqError: `train_counts` names a class that the predictions do not have.
    """
    names = predictions.class_names
    if train_counts is None:
        counts = np.bincount(predictions.truth[predictions.scored], minlength=len(names))
        return int(counts.argmax()), "the scored clips"
    unknown = set(train_counts) - set(names)
    if unknown:
        raise PainseqError(
            f"The training counts name the class {min(unknown)!r}; the predictions have {', '.join(names)}."
        )
    return int(np.argmax([train_counts.get(name, 0) for name in names])), "the training part"


def always_majority(predictions: Predictions, train_counts: Mapping[str, int] | None = None) -> Predictions:
    """The same clips, every clip with a prediction labelled with the majority class; for paired comparison."""
    index, _ = majority_class(predictions, train_counts)
    label = np.where(predictions.label == UNKNOWN, UNKNOWN, index)
    probabilities = np.full(predictions.probabilities.shape, np.nan)
    probabilities[label != UNKNOWN] = np.eye(len(predictions.class_names))[index]
    return dataclasses.replace(predictions, label=label, probabilities=probabilities, votes=None)


def baselines(predictions: Predictions, train_counts: Mapping[str, int] | None = None) -> tuple[Baseline, ...]:
    """Majority class and chance, scored on the clips that `predictions` are scored on.

    Chance is guessing each of the K classes equally often, in closed form: accuracy, balanced accuracy and each
    recall are 1/K and kappa is 0 in expectation; its precision and F1 are those of the expected confusion matrix.
    """
    names, k = predictions.class_names, len(predictions.class_names)
    index, counted_in = majority_class(predictions, train_counts)
    always = always_majority(predictions, train_counts)
    majority = confusion_matrix(always.truth, always.label, k)
    guessed = np.repeat(majority.sum(1, keepdims=True) / k, k, axis=1)
    return (
        Baseline(
            "majority class",
            f"always “{names[index]}”, the most frequent class of {counted_in}",
            scores_of(majority, names, predictions.order_known),
        ),
        Baseline(
            "chance",
            f"guessing each of the {k} classes equally often (expected scores)",
            scores_of(guessed, names, predictions.order_known),
        ),
    )
