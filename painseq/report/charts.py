"""Charts as SVG files: heat maps, curves and rows with intervals, learning curves.

Names that contain the word LEAKY get hollow markers and dotted lines.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from painseq.report.canvas import (
    BLUE,
    GREY,
    INK,
    legend,
    line_look,
    new_canvas,
    readable,
    shades_of,
    style,
    svg,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from painseq.report.content import Row

LEARNING_CURVES = {
    "Loss": (("train_loss", "training"), ("val_loss", "validation")),
    "Balanced accuracy": (("val_balanced_accuracy", "validation"),),
}
"""Title of each chart of learning curves -> (column of the history, name in the legend)."""

Curve = tuple[ArrayLike, ArrayLike, ArrayLike | None, ArrayLike | None]
"""x (n,), y (n,), and the limits of y's interval, (n,) each or None; NaN without an interval."""


def heat_map(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    low: float,
    high: float,
    title: str,
    notes: Sequence[Sequence[str]] | None = None,
) -> bytes:
    """Draw a heat map with a number in each cell; higher values are lighter.

    Args:
        values: (R, C); NaN is a cell without a number.
        rows: R names.
        columns: C names.
        low: value of the darkest shade; lower values are clipped.
        high: value of the lightest shade; higher values are clipped.
        title: what the numbers, rows and columns are.
        notes: R rows of C short texts below the numbers, such as intervals.

    Returns:
        Bytes of an SVG file.
    """
    from matplotlib.patches import Rectangle

    cells = np.asarray(values, np.float64)
    with style():
        height = 0.62 if notes else 0.46
        canvas, axes = new_canvas(1.15 * len(columns), height * len(rows), fill=True)
        shades = shades_of(cells, low, high)
        for i, j in np.ndindex(*cells.shape):
            known = math.isfinite(cells[i, j])
            text = f"{cells[i, j]:.3f}" if known else "–"
            if notes and notes[i][j]:
                text += f"\n{notes[i][j]}"
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=shades[i, j], edgecolor="white", linewidth=2))
            axes.text(j, i, text, ha="center", va="center", color=readable(shades[i, j]), fontsize=9, linespacing=1.3)
        axes.set_xticks(range(len(columns)), [wrapped(name, 15) for name in columns])
        axes.set_yticks(range(len(rows)), [wrapped(name, 30) for name in rows])
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.spines[:].set_visible(False)
        axes.set_title(wrapped(title, 60), loc="left", pad=10)
        return svg(canvas)


def interval_curves(
    curves: Mapping[str, Curve],
    x_label: str,
    y_label: str,
    chance: float | None = None,
) -> bytes:
    """Draw lines with intervals, such as a score by the number of subjects.

    Args:
        curves: name -> x, y and interval limits.
        x_label: label of the x axis.
        y_label: label of the y axis.
        chance: y of a dotted line; None for no line.

    Returns:
        Bytes of an SVG file.
    """
    with style():
        canvas, axes = new_canvas(5.6, 3.3)
        handles = []
        for number, (name, (x, y, low, high)) in enumerate(curves.items()):
            xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
            color, marker, dash, leaky = *line_look(number), "LEAKY" in name
            (line,) = axes.plot(
                xs,
                ys,
                color=color,
                linestyle=":" if leaky else dash,
                marker=marker,
                markersize=5,
                fillstyle="none" if leaky else "full",
            )
            handles.append(line)
            if low is not None and high is not None:
                limits = np.stack([np.asarray(low, np.float64), np.asarray(high, np.float64)])
                axes.vlines(xs, *limits, color=color, linewidth=1, alpha=0.8)
                axes.fill_between(xs, *limits, color=color, alpha=0.1, linewidth=0)
        if chance is not None:
            handles.append(axes.axhline(chance, color=INK, linestyle=":", linewidth=1))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        ticks = sorted({float(tick) for x, *_ in curves.values() for tick in np.ravel(x)})
        if 1 < len(ticks) <= 8:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        legend(axes, handles, [*curves, *([] if chance is None else ["chance"])])
        return svg(canvas)


def interval_rows(
    rows: Sequence[tuple[str, float | None, float | None, float | None]],
    reference: float | None = None,
    x_label: str = "",
    limits: tuple[float, float] | None = None,
) -> bytes:
    """Draw a dot with its interval for each row, below one another.

    Args:
        rows: (name, value, low, high), from top to bottom; None is not drawn.
        reference: x of a dotted line, such as chance or no difference; None for no line.
        x_label: label of the x axis.
        limits: limits of the x axis; None to fit the numbers.

    Returns:
        Bytes of an SVG file.
    """
    with style():
        canvas, axes = new_canvas(3.3, 0.3 * len(rows) + 0.3, fill=True)
        for y, (name, value, low, high) in enumerate(rows):
            leaky = "LEAKY" in name
            if low is not None and high is not None:
                axes.plot([low, high], [y, y], "|-", color=BLUE, linewidth=2, markersize=9)
            if value is not None:
                axes.plot(value, y, "o", color=BLUE, markersize=7, markerfacecolor="white" if leaky else BLUE)
        if reference is not None:
            axes.axvline(reference, color=INK, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(rows)), [wrapped(name, 28) for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(wrapped(x_label, 45))
        if limits is not None:
            axes.set_xlim(*limits)
        return svg(canvas)


def learning_curves(history: Sequence[Row], chance: float | None) -> list[tuple[str, str]]:
    """Draw loss and balanced accuracy by epoch: titles and base64 SVG charts, without charts that have no values.

    Args:
        history: one row per epoch.
        chance: balanced accuracy of guessing, drawn as a dotted line; None for no line.
    """
    pictures = []
    for title, lines in LEARNING_CURVES.items():
        if not any(series(history, key)[0] for key, _ in lines):
            continue
        with style():
            canvas, axes = new_canvas(4.4, 2.7)
            handles, names = _learning(axes, history, lines)
            axes.set_title(title, loc="left")
            axes.set_xlabel("epoch")
            if title != "Loss":
                axes.set_ylim(0, 1)
                if chance is not None:
                    handles.append(axes.axhline(chance, color=INK, linestyle=":"))
                    names.append("chance")
            legend(axes, handles, names)
            pictures.append((title, base64.b64encode(svg(canvas)).decode()))
    return pictures


def _learning(axes: Axes, history: Sequence[Row], lines: Sequence[tuple[str, str]]) -> tuple[list[Artist], list[str]]:
    from matplotlib.ticker import MaxNLocator

    handles: list[Artist] = []
    names: list[str] = []
    for key, label in lines:
        epochs, values = series(history, key)
        if not epochs:
            continue
        training = label == "training"
        handles += axes.plot(
            epochs,
            values,
            color=GREY if training else BLUE,
            linestyle="--" if training else "-",
            marker="" if len(epochs) > 40 else ("s" if training else "o"),
            markersize=3,
        )
        names.append(label)
        if key == "val_loss":
            lowest = values.index(min(values))
            handles += axes.plot(epochs[lowest], values[lowest], "o", markersize=9, fillstyle="none", color=INK)
            names.append("lowest")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return handles, names


def series(history: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a column of the history, where both are finite."""
    pairs = [(row.get("epoch", math.nan), row.get(key, math.nan)) for row in history]
    finite = [(epoch, value) for epoch, value in pairs if math.isfinite(epoch) and math.isfinite(value)]
    return [epoch for epoch, _ in finite], [value for _, value in finite]
