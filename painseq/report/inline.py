"""Where the charts that stand in a table's cell have their marks, on a shared axis from 0 to 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

WIDTH, PAD = 216, 8


class Dot(NamedTuple):
    """A subject's dot: its place on the axis, its y in pixels, whose it is, and the exact value."""

    x: float
    y: float
    subject: str
    value: float


def x_of(value: float) -> float:
    """Pixels from the left edge."""
    return round(PAD + min(max(value, 0.0), 1.0) * (WIDTH - 2 * PAD), 1)


def stacked_dots(values: Mapping[str, float]) -> tuple[int, list[Dot]]:
    """The chart's height in pixels, and a dot a subject, rounded to 0.02 and stacked."""
    bins = 50
    counts = Counter(round(value * bins) for value in values.values())
    step = 8.0 if max(counts.values(), default=0) <= 8 else 64.0 / max(counts.values())
    height = round(14 + step * max(counts.values(), default=1))
    dots: list[Dot] = []
    stacked: Counter[int] = Counter()
    for subject, value in sorted(values.items(), key=lambda item: item[1]):
        place = round(value * bins)
        dots.append(Dot(place / bins, height - 6 - step * stacked[place], subject, value))
        stacked[place] += 1
    return height, dots
