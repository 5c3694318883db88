"""What a model said about each clip, and the CSV file that keeps it."""

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

PREDICTIONS_FILE = "predictions.csv"
"""How painseq calls a file of predictions; its folder then tells which."""

SUM_TOLERANCE = 0.02
"""How far a row of probabilities may be from 1: files rounded to two decimals still pass."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one model for n clips and K classes.

    Args:
        class_names: the K classes in order of pain.
        clip_ids: n names, each once.
        subject_ids: n names; whom the clip shows.
        truth: (n,) int64 class index, `UNKNOWN` where the label is hidden.
        label: (n,) int64 class index, `UNKNOWN` where there is no prediction (no frame with a face).
        probabilities: (n, K) float64 rows that sum to 1; a row of NaN where there is no prediction, or where
            only the label is known.
        frames: (n,) int64 frames looked at, those without a face included.
        faceless: (n,) int64 frames without a face among them.
        votes: (n, K) float64 shares of the frames' votes, NaN where there is none; None for video heads.
        order_known: false where the classes' order was not stated but is alphabetical, so that nothing that
            depends on it (quadratic-weighted kappa) can be told.

    Raises:
        PainseqError: lengths that differ, an index out of range, a clip twice, probabilities that are none.
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
                raise PainseqError(f"Predictions: {name} holds an index outside -1..{k - 1}: the classes are {k}.")
        check_ids(self.clip_ids, self.subject_ids)
        for row, clip_id in enumerate(self.clip_ids):
            problem = _problem(int(self.label[row]), self.probabilities[row])
            if problem:
                raise PainseqError(f"Predictions: clip {clip_id!r}: {problem}")

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """(n,) bool: clips whose truth is not known."""
        hidden: NDArray[np.bool_] = self.truth == UNKNOWN
        return hidden

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(n,) bool: clips with a prediction."""
        predicted: NDArray[np.bool_] = self.label != UNKNOWN
        return predicted

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(n,) bool: clips with both a truth and a prediction; no other clip enters a score."""
        return self.predicted & ~self.hidden

    def only(self, indices: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> Predictions:
        """These clips alone, in this order; a (n,) bool mask is taken too."""
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
        """The same predictions with the truth filled in from class names by clip id.

        Truth of further clips is passed over, since it often covers a whole data set.

        Raises:
            PainseqError: a clip that `truth` does not hold, an unknown class, or a truth that contradicts the
                one already here.
        """
        missing = [clip_id for clip_id in self.clip_ids if clip_id not in truth]
        if missing:
            raise PainseqError(
                f"The truth lacks {len(missing)} of the {len(self)} predicted clips, the first is {missing[0]!r}. "
                "Clip ids must be the same in both files."
            )
        filled = np.empty(len(self), np.int64)
        for row, clip_id in enumerate(self.clip_ids):
            name = truth[clip_id]
            filled[row] = _index(name, self.class_names, f"the truth of clip {clip_id!r}")
            if self.truth[row] not in (UNKNOWN, filled[row]):
                raise PainseqError(
                    f"Clip {clip_id!r}: the predictions give {self.class_names[self.truth[row]]!r} as its truth, the "
                    f"truth file {name!r}. One of the two belongs to other data."
                )
        return dataclasses.replace(self, truth=filled)

    def write_csv(self, path: Path) -> None:
        """One row a clip: clip_id, subject_id, truth, label, prob_<class>, vote_<class>, frames, faceless.

        Classes by name; an empty truth is a hidden one, an empty label no prediction. `read_predictions` gives
        back the same values, to the last digit.

        Labels alone, of classes without a known order, get no prob_<class>: their columns would state an order.
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


def joined(several: Sequence[Predictions]) -> Predictions:
    """Predictions of folds, whose clips are all different, as one."""
    first = several[0]
    return dataclasses.replace(
        first,
        clip_ids=tuple(clip_id for each in several for clip_id in each.clip_ids),
        subject_ids=tuple(subject_id for each in several for subject_id in each.subject_ids),
        truth=np.concatenate([each.truth for each in several]),
        label=np.concatenate([each.label for each in several]),
        probabilities=np.concatenate([each.probabilities for each in several]),
        frames=np.concatenate([each.frames for each in several]),
        faceless=np.concatenate([each.faceless for each in several]),
        votes=None
        if first.votes is None
        else np.concatenate([each.votes for each in several if each.votes is not None]),
    )


def model_name(path: Path) -> str:
    """What the predictions of a file are called in tables: by the file, but `predictions.csv` by its folder."""
    return path.resolve().parent.name if path.name == PREDICTIONS_FILE else path.stem


def read_predictions(path: Path, class_names: Sequence[str] | None = None) -> Predictions:
    """Read a predictions CSV, painseq's own or another's.

    Required columns: clip_id, subject_id, label. A file without `truth` has every truth hidden; without
    prob_<class> every probability is NaN; without frames or faceless these counts are unknown. Other columns are
    passed over.

    Args:
        path: the file.
        class_names: the classes in order of pain. Without it they are those of the prob_<class> columns, in
            the columns' order, or else the labels and truths found: sorted as numbers if all are numbers, and
            otherwise by the alphabet, with `order_known` false.

    Raises:
        PainseqError: no such file, a missing column, an unknown class, a clip twice or a bad value, with its line.
    """
    if not path.is_file():
        raise PainseqError(f"No predictions at {path}.")
    rows, columns = read_rows(path, {"clip_id", "subject_id", "label"})
    in_columns = tuple(name.removeprefix("prob_") for name in columns if name.startswith("prob_"))
    order_known = True
    if class_names is not None:
        names = tuple(class_names)
        if in_columns and sorted(in_columns) != sorted(names):
            raise PainseqError(
                f"{path}: its probabilities are of {', '.join(in_columns)}; the classes given are {', '.join(names)}."
            )
    elif in_columns:
        names = in_columns
    else:
        names, order_known = _names_found(rows)
        if len(names) < 2:
            raise PainseqError(
                f"{path}: no prob_<class> columns, and the labels found are {', '.join(names) or 'none'}: the "
                "classes cannot be told. Give the class names, in order of pain."
            )
    _check_names(names)
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


def read_truth(path: Path) -> dict[str, str]:
    """Class names by clip id from a CSV with the columns clip_id and truth (or label, where there is no truth).

    A manifest with labels in the experiment's classes fits as it is.

    Raises:
        PainseqError: no such file, a missing column, a clip twice or an empty truth, with its line.
    """
    if not path.is_file():
        raise PainseqError(f"No truth at {path}.")
    rows, columns = read_rows(path, {"clip_id"})
    column = "truth" if "truth" in columns else "label"
    if column not in columns:
        raise PainseqError(f"{path}: neither a column truth nor label. Columns found: {', '.join(columns)}.")
    truth: dict[str, str] = {}
    for line, row in rows:
        clip_id, name = row["clip_id"], row[column].strip()
        if clip_id in truth:
            raise PainseqError(f"{path}, line {line}: clip {clip_id!r} appears twice.")
        if not name:
            raise PainseqError(f"{path}, line {line}: clip {clip_id!r} has an empty {column}.")
        truth[clip_id] = name
    return truth


def _names_found(rows: Sequence[tuple[int, Mapping[str, str]]]) -> tuple[tuple[str, ...], bool]:
    """Class names among labels and truths, and whether their order is known."""
    found = {row[column].strip() for _, row in rows for column in ("truth", "label") if column in row} - {""}
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=int)), True
    return tuple(sorted(found)), False


def _check_names(names: Sequence[str]) -> None:
    if not names or len(set(names)) != len(names):
        raise PainseqError(f"Class names must be given, each once; they are: {', '.join(names) or 'none'}.")
    for name in names:
        if not name or name != name.strip():
            raise PainseqError(f"Class name {name!r} is empty or has blanks around it.")


def _index(name: str, names: Sequence[str], what: str) -> int:
    if name.strip() not in names:
        raise PainseqError(f"{what} is {name.strip()!r}, which is none of the classes {', '.join(names)}.")
    return list(names).index(name.strip())


def _optional_index(cell: str, names: Sequence[str], what: str) -> int:
    return _index(cell, names, what) if cell.strip() else UNKNOWN


def _problem(label: int, probabilities: NDArray[np.float64]) -> str | None:
    """What is wrong with the prediction of one clip, if anything."""
    unknown = np.isnan(probabilities)
    if unknown.all():
        return None
    shown = ", ".join(f"{value:g}" for value in probabilities)
    if label == UNKNOWN:
        return f"probabilities ({shown}) but no label. A clip without a prediction has neither."
    if unknown.any():
        return f"a probability is missing or not a number: {shown}."
    # A mean of softmax rows in float32 can exceed 1 in its last digit.
    if probabilities.min() < -1e-6 or probabilities.max() > 1 + 1e-6:
        return f"a probability is outside 0..1: {shown}."
    if abs(probabilities.sum() - 1) > SUM_TOLERANCE:
        return f"the probabilities ({shown}) sum to {probabilities.sum():g}, not to 1."
    return None
