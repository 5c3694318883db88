"""Temperature scaling: probabilities that are as often right as they say, fitted on people who are not scored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from painseq.errors import LeakError, PainseqError
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.probability import ProbabilityScores, probability_scores, rated
from painseq.records import plain_name

LOWEST, HIGHEST = 0.05, 20.0
"""Between which temperatures is searched: beyond, probabilities are 0 and 1, or all the same."""

SMALLEST = 1e-7
"""A smaller probability counts as this: float32 holds no finer step below 1, and files round to 0."""


@dataclass(frozen=True)
class Calibration:
    """What a temperature did to the probabilities of the scored clips.

    Args:
        temperature: above 1 the model was too sure of itself, below 1 not sure enough.
        fitted_on: the subjects it was fitted on, sorted; none of them is scored.
        clips: their clips that it was fitted to.
        before: scores of the model's own probabilities.
        after: of the scaled ones, which are those of the evaluation.
        caution: what to be wary of, or None.
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
    """Fit a temperature on validation subjects, and scale the probabilities of the clips to be scored by it.

    Returns:
        The predictions with scaled probabilities (labels and votes stay the model's), and what that did.

    Raises:
        LeakError: a subject is in both.
        PainseqError: other classes, no probabilities to scale, or no validation clip with truth and probabilities.
    """
    fitted = {plain_name(subject) for subject in validation.subject_ids}
    both = sorted({subject for subject in scored.subject_ids if plain_name(subject) in fitted})
    if both:
        raise LeakError(
            f"{len(both)} of the subjects to be scored, such as {both[0]}, are among those that the temperature would "
            "be fitted on. Fit it on other people."
        )
    if scored.class_names != validation.class_names:
        raise PainseqError(
            f"The temperature would be fitted on the classes {', '.join(validation.class_names)}, and those scored are "
            f"{', '.join(scored.class_names)}. Both need the same, in the same order."
        )
    if np.isnan(scored.probabilities).all():
        raise PainseqError(
            "The clips to be scored have labels but no probabilities, so there is nothing for a temperature to scale. "
            "Leave calibration out."
        )
    temperature = fit_temperature(validation)
    scaled, clips = with_temperature(scored, temperature), rated(validation)
    caution = None
    if not LOWEST * 1.01 < temperature < HIGHEST / 1.01:
        caution = (
            f"the temperature {temperature:g} is an end of the range searched: the validation clips are too few, all "
            "right, or no better than chance"
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
    """The temperature with the lowest log loss on these clips (Guo et al. 2017, "On calibration of modern neural
    networks"), between `LOWEST` and `HIGHEST`.

    They divide logits; here the logarithm of the clip's probabilities takes their place. For a video head that is
    the same. For a head that votes over frames it is the logarithm of the mean of the frames' softmax.

    Raises:
        PainseqError: no clip has both a truth and probabilities.
    """
    clips = rated(validation)
    if not len(clips.truth):
        raise PainseqError(
            "No validation clip has both a truth and probabilities, so no temperature can be fitted. Fit it on other "
            "clips, or leave calibration out."
        )
    logits = _logits(clips.probabilities)
    rows = np.arange(len(logits))

    def log_loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, clips.truth]))

    best = minimize_scalar(log_loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(best.x))


def with_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """The same predictions with p^(1/T), scaled to sum to 1, for each probability p; labels and votes stay."""
    if not temperature > 0:
        raise PainseqError(f"The temperature is {temperature}; it must be more than 0.")
    scaled = _logits(predictions.probabilities) / temperature
    return dataclasses.replace(predictions, probabilities=np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True)))


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = np.log(np.maximum(probabilities, SMALLEST))
    return logits
