"""Predictions of classes for clips, and their CSV file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.evaluation.rows import NumberedRow, check_ids, check_new, count_in, numbers_in, read_rows
from painseq.files import write_csv
from painseq.records import UNKNOWN
from painseq.tables import shown

PREDICTIONS_FILE = "predictions.csv"
"""Name of painseq's predictions files; the folder's name then identifies the model."""

SUM_TOLERANCE = 0.02
"""Largest difference of a row of probabilities from a sum of 1, so that files rounded to two decimals pass."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one model for n clips and K classes.

    Args:
        class_names: the K classes in order of pain.
        clip_ids: n unique ids.
        subject_ids: n ids of the clips' subjects.
        truth: (n,) int64 class index, `UNKNOWN` if the label is hidden.
        label: (n,) int64 class index, `UNKNOWN` without a prediction (no frame with a face).
        probabilities: (n, K) float64 rows that sum to 1; a row of NaN without a prediction, or if only the label is
            known.
        frames: (n,) int64 frames read, including those without a face.
        faceless: (n,) int64 frames without a face among them.
        votes: (n, K) float64 shares of the frames' votes, NaN without a prediction; None for video heads.
        order_known: false if the order of the classes is only alphabetical, so that scores that depend on it
            (quadratic-weighted kappa) are not defined.

    Raises:
        PainseqError: lengths that differ, an index out of range, a repeated clip, or invalid probabilities.
    """

    class_names: tuple[str, ...]
    clip_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    truth: NDArray[np.int64]
    label: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    frames: NDArray[np.int64]
    faceless: NDArray[np.int64]
    votes: NDArray[np.float64] | None = None
    order_known: bool = True

    def __post_init__(self) -> None:
        n, k = len(self.clip_ids), len(self.class_names)
        _check_names(self.class_names)
        shapes = {
            "subject_ids": ((len(self.subject_ids),), (n,)),
            "truth": (self.truth.shape, (n,)),
            "label": (self.label.shape, (n,)),
            "probabilities": (self.probabilities.shape, (n, k)),
            "votes": ((n, k) if self.votes is None else self.votes.shape, (n, k)),
            "frames": (self.frames.shape, (n,)),
            "faceless": (self.faceless.shape, (n,)),
        }
        for name, (found, expected) in shapes.items():
            if found != expected:
                raise PainseqError(f"Predictions: {name} has shape {found}; {n} clips and {k} classes need {expected}.")
        for name, indices in (("truth", self.truth), ("label", self.label)):
            if n and not (indices.min() >= UNKNOWN and indices.max() < k):
                raise PainseqError(f"Predictions: {name} has an index outside -1..{k - 1}: there are {k} classes.")
        check_ids(self.clip_ids, self.subject_ids)
        for row, clip_id in enumerate(self.clip_ids):
            problem = _problem(int(self.label[row]), self.probabilities[row])
            if problem:
                raise PainseqError(f"Predictions: clip {clip_id!r}: {problem}")

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """(n,) bool: clips without a known truth."""
        hidden: NDArray[np.bool_] = self.truth == UNKNOWN
        return hidden

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(n,) bool: clips with a prediction."""
        predicted: NDArray[np.bool_] = self.label != UNKNOWN
        return predicted

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(n,) bool: clips with both a truth and a prediction; only these are scored."""
        return self.predicted & ~self.hidden

    def only(self, indices: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> Predictions:
        """Select clips by index, in this order, or by a (n,) bool mask."""
        chosen = np.arange(len(self))[np.asarray(indices)] if len(indices) else np.empty(0, np.int64)
        return dataclasses.replace(
            self,
            clip_ids=tuple(self.clip_ids[i] for i in chosen),
            subject_ids=tuple(self.subject_ids[i] for i in chosen),
            truth=self.truth[chosen],
            label=self.label[chosen],
            probabilities=self.probabilities[chosen],
            frames=self.frames[chosen],
            faceless=self.faceless[chosen],
            votes=None if self.votes is None else self.votes[chosen],
        )

    def with_truth(self, truth: Mapping[str, str]) -> Predictions:
        """Fill in the truth.

        Args:
            truth: clip id -> class name. Other clips are ignored, as it often covers a whole data set.

        Raises:
            PainseqError: a clip is not in `truth`, an unknown class, or a truth that contradicts the existing one.
        """
        missing = [clip_id for clip_id in self.clip_ids if clip_id not in truth]
        if missing:
            raise PainseqError(
                f"The truth lacks {len(missing)} of the {len(self)} predicted clips; the first is {missing[0]!r}. "
                "Clip ids must be the same in both files."
            )
        filled = np.empty(len(self), np.int64)
        for row, clip_id in enumerate(self.clip_ids):
            name = truth[clip_id]
            filled[row] = _index(name, self.class_names, f"the truth of clip {clip_id!r}")
            if self.truth[row] not in (UNKNOWN, filled[row]):
                raise PainseqError(
                    f"Clip {clip_id!r}: its truth is {self.class_names[self.truth[row]]!r} in the predictions, but "
                    f"{name!r} in the truth file. One of the two belongs to other data."
                )
        return dataclasses.replace(self, truth=filled)

    def write_csv(self, path: Path) -> None:
        """Write one row per clip: clip_id, subject_id, truth, label, prob_<class>, vote_<class>, frames, faceless.

        Classes are written by name. An empty truth is hidden; an empty label is no prediction. `read_predictions`
        restores the same values exactly. Labels without probabilities, of classes without a known order, get no
        prob_<class> columns, since these would state an order.
        """
        stated = self.order_known or not np.isnan(self.probabilities).all()
        vote_names = [f"vote_{name}" for name in self.class_names] if self.votes is not None else []
        prob_names = [f"prob_{name}" for name in self.class_names] if stated else []
        rows: list[list[object]] = [
            ["clip_id", "subject_id", "truth", "label", *prob_names, *vote_names, "frames", "faceless"]
        ]
        for row in range(len(self)):
            votes = [] if self.votes is None else self.votes[row].tolist()
            probabilities = self.probabilities[row].tolist() if stated else []
            rows.append(
                [
                    self.clip_ids[row],
                    self.subject_ids[row],
                    *(self._name(index) for index in (self.truth[row], self.label[row])),
                    *("" if np.isnan(value) else value for value in probabilities),
                    *("" if np.isnan(value) else value for value in votes),
                    *("" if count == UNKNOWN else int(count) for count in (self.frames[row], self.faceless[row])),
                ]
            )
        write_csv(path, rows)

    def _name(self, index: np.int64) -> str:
        return "" if index == UNKNOWN else self.class_names[index]


def joined(folds: Sequence[Predictions]) -> Predictions:
    """Concatenate the predictions of folds, whose clips are all different."""
    first = folds[0]
    return dataclasses.replace(
        first,
        clip_ids=tuple(clip_id for fold in folds for clip_id in fold.clip_ids),
        subject_ids=tuple(subject_id for fold in folds for subject_id in fold.subject_ids),
        truth=np.concatenate([fold.truth for fold in folds]),
        label=np.concatenate([fold.label for fold in folds]),
        probabilities=np.concatenate([fold.probabilities for fold in folds]),
        frames=np.concatenate([fold.frames for fold in folds]),
        faceless=np.concatenate([fold.faceless for fold in folds]),
        votes=None if first.votes is None else np.concatenate([fold.votes for fold in folds if fold.votes is not None]),
    )


def model_name(path: Path) -> str:
    """Name of a predictions file in tables: the file's stem, or the folder's name for `predictions.csv`."""
    return path.resolve().parent.name if path.name == PREDICTIONS_FILE else path.stem


def read_predictions(path: str | Path, class_names: Sequence[str] | None = None) -> Predictions:
    """Read a CSV of predictions, written by painseq or another program.

    Required columns: clip_id, subject_id, label. Without `truth` every truth is hidden; without prob_<class> every
    probability is NaN; without frames or faceless these counts are unknown. Other columns are ignored.

    Args:
        path: the file.
        class_names: the classes in order of pain. None: those of the prob_<class> columns, in the order of the
            columns, or else the labels and truths found, sorted as numbers if all are numbers, otherwise
            alphabetically with `order_known` false.

    Raises:
        PainseqError: no such file, a missing column, an unknown class, a repeated clip or an invalid value, with its
            line.
    """
    path = Path(path)
    if not path.is_file():
        raise PainseqError(f"No predictions at {path}.")
    rows, columns = read_rows(path, {"clip_id", "subject_id", "label"})
    names, order_known = _class_names(path, rows, columns, class_names)
    with_votes = any(f"vote_{name}" in columns for name in names)

    n, k = len(rows), len(names)
    truth, label, frames, faceless = (np.full(n, UNKNOWN, np.int64) for _ in range(4))
    probabilities, votes = np.full((n, k), np.nan), np.full((n, k), np.nan)
    seen: dict[str, int] = {}
    for i, (line, row) in enumerate(rows):
        try:
            check_new(row, line, seen)
            truth[i] = _optional_index(row.get("truth", ""), names, "truth")
            label[i] = _optional_index(row["label"], names, "label")
            probabilities[i] = numbers_in(row, [f"prob_{name}" for name in names])
            votes[i] = numbers_in(row, [f"vote_{name}" for name in names])
            frames[i], faceless[i] = count_in(row, "frames"), count_in(row, "faceless")
            problem = _problem(int(label[i]), probabilities[i])
            if problem:
                raise PainseqError(problem)
        except PainseqError as error:
            raise PainseqError(f"{path}, line {line}: {error}") from error
    return Predictions(
        class_names=names,
        clip_ids=tuple(row["clip_id"] for _, row in rows),
        subject_ids=tuple(row["subject_id"] for _, row in rows),
        truth=truth,
        label=label,
        probabilities=probabilities,
        frames=frames,
        faceless=faceless,
        votes=votes if with_votes else None,
        order_known=order_known,
    )


def read_truth(path: str | Path) -> dict[str, str]:
    """Read class names by clip id from a CSV with the columns clip_id and truth (or label, if there is no truth).

    A manifest with labels in the experiment's classes works too.

    Raises:
        PainseqError: no such file, a missing column, a repeated clip or an empty truth, with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise PainseqError(f"No truth at {path}.")
    rows, columns = read_rows(path, {"clip_id"})
    column = "truth" if "truth" in columns else "label"
    if column not in columns:
        raise PainseqError(f"{path} has no column truth or label. Columns found: {shown(columns)}.")
    truth: dict[str, str] = {}
    for line, row in rows:
        clip_id, name = row["clip_id"], row[column].strip()
        if clip_id in truth:
            raise PainseqError(f"{path}, line {line}: clip {clip_id!r} appears more than once.")
        if not name:
            raise PainseqError(f"{path}, line {line}: clip {clip_id!r} has an empty {column}.")
        truth[clip_id] = name
    return truth


def _class_names(
    path: Path, rows: Sequence[NumberedRow], columns: Sequence[str], given: Sequence[str] | None
) -> tuple[tuple[str, ...], bool]:
    """Names of the classes of a predictions file, and whether their order is known; see `read_predictions`."""
    in_columns = tuple(name.removeprefix("prob_") for name in columns if name.startswith("prob_"))
    order_known = True
    if given is not None:
        names = tuple(given)
        if in_columns and sorted(in_columns) != sorted(names):
            raise PainseqError(
                f"{path} has probabilities of the classes {', '.join(in_columns)}, but class_names is "
                f"{', '.join(names)}. Give the same classes."
            )
    elif in_columns:
        names = in_columns
    else:
        names, order_known = _names_found(rows)
        if len(names) < 2:
            raise PainseqError(
                f"{path} has no prob_<class> columns, and the labels found are {', '.join(names) or 'none'}, so the "
                "classes are not known. Give the class names, in order of pain."
            )
    _check_names(names)
    return names, order_known


def _names_found(rows: Sequence[NumberedRow]) -> tuple[tuple[str, ...], bool]:
    """Class names among labels and truths, and whether their order is known."""
    found = {row[column].strip() for _, row in rows for column in ("truth", "label") if column in row} - {""}
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=int)), True
    return tuple(sorted(found)), False


def _check_names(names: Sequence[str]) -> None:
    if not names or len(set(names)) != len(names):
        raise PainseqError(f"Class names must be given and unique; they are: {', '.join(names) or 'none'}.")
    for name in names:
        if not name or name != name.strip():
            raise PainseqError(f"Class name {name!r} is empty or has blanks around it.")


def _index(name: str, names: Sequence[str], key: str) -> int:
    if name.strip() not in names:
        raise PainseqError(f"{key} is {name.strip()!r}, which is not one of the classes {', '.join(names)}.")
    return list(names).index(name.strip())


def _optional_index(cell: str, names: Sequence[str], key: str) -> int:
    return _index(cell, names, key) if cell.strip() else UNKNOWN


def _problem(label: int, probabilities: NDArray[np.float64]) -> str | None:
    """Describe what is wrong with the prediction of one clip; None if nothing is."""
    unknown = np.isnan(probabilities)
    if unknown.all():
        return None
    shown = ", ".join(f"{value:g}" for value in probabilities)
    if label == UNKNOWN:
        return f"probabilities ({shown}) without a label. A clip without a prediction must have neither."
    if unknown.any():
        return f"a probability is missing or not a number: {shown}."
    # A mean of softmax rows in float32 can exceed 1 in its last digit.
    if probabilities.min() < -1e-6 or probabilities.max() > 1 + 1e-6:
        return f"a probability is outside 0..1: {shown}."
    if abs(probabilities.sum() - 1) > SUM_TOLERANCE:
        return f"the probabilities ({shown}) sum to {probabilities.sum():g}, not to 1."
    return None
