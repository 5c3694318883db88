"""Rows of predictions CSV files, one per clip, for classes and for values on a scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from painseq.errors import PainseqError
from painseq.records import UNKNOWN
from painseq.tables import number, read_table, shown

NumberedRow = tuple[int, dict[str, str]]
"""Line number, and column -> cell."""


def read_rows(path: Path, required: set[str]) -> tuple[list[NumberedRow], list[str]]:
    """Read a CSV file: rows with a cell in every column, and the columns in order.

    Raises:
        PainseqError: see `read_table`; a missing column, or a row with missing or extra cells.
    """
    columns, lines = read_table(path)
    missing = required - set(columns)
    if missing:
        raise PainseqError(
            f"{path}, line 1: missing columns: {', '.join(sorted(missing))}. Columns found: {shown(columns)}. Columns "
            "must be separated by commas."
        )
    rows = []
    for line, cells in lines:
        if len(cells) != len(columns):
            raise PainseqError(f"{path}, line {line}: the row must have {len(columns)} cells, as the first line.")
        rows.append((line, dict(zip(columns, cells, strict=True))))
    return rows, columns


def check_ids(clip_ids: Sequence[str], subject_ids: Sequence[str]) -> None:
    """Check that ids are not empty and clip ids are unique; n ids each.

    Raises:
        PainseqError: an empty id, or a repeated clip.
    """
    for clip_id, subject_id in zip(clip_ids, subject_ids, strict=True):
        if not clip_id or not subject_id:
            raise PainseqError(f"Predictions: clip_id {clip_id!r} or subject_id {subject_id!r} is empty.")
    repeated = [clip_id for clip_id, count in Counter(clip_ids).items() if count > 1]
    if repeated:
        raise PainseqError(f"Predictions: clip {repeated[0]!r} appears more than once.")


def check_new(row: Mapping[str, str], line: int, seen: dict[str, int]) -> None:
    """Check that a row's ids are not empty and its clip is not in `seen` (clip id -> line), then add it to `seen`.

    Raises:
        PainseqError: an empty id, or a repeated clip.
    """
    clip_id = row["clip_id"]
    if not clip_id or not row["subject_id"]:
        raise PainseqError("clip_id and subject_id must not be empty.")
    if clip_id in seen:
        raise PainseqError(f"clip {clip_id!r} is already in line {seen[clip_id]}.")
    seen[clip_id] = line


def numbers_in(row: Mapping[str, str], columns: Sequence[str]) -> list[float]:
    """Parse cells as numbers, NaN for an empty or missing cell.

    Raises:
        PainseqError: a cell is not a number.
    """
    values = []
    for column in columns:
        cell = row.get(column, "").strip()
        try:
            values.append(number(cell) if cell else np.nan)
        except ValueError as error:
            raise PainseqError(f"{column} is {cell!r}, not a number.") from error
    return values


def count_in(row: Mapping[str, str], column: str) -> int:
    """Parse a cell as a number of frames, `UNKNOWN` for an empty or missing cell.

    Raises:
        PainseqError: the cell is not a whole number.
    """
    cell = row.get(column, "").strip()
    if not cell:
        return UNKNOWN
    if not cell.isdecimal() or len(cell) > 15:
        raise PainseqError(f"{column} is {cell!r}, not a whole number of frames.")
    return int(cell)
