"""Predictions of classes for clips, and their CSV file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError, first_few
from painseq.evaluation.rows import Columns, check_ids, read_columns
from painseq.files import write_csv
from painseq.records import UNKNOWN

PREDICTIONS_FILE = "predictions.csv"
"""Name of painseq's predictions files; the folder's name then identifies the model."""

TUNED = "tuned_threshold"
"""Column of the tuned threshold in the file."""

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
        threshold: (n,) float64 tuned threshold from which on the second class's probability gives its label, if there
            are two classes; NaN where none applies. None: none applies to any clip. It is one of the probabilities
            before a stated mix of classes.
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
    threshold: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        n, k = len(self.clip_ids), len(self.class_names)
        _check_names(self.class_names)
        shapes = {
            "subject_ids": ((len(self.subject_ids),), (n,)),
            "truth": (self.truth.shape, (n,)),
            "label": (self.label.shape, (n,)),
            "probabilities": (self.probabilities.shape, (n, k)),
            "votes": ((n, k) if self.votes is None else self.votes.shape, (n, k)),
            "threshold": ((n,) if self.threshold is None else self.threshold.shape, (n,)),
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
        row = _first_wrong(self.label, self.probabilities)
        if row is not None:
            problem = _problem(int(self.label[row]), self.probabilities[row])
            raise PainseqError(f"Predictions: clip {self.clip_ids[row]!r}: {problem}")

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
            threshold=None if self.threshold is None else self.threshold[chosen],
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
        place = {name: index for index, name in enumerate(self.class_names)}
        filled = np.array([place.get(truth[clip_id].strip(), UNKNOWN) for clip_id in self.clip_ids], np.int64)
        if (filled == UNKNOWN).any():
            clip_id = self.clip_ids[int((filled == UNKNOWN).argmax())]
            raise PainseqError(
                f"The truth of clip {clip_id!r} is {truth[clip_id].strip()!r}, which is not one of the classes "
                f"{first_few(self.class_names)}."
            )
        contradicts = ~self.hidden & (self.truth != filled)
        if contradicts.any():
            row = int(contradicts.argmax())
            raise PainseqError(
                f"Clip {self.clip_ids[row]!r}: its truth is {self._name(self.truth[row])!r} in the predictions, but "
                f"{self._name(filled[row])!r} in the truth file. One of the two belongs to other data."
            )
        return dataclasses.replace(self, truth=filled)

    def write_csv(self, path: Path) -> None:
        """Write one row per clip: clip_id, subject_id, truth, label, prob_<class>, vote_<class>, frames, faceless.

        A tuned threshold is written as a further column, tuned_threshold, in front of frames.

        Classes are written by name. An empty truth is hidden; an empty label is no prediction. `read_predictions`
        restores the same values exactly. Labels without probabilities, of classes without a known order, get no
        prob_<class> columns, since these would state an order.
        """
        stated = self.order_known or not np.isnan(self.probabilities).all()
        columns: dict[str, Sequence[object]] = {"clip_id": self.clip_ids, "subject_id": self.subject_ids}
        columns["truth"], columns["label"] = ([self._name(i) for i in indices] for indices in (self.truth, self.label))
        for prefix, shares in (("prob_", self.probabilities if stated else None), ("vote_", self.votes)):
            if shares is not None:
                for name, values in zip(self.class_names, shares.T.tolist(), strict=True):
                    columns[prefix + name] = ["" if value != value else value for value in values]
        if self.threshold is not None:
            columns[TUNED] = ["" if value != value else value for value in self.threshold.tolist()]
        for name, counts in (("frames", self.frames), ("faceless", self.faceless)):
            columns[name] = ["" if count == UNKNOWN else count for count in counts.tolist()]
        write_csv(path, chain([columns], zip(*columns.values(), strict=True)))

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
        threshold=None
        if first.threshold is None
        else np.concatenate([fold.threshold for fold in folds if fold.threshold is not None]),
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
    read = {"truth", "frames", "faceless", TUNED}
    table = read_columns(
        path, {"clip_id", "subject_id", "label"}, lambda name: name in read or name.startswith(("prob_", "vote_"))
    )
    names, order_known = _class_names(table, class_names)
    table.check_clips()
    truth, label = table.indices("truth", names), table.indices("label", names)
    probabilities, votes = (
        np.stack([table.numbers(prefix + name) for name in names], axis=1) for prefix in ("prob_", "vote_")
    )
    row = _first_wrong(label, probabilities)
    if row is not None:
        raise table.error(row, str(_problem(int(label[row]), probabilities[row])))
    return Predictions(
        class_names=names,
        clip_ids=tuple(table.cells["clip_id"]),
        subject_ids=tuple(table.cells["subject_id"]),
        truth=truth,
        label=label,
        probabilities=probabilities,
        frames=table.counts("frames"),
        faceless=table.counts("faceless"),
        votes=votes if any(f"vote_{name}" in table.cells for name in names) else None,
        order_known=order_known,
        threshold=table.numbers(TUNED) if TUNED in table.cells and len(names) == 2 else None,
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
    table = read_columns(path, {"clip_id"}, lambda name: name in ("truth", "label"))
    column = "truth" if "truth" in table.cells else "label"
    if column not in table.cells:
        raise PainseqError(f"{path} has no column truth or label. Columns found: {first_few(table.names)}.")
    truth: dict[str, str] = {}
    for row, (clip_id, cell) in enumerate(zip(table.cells["clip_id"], table.cells[column], strict=True)):
        if clip_id in truth:
            raise table.error(row, f"clip {clip_id!r} appears more than once.")
        if not cell.strip():
            raise table.error(row, f"clip {clip_id!r} has an empty {column}.")
        truth[clip_id] = cell.strip()
    return truth


def _class_names(table: Columns, given: Sequence[str] | None) -> tuple[tuple[str, ...], bool]:
    """Names of the classes of a predictions file, and whether their order is known; see `read_predictions`."""
    in_columns = tuple(name.removeprefix("prob_") for name in table.names if name.startswith("prob_"))
    order_known = True
    if given is not None:
        names = tuple(given)
        if in_columns and sorted(in_columns) != sorted(names):
            raise PainseqError(
                f"{table.path} has probabilities of the classes {first_few(in_columns)}, but class_names is "
                f"{first_few(names)}. Give the same classes."
            )
    elif in_columns:
        names = in_columns
    else:
        names, order_known = _names_found(table)
        if len(names) < 2:
            raise PainseqError(
                f"{table.path} has no prob_<class> columns, and the labels found are {first_few(names) or 'none'}, so "
                "the classes are not known. Give the class names, in order of pain."
            )
    _check_names(names)
    return names, order_known


def _names_found(table: Columns) -> tuple[tuple[str, ...], bool]:
    """Class names among labels and truths, and whether their order is known."""
    cells = set().union(*(table.cells.get(column, ()) for column in ("truth", "label")))
    found = {cell.strip() for cell in cells} - {""}
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=int)), True
    return tuple(sorted(found)), False


def _check_names(names: Sequence[str]) -> None:
    if not names or len(set(names)) != len(names):
        raise PainseqError(f"Class names must be given and unique; they are: {first_few(names) or 'none'}.")
    for name in names:
        if not name or name != name.strip():
            raise PainseqError(f"Class name {name!r} is empty or has blanks around it.")


def _first_wrong(label: NDArray[np.int64], probabilities: NDArray[np.float64]) -> int | None:
    """Index of the first clip for which `_problem` has a text; None without one."""
    unknown = np.isnan(probabilities)
    # Unknown probabilities have any sum: they are wrong or right by themselves.
    known = np.where(unknown, 0, probabilities)
    wrong = (
        (label == UNKNOWN)
        | unknown.any(axis=1)
        | (known < -1e-6).any(axis=1)
        | (known > 1 + 1e-6).any(axis=1)
        | (np.abs(known.sum(axis=1) - 1) > SUM_TOLERANCE)
    ) & ~unknown.all(axis=1)
    return int(wrong.argmax()) if wrong.any() else None


def _problem(label: int, probabilities: NDArray[np.float64]) -> str | None:
    """Describe what is wrong with the prediction of one clip; None if nothing is."""
    unknown = np.isnan(probabilities)
    if unknown.all():
        return None
    shown = first_few([f"{value:g}" for value in probabilities])
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
