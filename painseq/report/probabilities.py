"""Blocks of the probabilities and of groups of subjects, made from evaluations and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from painseq.evaluation.intervals import Interval
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.probability import Reliability
from painseq.evaluation.score import TITLES, Evaluation, number
from painseq.report.charts import interval_rows
from painseq.report.content import Block, CellValue, Picture
from painseq.report.curves import precision_recall_chart, rank_curves, reliability_chart, roc_chart
from painseq.report.tables import chance

SCORES = ("auroc", "auprc", "brier", "ece")
GROUP_TEXT = (
    "A mean over all people can hide a group that it does not hold for. Here is the balanced accuracy of each group, "
    "its 95 % interval, and how many people it has: a group of few people has no interval, and says little."
)
SEXES = {"f": "female", "m": "male"}

TEXT = (
    "AUROC: how often a clip of a class gets a higher probability of it than a clip of another; 0.5 is guessing. "
    "AUPRC: mean precision over the clips of a class; guessing gives the class's share. Both are of one class against "
    "the rest, and their mean. Brier score: squared error of the probabilities, from 0 to 2. Calibration error: how "
    "far the highest probability is from the share of clips in which it is right. Of these two, lower is better.\n\n"
    "Dotted lines are guessing; in the reliability diagrams, the dotted line is where probabilities are as often right "
    "as they say, and a larger mark stands for more clips."
)


def with_interval(value: float | None, interval: Interval | None) -> str:
    """A score as it stands in a table: "0.512 (0.430 to 0.593)", and no two equal ends, which would look certain."""
    if interval is None or interval.low is None or interval.high is None:
        return number(value)
    if interval.low == interval.high:
        return f"{number(value)} (no width)"
    return f"{number(value)} ({number(interval.low)} to {number(interval.high)})"


def probability_block(evaluations: Mapping[str, Evaluation], predictions: Mapping[str, Predictions]) -> Block | None:
    """How well the probabilities rank clips, and whether they can be believed; None if no model has any."""
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
                f"of {len(calibration.fitted_on)} other subjects, took the calibration error from {before.ece:.3f} to "
                f"{scores.ece:.3f}." + (f" Caution: {calibration.caution}." if calibration.caution else "")
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
        f"Reliability of {model}: share of right labels by the probability given to them",
        reliability_chart(f"{model}\nreliability", diagrams),
        ("temperature", "from", "to", "confidence", "accuracy", "clips"),
        rows,
    )


def subgroup_block(evaluations: Mapping[str, Evaluation]) -> Block | None:
    """Balanced accuracy by sex and age, drawn as rows with intervals; None if no model's subjects are known."""
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
        for apart in evaluation.subgroup_differences:
            first, second = (SEXES.get(group, group) for group in (apart.first, apart.second))
            name = f"{apart.attribute}: {first} minus {second}"
            cells.setdefault(name, {})[model] = with_interval(apart.value, apart.interval)
        if drawn:
            chart = interval_rows(drawn, chance(evaluation), f"balanced accuracy of {model}", limits=(0, 1))
            alt = f"Balanced accuracy of {model} by group, with 95 % intervals"
            pictures.append(Picture(alt, chart, ("group", "balanced accuracy", "low", "high"), drawn))
    models = [model for model, evaluation in evaluations.items() if evaluation.subgroups]
    # Differences stand last, whichever model brought a group in.
    ordered = sorted(cells, key=lambda name: " minus " in name)
    rows = [[name, *(cells[name].get(model, "–") for model in models)] for name in ordered]
    return Block("Sex and age", GROUP_TEXT, ["", *models], rows, pictures) if rows else None
