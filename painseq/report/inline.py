"""Charts that stand in a table's cell: inline SVG on a shared axis from 0 to 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, PAD = 216, 8
BLUE, GREY = "#1f5a8c", "#8b949b"


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
