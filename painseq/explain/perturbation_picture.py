"""Pictures of deletion and insertion curves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from painseq.explain.drawing import GREY, INK, MAP
from painseq.explain.ranking import RANDOM, MethodScores, Rank
from painseq.explain.subject_means import subject_mean

GRID = np.linspace(0, 1, 21)
"""Shares at which the curves of clips are averaged."""


def perturbation_picture(
    tables: Mapping[str, Sequence[Sequence[MethodScores]]],
    subject_ids: Sequence[str],
    ranks: Mapping[str, Sequence[Rank]],
    kind: Literal["svg", "png"] = "svg",
) -> bytes:
    """Draw the mean deletion and insertion curves, with one row per table; the random explanation is dashed.

    Args:
        tables: name -> for each clip, the result of `method_scores`.
        subject_ids: subject of each clip; each subject counts once.
        ranks: name -> result of `rank`.
        kind: file format.
    """
    with matplotlib.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "painseq", "text.color": INK}):
        figure = Figure(figsize=(8.2, 0.4 + 2.9 * len(tables)), dpi=130, layout="constrained")
        panels = figure.subplots(len(tables), 2, sharex=True, sharey=True, squeeze=False)
        for row, (name, clips) in zip(panels, tables.items(), strict=True):
            for axes, curve in zip(row, ("deletion", "insertion"), strict=True):
                _draw(axes, clips, subject_ids, ranks[name], curve)
                axes.set_title(f"{name}: {curve}", fontsize=9, loc="left")
                axes.spines[["top", "right"]].set_visible(False)
                axes.spines[["bottom", "left"]].set_color(GREY)
            row[0].set_ylabel("model output")
            row[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        for axes in panels[-1]:
            axes.set_xlabel("deleted share" if axes is panels[-1][0] else "inserted share")
        buffer = io.BytesIO()
        # No date, so that equal figures give equal files.
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        return buffer.getvalue()


def _draw(
    axes: Axes, clips: Sequence[Sequence[MethodScores]], subject_ids: Sequence[str], ranks: Sequence[Rank], curve: str
) -> None:
    methods = [ranked.method for ranked in ranks if ranked.method != RANDOM]
    # From dark to bright in rank order, but not too pale for white paper; markers distinguish them in print.
    colours = colormaps[MAP](np.linspace(0.1, 0.8, max(len(methods), 1)))
    flagged = {ranked.method for ranked in ranks if ranked.survives is True}
    for number, method in enumerate([*methods, RANDOM]):
        of_method = [scores for clip in clips for scores in clip if scores.method == method]
        curves = [np.interp(GRID, scores.shares, getattr(scores, f"{curve}_curve")) for scores in of_method]
        means = np.array([subject_mean(values, subject_ids).value for values in np.transpose(curves)], np.float64)
        style = {"color": GREY, "linestyle": "--"} if method == RANDOM else {"color": colours[number]}
        marker = "" if method == RANDOM else "osv^DPX*<>"[number % 10]
        label = f"{method} (flagged)" if method in flagged else method
        axes.plot(GRID, means, marker=marker, markevery=4, markersize=4, linewidth=1.5, label=label, **style)
