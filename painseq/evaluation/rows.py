"""Predictions CSV files, one row per clip, read by column, for classes and for values on a scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError, first_few
from painseq.records import UNKNOWN
from painseq.tables import number, read_table, shown

DIGITS_OF_COUNT = 15
"""A number of frames with more digits is a mistake, and would not fit into 64 bits."""


@dataclass(frozen=True)
class Columns:
    """The cells of a CSV file, by column.

    Args:
        path: the file.
        names: all columns of the file, in order.
        lines: (n,) line number of each row.
        cells: column -> n cells, of the columns that were asked for.
    """

    path: Path
    names: tuple[str, ...]
    lines: NDArray[np.int64]
    cells: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        return len(self.lines)

    def error(self, row: int, problem: str) -> PainseqError:
        """An error that names the file and the line of a row."""
        return PainseqError(f"{self.path}, line {self.lines[row]}: {problem}")

    def check_clips(self) -> None:
        """Check that ids are not empty and clips are not repeated.

        Raises:
            PainseqError: an empty id, or a repeated clip.
        """
        clip_ids, subject_ids = self.cells["clip_id"], self.cells["subject_id"]
        for row, ids in enumerate(zip(clip_ids, subject_ids, strict=True)):
            if not all(ids):
                raise self.error(row, "clip_id and subject_id must not be empty.")
        if len(set(clip_ids)) < len(clip_ids):
            first_row: dict[str, int] = {}
            for row, clip_id in enumerate(clip_ids):
                earlier = first_row.setdefault(clip_id, row)
                if earlier != row:
                    raise self.error(row, f"clip {clip_id!r} is already in line {self.lines[earlier]}.")

    def indices(self, column: str, names: Sequence[str]) -> NDArray[np.int64]:
        """(n,) index among `names` of each cell, `UNKNOWN` for an empty or missing cell.

        Raises:
            PainseqError: a cell is none of `names`.
        """
        if column not in self.cells:
            return np.full(len(self), UNKNOWN, np.int64)
        cells = self.cells[column]
        place = {"": UNKNOWN} | {name: index for index, name in enumerate(names)}
        found = {cell: place.get(cell.strip()) for cell in set(cells)}
        if None in found.values():
            row, cell = next((row, cell) for row, cell in enumerate(cells) if found[cell] is None)
            raise self.error(row, f"{column} is {cell.strip()!r}, which is not one of the classes {first_few(names)}.")
        return np.fromiter(map(found.__getitem__, cells), np.int64, len(cells))

    def numbers(self, column: str) -> NDArray[np.float64]:
        """(n,) number of each cell, NaN for an empty or missing cell.

        Raises:
            PainseqError: a cell is not a number.
        """
        values = np.full(len(self), np.nan)
        for row, cell in enumerate(self.cells.get(column, ())):
            try:
                values[row] = number(cell) if cell.strip() else np.nan
            except ValueError as error:
                raise self.error(row, f"{column} is {cell.strip()!r}, not a number.") from error
        return values

    def counts(self, column: str) -> NDArray[np.int64]:
        """(n,) number of frames of each cell, `UNKNOWN` for an empty or missing cell.

        Raises:
            PainseqError: a cell is not a whole number.
        """
        values = np.full(len(self), UNKNOWN, np.int64)
        for row, cell in enumerate(self.cells.get(column, ())):
            digits = cell.strip()
            if digits.isdecimal() and len(digits) <= DIGITS_OF_COUNT:
                values[row] = int(digits)
            elif digits:
                raise self.error(row, f"{column} is {digits!r}, not a whole number of frames.")
        return values


def read_columns(path: Path, required: set[str], wanted: Callable[[str], bool] = lambda name: True) -> Columns:
    """Read a CSV file by column.

    Args:
        path: the file.
        required: columns that the file must have.
        wanted: whether the cells of a column are kept, besides those of the required columns.

    Raises:
        PainseqError: see `read_table`; a missing column, or a row with missing or extra cells.
    """
    names, lines = read_table(path)
    missing = required - set(names)
    if missing:
        raise PainseqError(
            f"{path}, line 1: missing columns: {', '.join(sorted(missing))}. Columns found: {shown(names)}. Columns "
            "must be separated by commas."
        )
    kept: dict[str, list[str]] = {name: [] for name in names if name in required or wanted(name)}
    places = [(index, kept[name]) for index, name in enumerate(names) if name in kept]
    numbers = []
    for line, row in lines:
        if len(row) != len(names):
            raise PainseqError(f"{path}, line {line}: the row must have {len(names)} cells, as the first line.")
        numbers.append(line)
        for index, cells in places:
            cells.append(row[index])
    return Columns(path, tuple(names), np.array(numbers, np.int64), kept)


def check_ids(clip_ids: Sequence[str], subject_ids: Sequence[str]) -> None:
    """Check that ids are not empty and clip ids are unique; n ids each.

    Raises:
        PainseqError: an empty id, or a repeated clip.
    """
    if not all(clip_ids) or not all(subject_ids):
        clip_id, subject_id = next(ids for ids in zip(clip_ids, subject_ids, strict=True) if not all(ids))
        raise PainseqError(f"Predictions: clip_id {clip_id!r} or subject_id {subject_id!r} is empty.")
    if len(set(clip_ids)) < len(clip_ids):
        repeated = next(clip_id for clip_id, count in Counter(clip_ids).items() if count > 1)
        raise PainseqError(f"Predictions: clip {repeated!r} appears more than once.")
