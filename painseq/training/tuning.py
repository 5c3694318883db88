"""Choose the decision threshold of two classes on out-of-fold probabilities of the training subjects."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from painseq.data.datamodule import PainDataModule
from painseq.data.out_of_fold import out_of_fold
from painseq.errors import PainseqError
from painseq.evaluation.threshold import check_metric, choose_threshold, operating_point
from painseq.model.objective import Objective
from painseq.model.pain_model import PainModel
from painseq.model.record import ThresholdRecord
from painseq.training.calibration import labelled_validation

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class ThresholdTuning:
    """How a decision threshold is tuned.

    Args:
        metric: "weighted_f1", "balanced_accuracy", or "sensitivity=0.9" for the highest threshold with at least this
            sensitivity; see `painseq.evaluation.choose_threshold`.
        inner_folds: number of folds of the training subjects; each is predicted by a model fitted on the others.

    Raises:
        PainseqError: an unknown metric, or fewer than 2 folds.
    """

    metric: str
    inner_folds: int = 5

    def __str__(self) -> str:
        return f"chosen for {self.metric} on {self.inner_folds} folds of the training part"

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if self.inner_folds < 2:
            raise PainseqError(f"inner_folds is {self.inner_folds}; it must be 2 or more.")


def check_tunable(objective: Objective) -> None:
    """Check that a threshold can be tuned for a model of this objective.

    Raises:
        PainseqError: numbers on a scale, CORN, or other than two classes.
    """
    remedy = "Leave the tuned threshold out (command line: --tune-threshold)"
    if objective.predicts_values or len(objective.names) != 2:
        found = f"numbers ({objective.names[0]})" if objective.predicts_values else f"{len(objective.names)} classes"
        raise PainseqError(
            f"A tuned threshold needs two classes, but this model predicts {found}. {remedy}, or choose labels of two "
            "classes, such as --data.options.labels binary."
        )
    if objective.rule != "mode":
        raise PainseqError(
            f"The loss {objective.loss} decides by the median level, which a tuned threshold would replace. {remedy}, "
            "or set --model.loss cross_entropy."
        )


def tune(
    data: PainDataModule, tuning: ThresholdTuning, fit_inner: Callable[[PainDataModule, int], PainModel]
) -> ThresholdRecord:
    """Choose a threshold; only clips of training and validation subjects are read.

    Args:
        data: data of the fit. Its validation subjects serve the inner fits as they serve the fit itself; see
            `out_of_fold` for leaky splits.
        tuning: metric and folds.
        fit_inner: fits a model on the training subjects of a data module; the second argument numbers the folds.

    Raises:
        PainseqError: fewer training subjects than folds, or no threshold; see `choose_threshold`.
        LeakError: the extractor was fitted on training subjects, so that their probabilities are not out of fold.
    """
    truths, probabilities, subjects = [], [], set()
    for number, fold in enumerate(out_of_fold(data, tuning.inner_folds)):
        log.info("Tuned threshold: fold %d of %d", number + 1, tuning.inner_folds)
        model = fit_inner(fold.fit, number)
        truth, probability, seen = labelled_validation(model, fold.held_out)
        truths.append(truth)
        probabilities.append(probability[:, 1])
        subjects |= {*seen}
    truth, probability = np.concatenate(truths), np.concatenate(probabilities)
    value = choose_threshold(truth, probability, tuning.metric)
    scores = [operating_point(truth, probability >= threshold).value(tuning.metric) for threshold in (value, 0.5)]
    assert scores[0] is not None and scores[1] is not None
    found = ThresholdRecord(
        value=value,
        metric=tuning.metric,
        inner_folds=tuning.inner_folds,
        subjects=len(subjects),
        clips=len(truth),
        score=scores[0],
        score_at_half=scores[1],
        replaces_votes=model.head.level == "frame",
    )
    log.info("Tuned threshold: %s", found)
    return found
