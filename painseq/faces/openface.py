"""Read the tables of OpenFace 2: one row per frame, with landmarks and action units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.tables import number, read_table, shown

ROUNDING_S = 1e-3
"""OpenFace rounds its timestamps to a millisecond."""


def read_openface(path: Path, names: Sequence[str]) -> NDArray[np.float64]:
    """Read columns of a table by their names; spaces around the names in its header are ignored.

    Returns:
        (rows, len(names)).

    Raises:
        PainseqError: a column is missing, or a cell is not a number, with its line.
    """
    header, lines = read_table(path)
    missing = [name for name in names if name not in header]
    if missing:
        raise PainseqError(
            f"{path} is not an OpenFace table: it has no column {missing[0]!r} ({len(missing)} missing). Columns "
            f"found: {shown(header)}."
        )
    columns = [header.index(name) for name in names]
    rows: list[list[float]] = []
    for line, cells in lines:
        if len(cells) != len(header):
            raise PainseqError(f"{path}, line {line}: it has {len(cells)} cells, but there are {len(header)} columns.")
        try:
            rows.append([number(cells[column]) for column in columns])
        except ValueError as error:
            raise PainseqError(f"{path}, line {line}: {error}.") from error
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(names))


def nearest_rows(
    known_s: NDArray[np.float64], times_s: NDArray[np.float64], interval_s: float | None = None
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Find the row nearest in time to each requested time, the earlier one of two equally near.

    Args:
        known_s: (N,) times of the rows, in seconds, increasing; at least one.
        times_s: (T,) requested times, in seconds.
        interval_s: seconds between rows; None is the median of `known_s`.

    Returns:
        (T,) rows, and (T,) whether the row is within half an interval.
    """
    if interval_s is None:
        interval_s = float(np.median(np.diff(known_s))) if len(known_s) > 1 else 0.0
    after = np.clip(np.searchsorted(known_s, times_s), 0, len(known_s) - 1)
    before = np.maximum(after - 1, 0)
    earlier = np.abs(known_s[before] - times_s) <= np.abs(known_s[after] - times_s) + ROUNDING_S
    rows = np.where(earlier, before, after)
    return rows, np.abs(known_s[rows] - times_s) <= interval_s / 2 + ROUNDING_S
