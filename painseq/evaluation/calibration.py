"""Temperature scaling: calibrate probabilities on subjects that are not scored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from painseq.errors import LeakError, PainseqError, first_few
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.probability import ProbabilityScores, probability_scores, rated
from painseq.records import shared_people

LOWEST, HIGHEST = 0.05, 20.0
"""The range of temperatures searched; beyond it, probabilities are 0 and 1, or all equal."""

SMALLEST = 1e-7
"""Smaller probabilities are raised to this value: float32 has no finer step below 1, and files round to 0."""


@dataclass(frozen=True)
class Calibration:
    """The effect of temperature scaling on the probabilities of the scored clips.

    Args:
        temperature: above 1 if the model was overconfident, below 1 if it was underconfident.
        fitted_on: the subjects used to fit the temperature, sorted; none of them is scored.
        clips: number of their clips used in the fit.
        before: scores of the model's original probabilities.
        after: scores of the scaled probabilities, which the evaluation uses.
        caution: a warning about the fit, or None.
    """

    temperature: float
    fitted_on: tuple[str, ...]
    clips: int
    before: ProbabilityScores | None
    after: ProbabilityScores | None
    caution: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "temperature": self.temperature,
            "fitted_on": list(self.fitted_on),
            "clips": self.clips,
            "before": None if self.before is None else self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "caution": self.caution,
        }


def calibrate(scored: Predictions, validation: Predictions) -> tuple[Predictions, Calibration]:
    """Fit a temperature on validation subjects, and scale the probabilities of the scored clips with it.

    Args:
        scored: predictions to be scored.
        validation: predictions of other subjects, with a truth.

    Returns:
        The predictions with scaled probabilities (labels and votes are unchanged), and the effect of the scaling.

    Raises:
        LeakError: a subject is in both.
        PainseqError: the classes differ, `scored` has no probabilities, or no validation clip has both a truth and
            probabilities.
    """
    both = shared_people(scored.subject_ids, validation.subject_ids)
    if both:
        raise LeakError(
            f"{len(both)} of the subjects to be scored, such as {both[0]}, are also among the subjects that the "
            "temperature would be fitted on. Fit it on other subjects."
        )
    if scored.class_names != validation.class_names:
        raise PainseqError(
            f"The temperature would be fitted on the classes {first_few(validation.class_names)}, but the scored "
            f"classes are {first_few(scored.class_names)}. Both need the same classes in the same order."
        )
    if np.isnan(scored.probabilities).all():
        raise PainseqError(
            "The clips to be scored have labels but no probabilities, so a temperature has nothing to scale. "
            "Leave out the calibration."
        )
    temperature = fit_temperature(validation)
    scaled, clips = with_temperature(scored, temperature), rated(validation)
    caution = None
    if not LOWEST * 1.01 < temperature < HIGHEST / 1.01:
        caution = (
            f"the temperature {temperature:g} is at the limit of the range searched: the validation clips are too few, "
            "all correct, or no better than chance"
        )
    return scaled, Calibration(
        temperature=temperature,
        fitted_on=clips.subjects,
        clips=len(clips.truth),
        before=probability_scores(scored),
        after=probability_scores(scaled),
        caution=caution,
    )


def fit_temperature(validation: Predictions) -> float:
    """Find the temperature between `LOWEST` and `HIGHEST` with the lowest log loss on these clips.

    Follows Guo et al. 2017, "On calibration of modern neural networks", who divide logits. Here the logarithm of the
    clip's probabilities is divided instead. For a video head this is equivalent. For a head that votes over frames it
    is the logarithm of the mean of the frames' softmax.

    Raises:
        PainseqError: no clip has both a truth and probabilities.
    """
    clips = rated(validation)
    if not len(clips.truth):
        raise PainseqError(
            "No validation clip has both a truth and probabilities, so no temperature can be fitted. Use other "
            "validation clips, or leave out the calibration."
        )
    logits = _logits(clips.probabilities)
    rows = np.arange(len(logits))

    def log_loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, clips.truth]))

    best = minimize_scalar(log_loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(best.x))


def with_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """Replace each probability p by p^(1/T), scaled to sum to 1; labels and votes are unchanged.

    A tuned threshold is scaled in the same way, so that the labels still follow it.

    Raises:
        PainseqError: `temperature` is not above 0.
    """
    if not temperature > 0:
        raise PainseqError(f"The temperature is {temperature}; it must be above 0.")
    threshold = predictions.threshold
    if threshold is not None:
        threshold = _scaled(np.stack([1 - threshold, threshold], axis=1), temperature)[:, 1]
    probabilities = _scaled(predictions.probabilities, temperature)
    return dataclasses.replace(predictions, probabilities=probabilities, threshold=threshold)


def _scaled(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    logits = _logits(probabilities) / temperature
    scaled: NDArray[np.float64] = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    return scaled


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = np.log(np.maximum(probabilities, SMALLEST))
    return logits
