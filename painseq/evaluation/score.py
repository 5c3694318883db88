"""Evaluation of predictions: scores, intervals, baselines and warnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from painseq.evaluation.baselines import Baseline, baselines
from painseq.evaluation.calibration import Calibration
from painseq.evaluation.counts import (
    Counts,
    counts_of,
    few_faces_warnings,
    few_subjects_warnings,
    unscored_clip_warnings,
)
from painseq.evaluation.intervals import Interval, confusion_intervals
from painseq.evaluation.metrics import LOWER_IS_BETTER, STATISTICS, Scores, confusion_by_subject, scores_of
from painseq.evaluation.people import Person, SubjectRow, subject_rows
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.probability import (
    ProbabilityScores,
    overconfidence,
    probability_intervals,
    probability_scores,
)
from painseq.evaluation.subgroups import GroupDifference, Subgroup, subgroups
from painseq.evaluation.threshold import OperatingPoint, ThresholdComparison, compare_thresholds
from painseq.records import MIN_FACE_SHARE

TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "quadratic_weighted_kappa": "Quadratic kappa",
    "mean_absolute_error": "Mean error, levels",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "Calibration error",
}
"""Names of the statistics in tables: those of labels, then those of probabilities."""

POINT_TITLES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "balanced_accuracy": "Balanced accuracy",
    "weighted_f1": "Weighted F1",
}
"""Names of the scores at a threshold in tables."""

THRESHOLD_TEXT = (
    "The labels follow the tuned threshold of the second class's probability, which was chosen on training subjects; "
    "sensitivity is the recall of the second class, specificity that of the first. Votes of frames are not used."
)

MISCALIBRATED = 0.05
"""A warning is issued if over- or underconfidence is at least this large and its interval excludes 0."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model with intervals, baselines, counts and warnings.

    Clips without a prediction are left out of every score, and counted.

    Args:
        scores: scores of the labels of the scored clips.
        intervals: name of a statistic -> its 95 % interval, including statistics of probabilities.
        baselines: majority class and chance, on the same clips.
        counts: numbers of scored and unscored clips, subjects and frames.
        warnings: one sentence or more each.
        probability: scores of the probabilities, calibrated if there is a calibration; None if no scored clip has any.
        calibration: effect of temperature scaling; None without calibration.
        subgroups: scores by sex and age band, if known.
        subgroup_differences: differences between each two sufficiently large groups of one attribute.
        by_subject: one row per subject, sorted by id.
        threshold: scores at a tuned threshold beside those at 0.5; None without a tuned threshold.
    """

    scores: Scores
    intervals: dict[str, Interval]
    baselines: tuple[Baseline, ...]
    counts: Counts
    warnings: tuple[str, ...]
    probability: ProbabilityScores | None = None
    calibration: Calibration | None = None
    subgroups: tuple[Subgroup, ...] = ()
    subgroup_differences: tuple[GroupDifference, ...] = ()
    by_subject: tuple[SubjectRow, ...] = ()
    threshold: ThresholdComparison | None = None

    def value(self, name: str) -> float | None:
        """A statistic by its name in `intervals`; None if not defined."""
        if name in STATISTICS:
            return self.scores.value(name)
        return None if self.probability is None else self.probability.value(name)

    def to_dict(self) -> dict[str, object]:
        """Plain values with stable keys, ready for JSON."""
        return {
            "class_names": list(self.scores.class_names),
            "scores": self.scores.to_dict(),
            "probability": None if self.probability is None else self.probability.to_dict(),
            "intervals": {name: interval.to_dict() for name, interval in self.intervals.items()},
            "baselines": {baseline.name: baseline.to_dict() for baseline in self.baselines},
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "threshold": None if self.threshold is None else self.threshold.to_dict(),
            "subgroups": [group.to_dict() for group in self.subgroups],
            "subgroup_differences": [difference.to_dict() for difference in self.subgroup_differences],
            "by_subject": [row.to_dict() for row in self.by_subject],
            "counts": self.counts.to_dict(),
            "clips_without_prediction": "left out of every score, and counted",
            "warnings": list(self.warnings),
        }


def score(
    predictions: Predictions,
    people: Mapping[str, Person] | None = None,
    calibration: Calibration | None = None,
    min_face_share: float = MIN_FACE_SHARE,
) -> Evaluation:
    """Score predictions of subjects that the model was not trained on.

    Args:
        predictions: predictions; with scaled probabilities if there is a calibration.
        people: subject id -> sex and age, for the subgroups; missing subjects are of unknown sex and age.
        calibration: result of `calibrate` for these predictions.
        min_face_share: predictions are reported as doubtful if a smaller share of the frames has a face.

    Raises:
        PainseqError: `min_face_share` is not a share.

    Example:
        >>> score(read_predictions(Path("runs/lstm/predictions.csv"))).scores.balanced_accuracy  # doctest: +SKIP
        0.42
    """
    names = predictions.class_names
    _, confusion = confusion_by_subject(predictions.truth, predictions.label, predictions.subject_ids, len(names))
    scores = scores_of(confusion.sum(0), names, predictions.order_known)
    defined = [name for name in STATISTICS if scores.value(name) is not None]
    groups, differences = subgroups(predictions, people or {})
    evaluation = Evaluation(
        scores=scores,
        intervals=confusion_intervals(confusion, defined) | probability_intervals(predictions),
        baselines=baselines(predictions),
        counts=counts_of(predictions, min_face_share),
        warnings=(),
        probability=probability_scores(predictions),
        calibration=calibration,
        subgroups=groups,
        subgroup_differences=differences,
        by_subject=subject_rows(predictions, people or {}),
        threshold=compare_thresholds(predictions),
    )
    warnings = [
        *unscored_clip_warnings(evaluation.counts),
        *few_faces_warnings(evaluation.counts),
        *_class_warnings(evaluation),
        *_baseline_warnings(evaluation),
        *_probability_warnings(evaluation, predictions),
        *few_subjects_warnings(evaluation.counts),
        *_subgroup_warnings(evaluation),
        *_undefined_warnings(evaluation),
    ]
    return dataclasses.replace(evaluation, warnings=tuple(warnings))


def number(value: float | None) -> str:
    """Format a score with three decimals, or as a dash if it is not defined."""
    # Adding 0 turns the -0.0 of rounding into 0.
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"


def threshold_rows(comparison: ThresholdComparison | None) -> list[tuple[str, list[str]]]:
    """Rows of a table of `POINT_TITLES`: at the tuned threshold, and at 0.5; empty without a tuned threshold."""
    if comparison is None:
        return []
    points = {f"tuned: {comparison.shown}": comparison.tuned, "0.5": comparison.at_half}
    return [(name, point_cells(point)) for name, point in points.items()]


def point_cells(point: OperatingPoint) -> list[str]:
    """Format the scores of `POINT_TITLES`."""
    return [number(point.value(key)) for key in POINT_TITLES]


def no_better(name: str, model: float, baseline: float) -> bool:
    """Whether a model's statistic is no better than a baseline's, up to rounding."""
    advantage = baseline - model if name in LOWER_IS_BETTER else model - baseline
    return advantage <= 1e-9 * max(1.0, abs(baseline))


def shared_baselines(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, Baseline]]:
    """The distinct baselines of several models with their names; models scored on other clips may have others."""
    rows: dict[str, list[tuple[str, Baseline]]] = {}
    for model, evaluation in evaluations.items():
        for baseline in evaluation.baselines:
            known = rows.setdefault(baseline.name, [])
            if all(_cells(other) != _cells(baseline) for _, other in known):
                known.append((model, baseline))
    return [
        (f"{name} ({model})" if len(known) > 1 else name, baseline)
        for name, known in rows.items()
        for model, baseline in known
    ]


def _cells(baseline: Baseline) -> list[str]:
    return [baseline.rule, *(number(baseline.scores.value(name)) for name in STATISTICS)]


def _class_warnings(evaluation: Evaluation) -> list[str]:
    scores, warnings = evaluation.scores, []
    by_class = zip(scores.class_names, scores.support, scores.predicted, scores.recall, strict=True)
    for name, support, predicted, recall in by_class:
        if evaluation.counts.scored and not support:
            warnings.append(f"“{name}” does not occur in the truth of the scored clips, so it cannot be evaluated.")
        elif support and recall == 0:
            reason = " The class is never predicted." if not predicted else ""
            warnings.append(f"“{name}” has recall 0: none of its {support:g} clips was recognised.{reason}")
    return warnings


def _baseline_warnings(evaluation: Evaluation) -> list[str]:
    scores, warnings = evaluation.scores, []
    for baseline in evaluation.baselines:
        no_better_in = [
            _against(key, model_value, baseline_value)
            for key in STATISTICS
            if (model_value := scores.value(key)) is not None
            and (baseline_value := baseline.scores.value(key)) is not None
            and no_better(key, model_value, baseline_value)
        ]
        if no_better_in:
            comparisons = "; ".join(no_better_in)
            warnings.append(f"No better than the baseline “{baseline.name}” ({baseline.rule}): {comparisons}.")
    if scores.mean_absolute_error is not None:
        index, smallest = _best_constant(scores.support)
        if no_better("mean_absolute_error", scores.mean_absolute_error, smallest):
            warnings.append(
                f"Always predicting “{scores.class_names[index]}” has no larger error: "
                f"{_against('mean_absolute_error', scores.mean_absolute_error, smallest)}."
            )
    balanced = evaluation.intervals.get("balanced_accuracy")
    constant, chance = (baseline.scores.balanced_accuracy for baseline in evaluation.baselines)
    if balanced is None or balanced.low is None or constant is None or chance is None:
        return warnings
    # If a class is missing from the truth, always predicting a present class scores more than guessing among all.
    without_model, hardest = "always predicting one class", constant
    if no_better("balanced_accuracy", constant, chance):
        without_model, hardest = "guessing", chance
    if (
        scores.balanced_accuracy is not None
        and balanced.low <= hardest
        and not no_better("balanced_accuracy", scores.balanced_accuracy, hardest)
    ):
        warnings.append(
            f"Not distinguishable from {without_model}: the interval of the balanced accuracy, "
            f"{number(balanced.low)} to {number(balanced.high)}, includes {number(hardest)}."
        )
    return warnings


def _best_constant(support: Sequence[float]) -> tuple[int, float]:
    """Index of the constant prediction with the smallest mean error, and that error in levels."""
    steps = np.arange(len(support))
    errors = np.abs(steps[:, None] - steps) @ np.asarray(support) / sum(support)
    return int(errors.argmin()), float(errors.min())


def _probability_warnings(evaluation: Evaluation, predictions: Predictions) -> list[str]:
    probability, warnings = evaluation.probability, []
    if probability is None:
        if evaluation.counts.scored:
            warnings.append("There are no probabilities, so ranking (AUROC, AUPRC) and calibration are not scored.")
        return warnings
    if probability.left_out:
        warnings.append(
            f"{probability.left_out} of {evaluation.counts.scored} scored clips have a label but no probabilities; "
            "AUROC, AUPRC, Brier score and calibration error leave them out."
        )
    if probability.auroc is not None and no_better("auroc", probability.auroc, 0.5):
        warnings.append(
            f"The probabilities rank clips no better than chance: {_against('auroc', probability.auroc, 0.5)}."
        )
    shares = np.asarray(evaluation.scores.support) / max(1, evaluation.counts.scored)
    constant = float(1 - (shares**2).sum())
    if not probability.left_out and constant > 0 and no_better("brier", probability.brier, constant):
        warnings.append(
            "The probabilities are no better than predicting each class's share of the clips for every clip: "
            f"{_against('brier', probability.brier, constant)}."
        )
    return warnings + _confidence_warnings(probability, predictions) + _calibration_warnings(evaluation.calibration)


def _confidence_warnings(probability: ProbabilityScores, predictions: Predictions) -> list[str]:
    measured = overconfidence(predictions)
    if measured is None:
        return []
    excess, interval = measured
    excludes_0 = interval.low is not None and interval.high is not None and (interval.low > 0 or interval.high < 0)
    if not excludes_0 or abs(excess) < MISCALIBRATED:
        return []
    bins = probability.reliability
    confidence = sum(n * (mean or 0.0) for n, mean in zip(bins.clips, bins.confidence, strict=True)) / sum(bins.clips)
    return [
        f"{'Overconfident' if excess > 0 else 'Underconfident'}: the mean probability of the most probable class is "
        f"{number(confidence)}, but it is correct for {number(confidence - excess)} of the clips (interval of the "
        f"difference {number(interval.low)} to {number(interval.high)})."
    ]


def _calibration_warnings(calibration: Calibration | None) -> list[str]:
    if calibration is None:
        return []
    warnings = [] if calibration.caution is None else [f"Calibration: {calibration.caution}."]
    before, after = calibration.before, calibration.after
    if before is not None and after is not None and after.brier > before.brier:
        warnings.append(
            f"Calibration did not help: the Brier score is {number(after.brier)} after it and {number(before.brier)} "
            f"before. The {len(calibration.fitted_on)} subjects that it was fitted on differ from the scored subjects, "
            "or are too few."
        )
    return warnings


def _subgroup_warnings(evaluation: Evaluation) -> list[str]:
    warnings = []
    for difference in evaluation.subgroup_differences:
        low, high = difference.interval.low, difference.interval.high
        if low is not None and high is not None and (low > 0 or high < 0):
            warnings.append(
                f"By {difference.attribute}, “{difference.first}” and “{difference.second}” differ in balanced "
                f"accuracy by {difference.value:+.3f} (interval {low:+.3f} to {high:+.3f}). Among many comparisons "
                "some differ by chance."
            )
    return warnings


def _undefined_warnings(evaluation: Evaluation) -> list[str]:
    undefined = dict(evaluation.scores.undefined)
    if evaluation.probability is not None:
        undefined |= evaluation.probability.undefined
    return [
        f"{TITLES[key]} is not defined: {reason}."
        for key, reason in undefined.items()
        if evaluation.counts.scored and key in TITLES
    ]


def _against(key: str, model: float, baseline: float) -> str:
    title = TITLES[key].partition(",")[0]
    shown = title if key in ("auroc", "auprc", "brier") else title[:1].lower() + title[1:]
    return f"{shown} {number(model)} against {number(baseline)}"
