"""Predictions of values on a scale, such as PSPI or VAS, and their CSV file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.evaluation.rows import check_ids, check_new, count_in, numbers_in, read_rows
from painseq.files import write_csv
from painseq.records import UNKNOWN

VALUE_COLUMN = "value_"
"""Prefix of the column of values, before the name of the scale."""


@dataclass(frozen=True, eq=False)
class ValuePredictions:
    """Predictions of one model for n clips, as numbers on a scale.

    Args:
        scale: name of the scale, e.g. "pspi".
        clip_ids: n unique ids.
        subject_ids: n ids of the clips' subjects.
        truth: (n,) float64, NaN if the label is hidden.
        value: (n,) float64, NaN without a prediction (no frame with a face).
        frames: (n,) int64 frames read, including those without a face; `UNKNOWN` if not stated.
        faceless: (n,) int64 frames without a face among them; `UNKNOWN` if not stated.

    Raises:
        PainseqError: lengths that differ, an empty or repeated clip id, or an infinite number.
    """

    scale: str
    clip_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    truth: NDArray[np.float64]
    value: NDArray[np.float64]
    frames: NDArray[np.int64]
    faceless: NDArray[np.int64]

    def __post_init__(self) -> None:
        n = len(self.clip_ids)
        if not self.scale or self.scale != self.scale.strip():
            raise PainseqError(f"The scale's name {self.scale!r} is empty or has blanks around it.")
        for name in ("subject_ids", "truth", "value", "frames", "faceless"):
            found = len(getattr(self, name))
            if found != n:
                raise PainseqError(f"Predictions: {name} has {found} entries; there are {n} clips.")
        for name in ("truth", "value"):
            if np.isinf(getattr(self, name)).any():
                raise PainseqError(f"Predictions: {name} has an infinite number.")
        check_ids(self.clip_ids, self.subject_ids)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """(n,) bool: clips without a known truth."""
        hidden: NDArray[np.bool_] = np.isnan(self.truth)
        return hidden

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(n,) bool: clips with a prediction."""
        predicted: NDArray[np.bool_] = ~np.isnan(self.value)
        return predicted

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(n,) bool: clips with both a truth and a prediction; only these are scored."""
        return self.predicted & ~self.hidden

    def only(self, indices: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> ValuePredictions:
        """Select clips by index, in this order, or by a (n,) bool mask."""
        chosen = np.arange(len(self))[np.asarray(indices)] if len(indices) else np.empty(0, np.int64)
        return dataclasses.replace(
            self,
            clip_ids=tuple(self.clip_ids[i] for i in chosen),
            subject_ids=tuple(self.subject_ids[i] for i in chosen),
            truth=self.truth[chosen],
            value=self.value[chosen],
            frames=self.frames[chosen],
            faceless=self.faceless[chosen],
        )

    def with_truth(self, truth: Mapping[str, str]) -> ValuePredictions:
        """Fill in the truth.

        Args:
            truth: clip id -> number, as text; other clips are ignored.

        Raises:
            PainseqError: a clip is not in `truth`, a truth is not a number, or contradicts the existing one.
        """
        filled = self.truth.copy()
        for row, clip_id in enumerate(self.clip_ids):
            if clip_id not in truth:
                raise PainseqError(f"The truth lacks clip {clip_id!r}. Clip ids must be the same in both files.")
            try:
                filled[row] = float(truth[clip_id])
            except ValueError as error:
                raise PainseqError(f"The truth of {clip_id} is {truth[clip_id]!r}; it must be a number.") from error
            if not np.isnan(self.truth[row]) and self.truth[row] != filled[row]:
                raise PainseqError(
                    f"Clip {clip_id!r}: its truth is {self.truth[row]:g} in the predictions, but {filled[row]:g} in "
                    "the truth file. One of the two belongs to other data."
                )
        return dataclasses.replace(self, truth=filled)

    def write_csv(self, path: Path) -> None:
        """Write one row per clip: clip_id, subject_id, truth, value_<scale>, frames, faceless; empty if unknown."""
        rows: list[list[object]] = [["clip_id", "subject_id", "truth", VALUE_COLUMN + self.scale, "frames", "faceless"]]
        for row in range(len(self)):
            numbers = ("" if np.isnan(cell) else repr(float(cell)) for cell in (self.truth[row], self.value[row]))
            counts = ("" if cell == UNKNOWN else int(cell) for cell in (self.frames[row], self.faceless[row]))
            rows.append([self.clip_ids[row], self.subject_ids[row], *numbers, *counts])
        write_csv(path, rows)


def holds_values(path: Path) -> bool:
    """Whether a predictions file has values on a scale, in a column that begins with value_.

    Raises:
        PainseqError: no such file, or not a CSV file.
    """
    if not path.is_file():
        raise PainseqError(f"No predictions at {path}.")
    _, columns = read_rows(path, set())
    return any(name.startswith(VALUE_COLUMN) for name in columns)


def read_value_predictions(path: Path) -> ValuePredictions:
    """Read a CSV of values on a scale, written by `ValuePredictions.write_csv` or another program.

    Required columns: clip_id, subject_id, and one that begins with value_. Without `truth` every truth is hidden;
    without frames or faceless these counts are unknown. Other columns are ignored.

    Raises:
        PainseqError: no such file, a missing column, a repeated clip or an invalid number, with its line.
    """
    if not path.is_file():
        raise PainseqError(f"No predictions at {path}.")
    rows, columns = read_rows(path, {"clip_id", "subject_id"})
    value_columns = [name for name in columns if name.startswith(VALUE_COLUMN)]
    if len(value_columns) != 1:
        raise PainseqError(
            f"{path} must have one column {VALUE_COLUMN}<scale>, such as {VALUE_COLUMN}pspi; found: "
            f"{', '.join(value_columns) or 'none'}. Columns: {', '.join(columns)}."
        )
    n = len(rows)
    truth, value = np.full(n, np.nan), np.full(n, np.nan)
    frames, faceless = np.full(n, UNKNOWN, np.int64), np.full(n, UNKNOWN, np.int64)
    seen: dict[str, int] = {}
    for i, (line, row) in enumerate(rows):
        try:
            check_new(row, line, seen)
            truth[i], value[i] = numbers_in(row, ["truth", value_columns[0]])
            frames[i], faceless[i] = count_in(row, "frames"), count_in(row, "faceless")
        except PainseqError as error:
            raise PainseqError(f"{path}, line {line}: {error}") from error
    return ValuePredictions(
        scale=value_columns[0].removeprefix(VALUE_COLUMN),
        clip_ids=tuple(row["clip_id"] for _, row in rows),
        subject_ids=tuple(row["subject_id"] for _, row in rows),
        truth=truth,
        value=value,
        frames=frames,
        faceless=faceless,
    )
