"""Report blocks of probabilities and of subgroups, made from evaluations and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from painseq.evaluation.intervals import Interval
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.probability import Reliability
from painseq.evaluation.score import POINT_TITLES, THRESHOLD_TEXT, TITLES, Evaluation, number, threshold_rows
from painseq.evaluation.threshold import ThresholdComparison
from painseq.report.charts import interval_rows
from painseq.report.content import Block, CellValue, Picture
from painseq.report.curves import precision_recall_chart, rank_curves, reliability_chart, roc_chart
from painseq.report.tables import chance

SCORES = ("auroc", "auprc", "brier", "ece")
GROUP_TEXT = (
    "A mean over all subjects can hide groups with other scores. The table has the balanced accuracy of each group, "
    "its 95 % interval and its number of people. Small groups have no interval and allow no conclusion."
)
SEXES = {"f": "female", "m": "male"}

TEXT = (
    "AUROC: how often a clip of a class has a higher probability of that class than a clip of another class; 0.5 is "
    "guessing. AUPRC: mean precision over the clips of a class; guessing gives the class's share. Both are of one "
    "class against the rest, averaged over classes. Brier score: squared error of the probabilities, from 0 to 2. "
    "Calibration error: distance of the highest probability from the share of clips for which it is correct. For the "
    "last two, lower is better.\n\n"
    "Dotted lines are guessing. In the reliability diagrams, the dotted line is perfect calibration, and larger marks "
    "have more clips."
)


def with_interval(value: float | None, interval: Interval | None) -> str:
    """Format a score as "0.512 (0.430 to 0.593)", or with "no width" if the limits are equal."""
    if interval is None or interval.low is None or interval.high is None:
        return number(value)
    if interval.low == interval.high:
        return f"{number(value)} (no width)"
    return f"{number(value)} ({number(interval.low)} to {number(interval.high)})"


def probability_block(evaluations: Mapping[str, Evaluation], predictions: Mapping[str, Predictions]) -> Block | None:
    """Block of ranking and calibration of the probabilities; None if no model has any."""
    rows: list[list[str]] = []
    pictures: list[Picture] = []
    text = TEXT
    for model, evaluation in evaluations.items():
        scores = evaluation.probability
        if scores is None:
            continue
        diagrams = [("", scores.reliability)]
        calibration = evaluation.calibration
        if calibration is not None and calibration.before is not None:
            before = calibration.before
            diagrams = [("before", before.reliability), ("after", scores.reliability)]
            rows.append([f"{model}, before temperature", *(number(before.value(name)) for name in SCORES)])
            text += (
                f"\n\n{model}: a temperature of {calibration.temperature:.2f}, fitted on {calibration.clips:,} clips "
                f"of {len(calibration.fitted_on)} other subjects, changed the calibration error from {before.ece:.3f} "
                f"to {scores.ece:.3f}." + (f" Caution: {calibration.caution}." if calibration.caution else "")
            )
        intervals = evaluation.intervals
        cells = [with_interval(scores.value(name), intervals.get(name)) for name in SCORES]
        rows.append([model, *cells])
        if model in predictions:
            pictures += _rank_pictures(model, predictions[model])
        pictures.append(_reliability_picture(model, diagrams))
    if not rows:
        return None
    return Block("Probabilities", text, ["", *(TITLES[name] for name in SCORES)], rows, pictures)


def _rank_pictures(model: str, predictions: Predictions) -> list[Picture]:
    curves = rank_curves(predictions)
    if not curves:
        return []
    areas = [
        ", ".join(f"{curve.class_name} {area:.3f}" for curve, area in zip(curves, values, strict=True))
        for values in ([curve.auroc for curve in curves], [curve.auprc for curve in curves])
    ]
    return [
        Picture(
            f"ROC curves of {model}, one class against the rest. Areas: {areas[0]}",
            roc_chart(f"{model}\nROC", curves),
            ("class", "threshold", "false positive rate", "true positive rate"),
            [
                row
                for curve in curves
                for row in _points(
                    curve.class_name, curve.roc_threshold, curve.false_positive_rate, curve.true_positive_rate
                )
            ],
        ),
        Picture(
            f"Precision and recall of {model}, one class against the rest. Areas: {areas[1]}",
            precision_recall_chart(f"{model}\nprecision and recall", curves),
            ("class", "threshold", "recall", "precision"),
            [
                row
                for curve in curves
                for row in _points(curve.class_name, curve.pr_threshold, curve.recall, curve.precision)
            ],
        ),
    ]


def _points(name: str, *columns: NDArray[np.float64]) -> list[list[CellValue]]:
    return [[name, *values] for values in np.stack(columns, 1).tolist()]


def _reliability_picture(model: str, diagrams: Sequence[tuple[str, Reliability]]) -> Picture:
    rows: list[list[CellValue]] = []
    for name, diagram in diagrams:
        edges = diagram.edges
        bins = zip(edges, edges[1:], diagram.confidence, diagram.accuracy, diagram.clips, strict=False)
        rows += [[name, *cells] for cells in bins]
    return Picture(
        f"Reliability of {model}: share of correct labels by their probability",
        reliability_chart(f"{model}\nreliability", diagrams),
        ("temperature", "from", "to", "confidence", "accuracy", "clips"),
        rows,
    )


def threshold_block(comparisons: Mapping[str, ThresholdComparison | None]) -> Block | None:
    """Block of the scores at a tuned threshold beside those at 0.5; None if no model has one."""
    rows = [
        [f"{model}, {name}", *cells]
        for model, comparison in comparisons.items()
        for name, cells in threshold_rows(comparison)
    ]
    return Block("Tuned threshold", THRESHOLD_TEXT, ["", *POINT_TITLES.values()], rows) if rows else None


def subgroup_block(evaluations: Mapping[str, Evaluation]) -> Block | None:
    """Block of balanced accuracy by sex and age, with intervals; None if neither is known for any model."""
    cells: dict[str, dict[str, str]] = {}
    pictures: list[Picture] = []
    for model, evaluation in evaluations.items():
        drawn: list[tuple[str, float | None, float | None, float | None]] = []
        for group in evaluation.subgroups:
            name = f"{group.attribute}: {SEXES.get(group.name, group.name)}"
            value, interval = group.scores.balanced_accuracy, group.intervals.get("balanced_accuracy")
            low, high = (None, None) if interval is None else (interval.low, interval.high)
            people = "1 person" if group.subjects == 1 else f"{group.subjects:,} people"
            span = "" if low is None or high is None else f"{number(low)} to {number(high)}; "
            if span and low == high:
                span = "no width; "
            cells.setdefault(name, {})[model] = f"{number(value)} ({span}{people})"
            drawn.append((name, value, low, high))
        for difference in evaluation.subgroup_differences:
            first, second = (SEXES.get(group, group) for group in (difference.first, difference.second))
            name = f"{difference.attribute}: {first} minus {second}"
            cells.setdefault(name, {})[model] = with_interval(difference.value, difference.interval)
        if drawn:
            chart = interval_rows(drawn, chance(evaluation), f"balanced accuracy of {model}", limits=(0, 1))
            alt = f"Balanced accuracy of {model} by group, with 95 % intervals"
            pictures.append(Picture(alt, chart, ("group", "balanced accuracy", "low", "high"), drawn))
    models = [model for model, evaluation in evaluations.items() if evaluation.subgroups]
    # Differences come last, whichever model a group comes from.
    ordered = sorted(cells, key=lambda name: " minus " in name)
    rows = [[name, *(cells[name].get(model, "–") for model in models)] for name in ordered]
    return Block("Sex and age", GROUP_TEXT, ["", *models], rows, pictures) if rows else None
