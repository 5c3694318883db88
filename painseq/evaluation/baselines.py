"""Baselines without a model: the majority class and guessing. Always compare a score with them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from painseq.evaluation.metrics import Scores, confusion_matrix, scores_of
from painseq.evaluation.predictions import Predictions
from painseq.records import UNKNOWN


@dataclass(frozen=True)
class Baseline:
    """Scores of a rule without a model.

    Args:
        name: "majority class" or "chance".
        rule: the rule in words, with the class and the clips in which its frequency was counted.
        scores: scores on the clips that the model is scored on.
    """

    name: str
    rule: str
    scores: Scores

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {"name": self.name, "rule": self.rule, **self.scores.to_dict()}


def majority_class(predictions: Predictions) -> int:
    """Index of the most frequent class of the scored clips; the first one in case of a tie.

    Classes are counted in the scored clips, not in the training clips: if class frequencies differ between the two,
    the most frequent training class can be rare in the scored clips, and easy to beat.
    """
    return int(np.bincount(predictions.truth[predictions.scored], minlength=len(predictions.class_names)).argmax())


def always_majority(predictions: Predictions) -> Predictions:
    """Predict the majority class for every clip that has a prediction; for paired comparisons."""
    index = majority_class(predictions)
    label = np.where(predictions.label == UNKNOWN, UNKNOWN, index)
    probabilities = np.full(predictions.probabilities.shape, np.nan)
    probabilities[label != UNKNOWN] = np.eye(len(predictions.class_names))[index]
    return dataclasses.replace(predictions, label=label, probabilities=probabilities, votes=None)


def baselines(predictions: Predictions) -> tuple[Baseline, ...]:
    """Score the majority class and chance on the scored clips of `predictions`.

    Chance is guessing each of the K classes equally often, in closed form: accuracy, balanced accuracy and each
    recall are 1/K and kappa is 0 in expectation; precision and F1 are those of the expected confusion matrix.
    """
    names, k = predictions.class_names, len(predictions.class_names)
    always = always_majority(predictions)
    majority = confusion_matrix(always.truth, always.label, k)
    guessed = np.repeat(majority.sum(1, keepdims=True) / k, k, axis=1)
    return (
        Baseline(
            "majority class",
            f"always “{names[majority_class(predictions)]}”, the most frequent class of the scored clips",
            scores_of(majority, names, predictions.order_known),
        ),
        Baseline(
            "chance",
            f"guessing each of the {k} classes equally often (expected scores)",
            scores_of(guessed, names, predictions.order_known),
        ),
    )
