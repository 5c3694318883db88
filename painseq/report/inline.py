"""Positions of marks in charts inside table cells, on a shared axis from 0 to 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

WIDTH, PAD = 216, 8


class Dot(NamedTuple):
    """A subject's dot: value on the axis, rounded; y in pixels; subject id; exact value."""

    x: float
    y: float
    subject: str
    value: float


def x_of(value: float) -> float:
    """Pixels from the left edge."""
    return round(PAD + min(max(value, 0.0), 1.0) * (WIDTH - 2 * PAD), 1)


def stacked_dots(values: Mapping[str, float]) -> tuple[int, list[Dot]]:
    """Height of the chart in pixels, and one dot per subject, rounded to 0.02 and stacked."""
    bins = 50
    counts = Counter(round(value * bins) for value in values.values())
    step = 8.0 if max(counts.values(), default=0) <= 8 else 64.0 / max(counts.values())
    height = round(14 + step * max(counts.values(), default=1))
    dots: list[Dot] = []
    stacked: Counter[int] = Counter()
    for subject, value in sorted(values.items(), key=lambda item: item[1]):
        index = round(value * bins)
        dots.append(Dot(index / bins, height - 6 - step * stacked[index], subject, value))
        stacked[index] += 1
    return height, dots
