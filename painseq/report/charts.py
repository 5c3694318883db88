"""Small charts: inline SVG on a shared 0..1 axis, and learning curves by matplotlib."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

WIDTH, PAD = 240, 8
BLUE, INK, GREY = "#1f5a8c", "#23272b", "#8b949b"

Row = Mapping[str, float]


def _x(value: float) -> float:
    return round(PAD + min(max(value, 0.0), 1.0) * (WIDTH - 2 * PAD), 1)


def _svg(height: int, alt: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{escape(alt)}">'
        + "".join(parts)
        + "</svg>"
    )


def _reference(value: float, height: int) -> str:
    return (
        f'<line x1="{_x(value)}" x2="{_x(value)}" y1="0" y2="{height}" stroke="{GREY}" stroke-width="1.5" '
        'stroke-dasharray="3 3"/>'
    )


def axis(alt: str) -> str:
    """The scale from 0 to 1 that stands above a column of charts."""
    ticks = [
        f'<text x="{_x(value)}" y="10" text-anchor="middle">{value:g}</text>'
        f'<line x1="{_x(value)}" x2="{_x(value)}" y1="14" y2="18" stroke="{GREY}"/>'
        for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    line = f'<line x1="{PAD}" x2="{WIDTH - PAD}" y1="18" y2="18" stroke="{GREY}"/>'
    return _svg(20, alt, [line, *ticks])


def interval_chart(value: float, low: float | None, high: float | None, reference: float | None) -> str:
    """A dot with its interval, and a dashed line at the reference (chance)."""
    parts = [] if reference is None else [_reference(reference, 28)]
    alt = f"{value:.3f}"
    if low is not None and high is not None:
        parts.append(
            f'<line x1="{_x(low)}" x2="{_x(high)}" y1="14" y2="14" stroke="{BLUE}" stroke-width="3"/>'
            f'<line x1="{_x(low)}" x2="{_x(low)}" y1="9" y2="19" stroke="{BLUE}" stroke-width="2"/>'
            f'<line x1="{_x(high)}" x2="{_x(high)}" y1="9" y2="19" stroke="{BLUE}" stroke-width="2"/>'
        )
        alt += f", interval from {low:.3f} to {high:.3f}"
    parts.append(f'<circle cx="{_x(value)}" cy="14" r="5.5" fill="{BLUE}" stroke="#fff" stroke-width="1.5"/>')
    return _svg(28, alt + ("" if reference is None else f"; chance is {reference:.3f}"), parts)


def dot_chart(values: Mapping[str, float], reference: float | None) -> str:
    """A dot a subject on the 0..1 axis, rounded to 0.02 and stacked; exact when pointed at."""
    bins = 50
    counts = Counter(round(value * bins) for value in values.values())
    step = 8.0 if max(counts.values(), default=0) <= 8 else 64.0 / max(counts.values())
    height = round(14 + step * max(counts.values(), default=1))
    parts = [] if reference is None else [_reference(reference, height)]
    stacked: Counter[int] = Counter()
    for subject, value in sorted(values.items(), key=lambda item: item[1]):
        place = round(value * bins)
        y = height - 6 - step * stacked[place]
        stacked[place] += 1
        parts.append(
            f'<circle cx="{_x(place / bins)}" cy="{y:.1f}" r="3.6" fill="{BLUE}" fill-opacity=".75">'
            f"<title>{escape(subject)}: {value:.3f}</title></circle>"
        )
    ordered = sorted(values.values())
    alt = f"{len(ordered)} subjects"
    if ordered:
        alt += f" from {ordered[0]:.3f} to {ordered[-1]:.3f}"
    return _svg(height, alt, parts)


def learning_curves(history: Sequence[Row], chance: float | None) -> list[tuple[str, str]]:
    """Titles and base64 SVG pictures of loss and balanced accuracy by epoch; none without a finite value."""
    pictures = []
    for title, lines in (
        ("Loss", (("train_loss", "training"), ("val_loss", "validation"))),
        ("Balanced accuracy", (("val_balanced_accuracy", "validation"),)),
    ):
        if not any(_series(history, key)[0] for key, _ in lines):
            continue
        # A fixed salt gives the same file for the same curves.
        with matplotlib.rc_context({"font.size": 10, "axes.edgecolor": GREY, "svg.hashsalt": "painseq"}):
            canvas = Canvas(figsize=(4.4, 2.7), layout="constrained")
            axes = canvas.add_subplot()
            _panel(axes, history, title, lines)
            if title != "Loss":
                axes.set_ylim(0, 1)
                if chance is not None:
                    axes.axhline(chance, color=INK, linestyle=":", label="chance")
            axes.legend(frameon=False, fontsize=9)
            file = io.BytesIO()
            canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        pictures.append((title, base64.b64encode(file.getvalue()).decode()))
    return pictures


def _panel(axes: Axes, history: Sequence[Row], title: str, lines: Sequence[tuple[str, str]]) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("epoch")
    for key, label in lines:
        epochs, values = _series(history, key)
        if not epochs:
            continue
        training = label == "training"
        axes.plot(
            epochs,
            values,
            color=GREY if training else BLUE,
            linestyle="--" if training else "-",
            marker="" if len(epochs) > 40 else ("s" if training else "o"),
            markersize=3,
            label=label,
        )
        if key == "val_loss":
            lowest = values.index(min(values))
            axes.plot(epochs[lowest], values[lowest], "o", markersize=9, fillstyle="none", color=INK, label="lowest")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def _series(history: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values where both are finite."""
    pairs = [(row.get("epoch", math.nan), row.get(key, math.nan)) for row in history]
    finite = [(epoch, value) for epoch, value in pairs if math.isfinite(epoch) and math.isfinite(value)]
    return [epoch for epoch, _ in finite], [value for _, value in finite]
