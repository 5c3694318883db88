"""What a model of a scale, such as PSPI or VAS, said about each clip, and the CSV file that keeps it."""

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
"""The column of the values is this and the scale's name: so a file tells what its numbers are."""


@dataclass(frozen=True, eq=False)
class ValuePredictions:
    """Predictions of one model for n clips, as numbers on a scale.

    Args:
        scale: what the numbers are, e.g. "pspi".
        clip_ids: n names, each once.
        subject_ids: n names; whom the clip shows.
        truth: (n,) float64, NaN where the label is hidden.
        value: (n,) float64, NaN where there is no prediction (no frame with a face).
        frames: (n,) int64 frames looked at, those without a face included; `UNKNOWN` where that is not told.
        faceless: (n,) int64 frames without a face among them.

    Raises:
        PainseqError: lengths that differ, a clip without a name or twice, a number that is infinite.
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
                raise PainseqError(f"Predictions: {name} holds an infinite number.")
        check_ids(self.clip_ids, self.subject_ids)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """(n,) bool: clips whose truth is not known."""
        hidden: NDArray[np.bool_] = np.isnan(self.truth)
        return hidden

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(n,) bool: clips with a prediction."""
        predicted: NDArray[np.bool_] = ~np.isnan(self.value)
        return predicted

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(n,) bool: clips with both a truth and a prediction; no other clip enters a score."""
        return self.predicted & ~self.hidden

    def only(self, indices: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> ValuePredictions:
        """These clips alone, in this order; a (n,) bool mask is taken too."""
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
        """The same values with the truth filled in from numbers by clip id.

        Raises:
            PainseqError: a clip that `truth` does not hold, a text that is no number, or one that contradicts the
                truth already here.
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
                    f"Clip {clip_id!r}: the predictions give {self.truth[row]:g} as its truth, the truth file "
                    f"{filled[row]:g}. One of the two belongs to other data."
                )
        return dataclasses.replace(self, truth=filled)

    def write_csv(self, path: Path) -> None:
        """One row a clip: clip_id, subject_id, truth, value_<scale>, frames, faceless; an empty cell is unknown."""
        rows: list[list[object]] = [["clip_id", "subject_id", "truth", VALUE_COLUMN + self.scale, "frames", "faceless"]]
        for row in range(len(self)):
            numbers = ("" if np.isnan(cell) else repr(float(cell)) for cell in (self.truth[row], self.value[row]))
            counts = ("" if cell == UNKNOWN else int(cell) for cell in (self.frames[row], self.faceless[row]))
            rows.append([self.clip_ids[row], self.subject_ids[row], *numbers, *counts])
        write_csv(path, rows)


def holds_values(path: Path) -> bool:
    """Whether a predictions file is of values on a scale: it has a column that begins with value_.

    Raises:
        PainseqError: no such file, or none of text.
    """
    if not path.is_file():
        raise PainseqError(f"No predictions at {path}.")
    _, columns = read_rows(path, set())
    return any(name.startswith(VALUE_COLUMN) for name in columns)


def read_value_predictions(path: Path) -> ValuePredictions:
    """Read what `ValuePredictions.write_csv` wrote, or a file of another maker with such columns.

    Required columns: clip_id, subject_id, and one that begins with value_. Without `truth` every truth is hidden;
    without frames or faceless these counts are unknown. Other columns are passed over.

    Raises:
        PainseqError: no such file, a missing column, a clip twice or a bad number, with its line.
    """
    if not path.is_file():
        raise PainseqError(f"No predictions at {path}.")
    rows, columns = read_rows(path, {"clip_id", "subject_id"})
    of_values = [name for name in columns if name.startswith(VALUE_COLUMN)]
    if len(of_values) != 1:
        raise PainseqError(
            f"{path}: one column {VALUE_COLUMN}<scale> is needed, such as {VALUE_COLUMN}pspi; found: "
            f"{', '.join(of_values) or 'none'}. Columns: {', '.join(columns)}."
        )
    n = len(rows)
    truth, value = np.full(n, np.nan), np.full(n, np.nan)
    frames, faceless = np.full(n, UNKNOWN, np.int64), np.full(n, UNKNOWN, np.int64)
    seen: dict[str, int] = {}
    for i, (line, row) in enumerate(rows):
        try:
            check_new(row, line, seen)
            truth[i], value[i] = numbers_in(row, ["truth", of_values[0]])
            frames[i], faceless[i] = count_in(row, "frames"), count_in(row, "faceless")
        except PainseqError as error:
            raise PainseqError(f"{path}, line {line}: {error}") from error
    return ValuePredictions(
        scale=of_values[0].removeprefix(VALUE_COLUMN),
        clip_ids=tuple(row["clip_id"] for _, row in rows),
        subject_ids=tuple(row["subject_id"] for _, row in rows),
        truth=truth,
        value=value,
        frames=frames,
        faceless=faceless,
    )
