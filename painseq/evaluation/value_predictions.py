"""Predictions of values on a scale, such as PSPI or VAS, and their CSV file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError, first_few
from painseq.evaluation.rows import check_ids, read_columns
from painseq.files import write_csv
from painseq.records import UNKNOWN
from painseq.tables import read_table

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
        columns: dict[str, Sequence[object]] = {"clip_id": self.clip_ids, "subject_id": self.subject_ids}
        for name, numbers in (("truth", self.truth), (VALUE_COLUMN + self.scale, self.value)):
            columns[name] = ["" if number != number else number for number in numbers.tolist()]
        for name, counts in (("frames", self.frames), ("faceless", self.faceless)):
            columns[name] = ["" if count == UNKNOWN else count for count in counts.tolist()]
        write_csv(path, chain([columns], zip(*columns.values(), strict=True)))


def holds_values(path: Path) -> bool:
    """Whether a predictions file has values on a scale, in a column that begins with value_.

    Raises:
        PainseqError: no such file, or not a CSV file.
    """
    if not path.is_file():
        raise PainseqError(f"No predictions at {path}.")
    return any(name.startswith(VALUE_COLUMN) for name in read_table(path)[0])


def read_value_predictions(path: Path) -> ValuePredictions:
    """Read a CSV of values on a scale, written by `ValuePredictions.write_csv` or another program.

    Required columns: clip_id, subject_id, and one that begins with value_. Without `truth` every truth is hidden;
    without frames or faceless these counts are unknown. Other columns are ignored.

    Raises:
        PainseqError: no such file, a missing column, a repeated clip or an invalid number, with its line.
    """
    if not path.is_file():
        raise PainseqError(f"No predictions at {path}.")
    read = {"truth", "frames", "faceless"}
    table = read_columns(path, {"clip_id", "subject_id"}, lambda name: name in read or name.startswith(VALUE_COLUMN))
    value_columns = [name for name in table.cells if name.startswith(VALUE_COLUMN)]
    if len(value_columns) != 1:
        raise PainseqError(
            f"{path} must have one column {VALUE_COLUMN}<scale>, such as {VALUE_COLUMN}pspi; found: "
            f"{first_few(value_columns) or 'none'}. Columns: {first_few(table.names)}."
        )
    table.check_clips()
    return ValuePredictions(
        scale=value_columns[0].removeprefix(VALUE_COLUMN),
        clip_ids=tuple(table.cells["clip_id"]),
        subject_ids=tuple(table.cells["subject_id"]),
        truth=table.numbers("truth"),
        value=table.numbers(value_columns[0]),
        frames=table.counts("frames"),
        faceless=table.counts("faceless"),
    )
