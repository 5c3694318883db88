"""From predictions to an evaluation: scores, intervals, baselines, and what to be wary of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from painseq.evaluation.baselines import Baseline, baselines
from painseq.evaluation.calibration import Calibration
from painseq.evaluation.counts import Counts, counts_of, of_few_subjects, of_missing_clips
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
"""How the statistics are called in tables: those of the headline, then those of the probabilities."""

MISCALIBRATED = 0.05
"""A model this much surer (or less sure) than right, its interval clear of 0, is warned of."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model, and all that is needed to read them.

    A clip without a prediction is left out of every score, and counted.

    Args:
        scores: of the scored clips.
        intervals: 95 %, by the name of the statistic, those of the probabilities too.
        baselines: majority class and chance, on the same clips.
        counts: what was scored, and what was not.
        warnings: in plain words; empty if there is nothing to be wary of.
        probability: scores of the probabilities, the calibrated ones if there is a calibration; None where no scored
            clip has any.
        calibration: what temperature scaling did; None where none was asked for.
        subgroups: by sex and age band, where these are known.
        subgroup_differences: between each two groups of one attribute that are large enough.
        by_subject: a row a subject, sorted by name.
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

    def value(self, name: str) -> float | None:
        """A statistic by the name it has in `intervals`; None where it is not defined."""
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
            "subgroups": [group.to_dict() for group in self.subgroups],
            "subgroup_differences": [difference.to_dict() for difference in self.subgroup_differences],
            "by_subject": [row.to_dict() for row in self.by_subject],
            "counts": self.counts.to_dict(),
            "clips_without_prediction": "left out of every score, and counted",
            "warnings": list(self.warnings),
        }


def score(
    predictions: Predictions, people: Mapping[str, Person] | None = None, calibration: Calibration | None = None
) -> Evaluation:
    """Score predictions, which are of subjects that the model was not trained on.

    Args:
        predictions: with scaled probabilities, if there is a calibration.
        people: sex and age by subject id, for the subgroups; others are of unknown sex and age.
        calibration: what `calibrate` said of these predictions.
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
        counts=counts_of(predictions),
        warnings=(),
        probability=probability_scores(predictions),
        calibration=calibration,
        subgroups=groups,
        subgroup_differences=differences,
        by_subject=subject_rows(predictions, people or {}),
    )
    lines = [
        *of_missing_clips(evaluation.counts),
        *_of_classes(evaluation),
        *_of_baselines(evaluation),
        *_of_probabilities(evaluation, predictions),
        *of_few_subjects(evaluation.counts),
        *_of_subgroups(evaluation),
        *_of_undefined(evaluation),
    ]
    return dataclasses.replace(evaluation, warnings=tuple(lines))


def number(value: float | None) -> str:
    """Three decimals, or a dash where the score is not defined."""
    # Adding 0 turns the -0.0 of rounding into 0.
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"


def no_better(name: str, ours: float, theirs: float) -> bool:
    """Whether a statistic is at or below a baseline's, for errors at or above; but for its last digits."""
    ahead = theirs - ours if name in LOWER_IS_BETTER else ours - theirs
    return ahead <= 1e-9 * max(1.0, abs(theirs))


def shared_baselines(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, Baseline]]:
    """The baselines of several models, each once: a model that lacks other clips can have others."""
    rows: dict[str, list[tuple[str, Baseline]]] = {}
    for model, evaluation in evaluations.items():
        for baseline in evaluation.baselines:
            known = rows.setdefault(baseline.name, [])
            if all(_shown(other) != _shown(baseline) for _, other in known):
                known.append((model, baseline))
    return [
        (f"{name} ({model})" if len(known) > 1 else name, baseline)
        for name, known in rows.items()
        for model, baseline in known
    ]


def _shown(baseline: Baseline) -> list[str]:
    return [baseline.rule, *(number(baseline.scores.value(name)) for name in STATISTICS)]


def _of_classes(evaluation: Evaluation) -> list[str]:
    scores, lines = evaluation.scores, []
    by_class = zip(scores.class_names, scores.support, scores.predicted, scores.recall, strict=True)
    for name, support, predicted, found in by_class:
        if evaluation.counts.scored and not support:
            lines.append(f"“{name}” does not occur in the truth of the scored clips: nothing is known about it.")
        elif support and found == 0:
            why = " The class is never predicted." if not predicted else ""
            lines.append(f"“{name}” has recall 0: none of its {support:g} clips was recognised.{why}")
    return lines


def _of_baselines(evaluation: Evaluation) -> list[str]:
    scores, lines = evaluation.scores, []
    for rule in evaluation.baselines:
        behind = [
            _against(key, ours, theirs)
            for key in STATISTICS
            if (ours := scores.value(key)) is not None
            and (theirs := rule.scores.value(key)) is not None
            and no_better(key, ours, theirs)
        ]
        if behind:
            lines.append(f"No better than the baseline “{rule.name}” ({rule.rule}): {'; '.join(behind)}.")
    if scores.mean_absolute_error is not None:
        index, smallest = _best_constant(scores.support)
        if no_better("mean_absolute_error", scores.mean_absolute_error, smallest):
            lines.append(
                f"Always saying “{scores.class_names[index]}” is no further off: "
                f"{_against('mean_absolute_error', scores.mean_absolute_error, smallest)}."
            )
    balanced = evaluation.intervals.get("balanced_accuracy")
    constant, chance = (rule.scores.balanced_accuracy for rule in evaluation.baselines)
    if balanced is None or balanced.low is None or constant is None or chance is None:
        return lines
    # Where a class is not in the truth, always naming one that is scores more than guessing among all.
    without_model, hardest = "always naming one class", constant
    if no_better("balanced_accuracy", constant, chance):
        without_model, hardest = "guessing", chance
    if (
        scores.balanced_accuracy is not None
        and balanced.low <= hardest
        and not no_better("balanced_accuracy", scores.balanced_accuracy, hardest)
    ):
        lines.append(
            f"Not told apart from {without_model}: the interval of the balanced accuracy, from {number(balanced.low)} "
            f"to {number(balanced.high)}, holds {number(hardest)}."
        )
    return lines


def _best_constant(support: Sequence[float]) -> tuple[int, float]:
    """The class that is nearest to the truth if always said, and its mean error in levels."""
    steps = np.arange(len(support))
    errors = np.abs(steps[:, None] - steps) @ np.asarray(support) / sum(support)
    return int(errors.argmin()), float(errors.min())


def _of_probabilities(evaluation: Evaluation, predictions: Predictions) -> list[str]:
    probability, lines = evaluation.probability, []
    if probability is None:
        if evaluation.counts.scored:
            lines.append("There are no probabilities: nothing is told of ranking (AUROC, AUPRC) and of calibration.")
        return lines
    if probability.left_out:
        lines.append(
            f"{probability.left_out} of {evaluation.counts.scored} scored clips have a label but no probabilities; "
            "AUROC, AUPRC, Brier score and calibration error are without them."
        )
    if probability.auroc is not None and no_better("auroc", probability.auroc, 0.5):
        lines.append(
            f"The probabilities rank clips no better than chance: {_against('auroc', probability.auroc, 0.5)}."
        )
    shares = np.asarray(evaluation.scores.support) / max(1, evaluation.counts.scored)
    always = float(1 - (shares**2).sum())
    if not probability.left_out and always > 0 and no_better("brier", probability.brier, always):
        lines.append(
            "The probabilities say no more than each class's share of the clips, stated for every clip: "
            f"{_against('brier', probability.brier, always)}."
        )
    surer = overconfidence(predictions)
    if surer is not None:
        apart, interval = surer
        clear = interval.low is not None and interval.high is not None and (interval.low > 0 or interval.high < 0)
        if clear and abs(apart) >= MISCALIBRATED:
            bins = probability.reliability
            stated = sum(n * (mean or 0.0) for n, mean in zip(bins.clips, bins.confidence, strict=True)) / sum(
                bins.clips
            )
            lines.append(
                f"{'Too sure of itself' if apart > 0 else 'Not sure enough of itself'}: for its most probable class it "
                f"states a probability of {number(stated)} on average, and is right in {number(stated - apart)} of the "
                f"clips (interval of the difference {number(interval.low)} to {number(interval.high)})."
            )
    return lines + _of_calibration(evaluation.calibration)


def _of_calibration(calibration: Calibration | None) -> list[str]:
    if calibration is None:
        return []
    lines = [] if calibration.caution is None else [f"Calibration: {calibration.caution}."]
    before, after = calibration.before, calibration.after
    if before is not None and after is not None and after.brier > before.brier:
        lines.append(
            f"Calibration did not help: the Brier score is {number(after.brier)} after it and {number(before.brier)} "
            f"before. Those it was fitted on, {len(calibration.fitted_on)} in number, are unlike those scored, or too "
            "few."
        )
    return lines


def _of_subgroups(evaluation: Evaluation) -> list[str]:
    lines = []
    for apart in evaluation.subgroup_differences:
        low, high = apart.interval.low, apart.interval.high
        if low is not None and high is not None and (low > 0 or high < 0):
            lines.append(
                f"By {apart.attribute}, “{apart.first}” and “{apart.second}” differ in balanced accuracy by "
                f"{apart.value:+.3f} (interval {low:+.3f} to {high:+.3f}). Of many comparisons some differ by chance."
            )
    return lines


def _of_undefined(evaluation: Evaluation) -> list[str]:
    undefined = dict(evaluation.scores.undefined)
    if evaluation.probability is not None:
        undefined |= evaluation.probability.undefined
    return [
        f"{TITLES[key]} is not defined: {reason}."
        for key, reason in undefined.items()
        if evaluation.counts.scored and key in TITLES
    ]


def _against(key: str, ours: float, theirs: float) -> str:
    title = TITLES[key].partition(",")[0]
    shown = title if key in ("auroc", "auprc", "brier") else title[:1].lower() + title[1:]
    return f"{shown} {number(ours)} against {number(theirs)}"
