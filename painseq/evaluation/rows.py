"""Rows of a CSV file, one a clip: what files of classes and of values on a scale have in common."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from painseq.errors import PainseqError
from painseq.records import UNKNOWN


def read_rows(path: Path, required: set[str]) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Rows with their line numbers, and the columns in order; every row has a text in every column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            missing = required - set(columns)
            if missing:
                raise PainseqError(
                    f"{path}, line 1: missing columns: {', '.join(sorted(missing))}. Columns found: "
                    f"{', '.join(columns) or 'none'}. Columns are parted by commas."
                )
            doubled = [name for name, count in Counter(columns).items() if count > 1]
            if doubled:
                raise PainseqError(f"{path}, line 1: column {doubled[0]!r} appears more than once.")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise PainseqError(
                        f"{path}, line {reader.line_num}: not {len(columns)} cells, as in the first line."
                    )
                rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error) as error:
        raise PainseqError(f"{path} cannot be read as a CSV file in UTF-8: {error}.") from error
    return rows, columns


def check_ids(clip_ids: Sequence[str], subject_ids: Sequence[str]) -> None:
    """Refuse predictions of clips or subjects without a name, or of a clip twice; n names each."""
    for clip_id, subject_id in zip(clip_ids, subject_ids, strict=True):
        if not clip_id or not subject_id:
            raise PainseqError(f"Predictions: clip {clip_id!r} of subject {subject_id!r} lacks a name.")
    twice = [clip_id for clip_id, count in Counter(clip_ids).items() if count > 1]
    if twice:
        raise PainseqError(f"Predictions: clip {twice[0]!r} appears more than once.")


def check_new(row: Mapping[str, str], line: int, seen: dict[str, int]) -> None:
    """Refuse a row whose clip or subject has no name, or whose clip was `seen` in another line; it is, after this."""
    clip_id = row["clip_id"]
    if not clip_id or not row["subject_id"]:
        raise PainseqError("clip_id and subject_id must not be empty.")
    if clip_id in seen:
        raise PainseqError(f"clip {clip_id!r} is already in line {seen[clip_id]}.")
    seen[clip_id] = line


def numbers_in(row: Mapping[str, str], columns: Sequence[str]) -> list[float]:
    """Cells as numbers, NaN for an empty or missing one.

    Raises:
        PainseqError: a cell that is no number.
    """
    values = []
    for column in columns:
        cell = row.get(column, "").strip()
        try:
            values.append(float(cell) if cell else np.nan)
        except ValueError as error:
            raise PainseqError(f"{column} is {cell!r}, not a number.") from error
    return values


def count_in(row: Mapping[str, str], column: str) -> int:
    """A cell as a number of frames, `UNKNOWN` for an empty or missing one.

    Raises:
        PainseqError: a cell that is no whole number.
    """
    cell = row.get(column, "").strip()
    if not cell:
        return UNKNOWN
    if not cell.isdecimal():
        raise PainseqError(f"{column} is {cell!r}, not a whole number of frames.")
    return int(cell)
