"""ROC, precision-recall and reliability curves: numbers and small charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from painseq.evaluation.predictions import Predictions
from painseq.evaluation.probability import Reliability, rated
from painseq.report.canvas import GREY, INK, legend, line_look, new_canvas, style, svg, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Floats = NDArray[np.float64]
DRAWN_POINTS = 2000
"""Largest number of points of a curve; more cannot be told apart in a chart."""

SIDE = 3.05
"""Side of a chart in inches, so that three charts fit in a row of the page."""


@dataclass(frozen=True)
class RankCurves:
    """ROC and precision-recall curve of one class against the rest, one point per threshold.

    Of more than `DRAWN_POINTS` thresholds, as many at equal steps are kept, the first and the last among them. The
    areas are of all thresholds.

    Args:
        class_name: the class.
        share: the class's share of the clips, which is the precision of guessing.
        false_positive_rate: (n,) share of the other clips at or above the threshold, increasing.
        true_positive_rate: (n,) share of the class's clips at or above the threshold, increasing.
        roc_threshold: (n,) decreasing from infinity.
        recall: (m,) decreasing to 0.
        precision: (m,) 1 for the last point, which has no clips.
        pr_threshold: (m,) increasing; infinite for the last point.
        auroc: area under the ROC curve.
        auprc: average precision, the area under the precision-recall curve in steps.
    """

    class_name: str
    share: float
    false_positive_rate: Floats
    true_positive_rate: Floats
    roc_threshold: Floats
    recall: Floats
    precision: Floats
    pr_threshold: Floats
    auroc: float
    auprc: float


def rank_curves(predictions: Predictions) -> list[RankCurves]:
    """Compute the curves of each class with clips on both sides; for two classes, only of the second.

    Clips without probabilities are left out, as in AUROC and AUPRC.
    """
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

    clips = rated(predictions)
    curves = []
    for index, name in enumerate(predictions.class_names):
        positive = clips.truth == index
        # With two classes, the curves of the first mirror those of the second.
        if not 0 < positive.sum() < len(positive) or (len(predictions.class_names) == 2 and index == 0):
            continue
        score = clips.probabilities[:, index]
        false_rate, true_rate, roc_threshold = roc_curve(positive, score)
        precision, recall, pr_threshold = precision_recall_curve(positive, score, drop_intermediate=True)
        roc, pr = _drawn(len(false_rate)), _drawn(len(recall))
        curves.append(
            RankCurves(
                class_name=name,
                share=float(positive.mean()),
                false_positive_rate=false_rate[roc],
                true_positive_rate=true_rate[roc],
                roc_threshold=roc_threshold[roc],
                recall=recall[pr],
                precision=precision[pr],
                pr_threshold=np.append(pr_threshold, np.inf)[pr],
                auroc=float(auc(false_rate, true_rate)),
                auprc=float(average_precision_score(positive, score)),
            )
        )
    return curves


def _drawn(points: int) -> NDArray[np.int64]:
    """Indices of the points that are drawn."""
    return np.unique(np.linspace(0, points - 1, min(points, DRAWN_POINTS)).round().astype(np.int64))


def roc_chart(title: str, curves: Sequence[RankCurves]) -> bytes:
    """Draw true against false positive rate, one line per class with its area; the dotted line is guessing."""
    with style():
        canvas, axes = _square(title, "false positive rate", "true positive rate")
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=1)
        handles = []
        for number, curve in enumerate(curves):
            color, _, dash = line_look(number)
            handles += axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=color, linestyle=dash)
        legend(axes, handles, [f"{curve.class_name} {curve.auroc:.3f}" for curve in curves], 8)
        return svg(canvas, tight=False)


def precision_recall_chart(title: str, curves: Sequence[RankCurves]) -> bytes:
    """Draw precision against recall, one line per class with its area; dotted lines are the classes' shares."""
    with style():
        canvas, axes = _square(title, "recall", "precision")
        handles = []
        for number, curve in enumerate(curves):
            color, _, dash = line_look(number)
            axes.axhline(curve.share, color=color, linestyle=":", linewidth=1)
            # Steps as in average precision: the precision at a threshold applies to the recall gained by it.
            handles += axes.step(curve.recall, curve.precision, where="post", color=color, linestyle=dash)
        legend(axes, handles, [f"{curve.class_name} {curve.auprc:.3f}" for curve in curves], 8)
        return svg(canvas, tight=False)


def reliability_chart(title: str, diagrams: Sequence[tuple[str, Reliability]]) -> bytes:
    """Draw the share of correct labels against their probability, one point per bin; larger points have more clips."""
    with style():
        canvas, axes = _square(title, "probability of the most probable class", "share that is correct")
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=1)
        handles = []
        for number, (_, diagram) in enumerate(diagrams):
            color, marker, dash = line_look(number)
            points = [
                (confidence, accuracy, clips)
                for confidence, accuracy, clips in zip(diagram.confidence, diagram.accuracy, diagram.clips, strict=True)
                if confidence is not None and accuracy is not None
            ]
            x, y, clips = np.array(points).reshape(-1, 3).T
            handles += axes.plot(x, y, color=color, linestyle=dash, linewidth=1, marker=marker, markersize=4)
            axes.scatter(x, y, 12 + 160 * clips / max(clips.sum(), 1), color=color, marker=marker, alpha=0.55)
        if len(diagrams) > 1:
            legend(axes, handles, [name for name, _ in diagrams], 8)
        return svg(canvas, tight=False)


def _square(title: str, x_label: str, y_label: str) -> tuple[Canvas, Axes]:
    canvas, axes = new_canvas(SIDE, SIDE)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set_title("\n".join(wrapped(line, 38, 1) for line in title.split("\n")), loc="left", fontsize=9)
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.tick_params(labelsize=8, color=GREY)
    return canvas, axes
