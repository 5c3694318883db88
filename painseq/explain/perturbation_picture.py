"""The curves of deletion and insertion as a picture."""

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
"""Shares at which curves of several clips are averaged."""


def perturbation_picture(
    tables: Mapping[str, Sequence[Sequence[MethodScores]]],
    subject_ids: Sequence[str],
    ranks: Mapping[str, Sequence[Rank]],
    kind: Literal["svg", "png"] = "svg",
) -> bytes:
    """The mean curves of deletion and insertion; a row a table, the methods in their order, random ones dashed.

    Args:
        tables: name -> of each clip, what `score_methods` gave.
        subject_ids: whose clips they are; each person counts once.
        ranks: name -> of `rank`.
        kind: of the file.
    """
    with matplotlib.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "painseq", "text.color": INK}):
        figure = Figure(figsize=(8.2, 0.4 + 2.9 * len(tables)), dpi=130, layout="constrained")
        panels = figure.subplots(len(tables), 2, sharex=True, sharey=True, squeeze=False)
        for row, (name, clips) in zip(panels, tables.items(), strict=True):
            for axes, what in zip(row, ("deletion", "insertion"), strict=True):
                _draw(axes, clips, subject_ids, ranks[name], what)
                axes.set_title(f"{name}: {what}", fontsize=9, loc="left")
                axes.spines[["top", "right"]].set_visible(False)
                axes.spines[["bottom", "left"]].set_color(GREY)
            row[0].set_ylabel("what the model says")
            row[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        for axes in panels[-1]:
            axes.set_xlabel("share taken away" if axes is panels[-1][0] else "share put in")
        buffer = io.BytesIO()
        # Without a date, the same figures give the same file.
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        return buffer.getvalue()


def _draw(
    axes: Axes, clips: Sequence[Sequence[MethodScores]], subject_ids: Sequence[str], ranks: Sequence[Rank], what: str
) -> None:
    methods = [one.method for one in ranks if one.method != RANDOM]
    # From dark to bright in order, but never as pale as the paper; markers tell them apart in print.
    colours = colormaps[MAP](np.linspace(0.1, 0.8, max(len(methods), 1)))
    flagged = {one.method for one in ranks if one.survives is True}
    for number, method in enumerate([*methods, RANDOM]):
        found = [one for clip in clips for one in clip if one.method == method]
        curves = [np.interp(GRID, one.shares, getattr(one, f"{what}_curve")) for one in found]
        means = np.array([subject_mean(values, subject_ids).value for values in np.transpose(curves)], np.float64)
        style = {"color": GREY, "linestyle": "--"} if method == RANDOM else {"color": colours[number]}
        marker = "" if method == RANDOM else "osv^DPX*<>"[number % 10]
        label = f"{method} (flagged)" if method in flagged else method
        axes.plot(GRID, means, marker=marker, markevery=4, markersize=4, linewidth=1.5, label=label, **style)
