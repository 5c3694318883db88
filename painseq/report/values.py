"""Report blocks of models that predict values on a scale, such as PSPI."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from painseq.evaluation.metrics import rows_by_subject
from painseq.evaluation.score import number
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.evaluation.value_scores import VALUE_TITLES, ValueEvaluation
from painseq.report.canvas import BLUE, GREY, INK, legend, new_canvas, style, svg, wrapped
from painseq.report.content import Block, Picture
from painseq.report.probabilities import with_interval

DRAWN_CLIPS = 2000
"""Largest number of clips drawn as dots in a chart, and of its numbers in a file."""


def value_blocks(
    evaluations: Mapping[str, ValueEvaluation], predictions: Mapping[str, ValuePredictions]
) -> list[Block]:
    """Make blocks for `Report.blocks`: scores, scatter charts and subjects of models of a scale.

    Args:
        evaluations: model name -> evaluation.
        predictions: model name -> scored predictions.
    """
    rows: list[list[str]] = []
    people: list[list[str]] = []
    for model, evaluation in evaluations.items():
        intervals = evaluation.intervals
        rows.append(
            [
                model,
                evaluation.scale,
                *(with_interval(evaluation.scores.value(name), intervals.get(name)) for name in VALUE_TITLES),
                f"{evaluation.counts.scored:,} of {evaluation.counts.clips:,}",
                f"{evaluation.counts.subjects:,}",
            ]
        )
        baseline = (number(evaluation.baseline.value(name)) for name in VALUE_TITLES)
        rows.append([f"always the mean (for {model})", evaluation.scale, *baseline, "", ""])
        people += [
            [
                row.subject_id,
                model,
                f"{row.counts.scored:,} of {row.counts.clips:,}",
                number(row.truth),
                number(row.value),
                number(row.scores.mae),
                number(row.scores.pearson),
            ]
            for row in evaluation.by_subject
        ]
    pictures = [_scatter(model, predicted) for model, predicted in predictions.items() if predicted.scored.any()]
    warnings = "\n\n".join(
        f"{model}: {warning}" for model, evaluation in evaluations.items() for warning in evaluation.warnings
    )
    text = (
        "The 95 % interval over subjects is in brackets. “Always the mean” is the score of always predicting the mean "
        "truth of these clips, which a model does not know.\n\n"
        "In the charts a dot is a clip and a square is a subject's mean; prediction and truth agree on the dotted line."
    )
    columns = ["", "Scale", *VALUE_TITLES.values(), "Scored clips", "Subjects"]
    blocks = [Block("Values", f"{text}\n\n{warnings}", columns, rows, pictures)]
    if people:
        heads = [
            "Subject",
            "Model",
            "Scored clips",
            "Mean truth",
            "Mean prediction",
            VALUE_TITLES["mae"],
            VALUE_TITLES["pearson"],
        ]
        blocks.append(Block("Values by subject", "", heads, people))
    return blocks


def _scatter(model: str, predictions: ValuePredictions) -> Picture:
    scored = predictions.only(predictions.scored)
    step = -(-len(scored) // DRAWN_CLIPS)
    drawn = scored.only(np.arange(0, len(scored), step))
    means = [
        (scored.truth[rows].mean(), scored.value[rows].mean()) for rows in rows_by_subject(scored.subject_ids).values()
    ]
    both = np.concatenate([scored.truth, scored.value])
    with style():
        canvas, axes = new_canvas(4.2, 4.0)
        limits = [float(both.min()), float(both.max())]
        axes.plot(limits, limits, ":", color=INK, linewidth=1)
        dots = axes.plot(drawn.truth, drawn.value, "o", color=GREY, markersize=3, alpha=0.5)
        squares = axes.plot(*np.array(means).T, "s", color=BLUE, markersize=6, markeredgecolor="white")
        axes.set_xlabel(f"true {scored.scale}")
        axes.set_ylabel(f"predicted {scored.scale}")
        axes.set_title(wrapped(model, 50), loc="left")
        legend(axes, [*dots, *squares], ["a clip" if step == 1 else f"a clip, one of {step}", "a subject's mean"])
        chart = svg(canvas)
    rows = zip(drawn.clip_ids, drawn.subject_ids, drawn.truth.tolist(), drawn.value.tolist(), strict=True)
    alt = f"Predicted against true {scored.scale} of {model}, {len(scored):,} clips of {len(means)} subjects"
    return Picture(alt, chart, ("clip_id", "subject_id", "truth", "value"), list(rows))
