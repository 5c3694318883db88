"""Challenge submissions: write test predictions as a CSV, and check such files."""

from __future__ import annotations

import csv
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from painseq.data.labels import label_scheme
from painseq.errors import PainseqError, first_few
from painseq.evaluation import Predictions, read_predictions
from painseq.evaluation.predictions import SUM_TOLERANCE
from painseq.evaluation.value_predictions import holds_values
from painseq.files import write_csv

log = logging.getLogger("painseq")

NAMED_AT_MOST = 10


@dataclass(frozen=True)
class SubmissionFormat:
    """Format of a challenge's CSV: one row per item, with the columns in this order.

    Args:
        labels: class -> label in the file, in order of pain.
        id_column: name of the item column.
        label_column: name of the label column.
        probabilities: whether to append a column prob_<label> for each class.
    """

    labels: Mapping[str, str]
    id_column: str = "item"
    label_column: str = "label"
    probabilities: bool = False

    def __post_init__(self) -> None:
        repeated = [name for name, count in Counter(self.columns).items() if count > 1]
        if repeated or not all(self.columns):
            raise PainseqError(f"Columns of a submission must have different names: {first_few(self.columns)}.")
        if len(set(self.labels.values())) < len(self.labels) or not all(self.labels.values()):
            raise PainseqError(f"labels must be different and not empty: {first_few(self.labels.values())}.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the file."""
        probabilities = [f"prob_{label}" for label in self.labels.values()] if self.probabilities else []
        return (self.id_column, self.label_column, *probabilities)


def native_labels(dataset: str, scheme: str) -> dict[str, str]:
    """Return class -> native label of the data set.

    Raises:
        PainseqError: see `painseq.data_modules.facts_of` and `painseq.data.labels.label_scheme`.
    """
    # Data modules load torch, which is not needed for a submission with given label names.
    from painseq.data_modules import facts_of

    chosen = label_scheme(dataset, scheme, facts_of(dataset))
    if chosen.predicts_values:
        raise PainseqError(
            f"Label scheme {scheme!r} is a scale, but a submission needs classes. Choose a scheme with classes."
        )
    return {name: chosen.native(name) for name in chosen.class_names}


def read_class_predictions(path: str | Path) -> Predictions:
    """Read predictions of classes from a file.

    Raises:
        PainseqError: the file holds values on a scale; see `painseq.evaluation.read_predictions`.
    """
    path = Path(path)
    if holds_values(path):
        raise PainseqError(f"{path} holds values on a scale, but a submission needs classes.")
    return read_predictions(path)


def read_items(path: str | Path, id_column: str = "item") -> dict[str, str]:
    """Read clip id -> name of the item in the submission, in the order of the file.

    The columns are clip_id, or `id_column`, or both if the challenge uses other names than clip ids. If a column `part`
    marks the test part, as in a manifest, other rows are ignored.

    Raises:
        PainseqError: no such file, neither column, an empty cell, a repeated item, with its line.
    """
    path = Path(path)
    rows, columns = _read_rows(path)
    columns = [name.strip() for name in columns]
    id_columns = [column for column in ("clip_id", id_column) if column in columns]
    if not id_columns:
        raise PainseqError(f"{path}: no column clip_id or {id_column}. Columns found: {first_few(columns) or 'none'}.")
    with_parts = "part" in columns and any(_cells(columns, row).get("part") == "test" for _, row in rows)
    items: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        cells = _cells(columns, row)
        if with_parts and cells.get("part") != "test":
            continue
        clip_id, item = cells.get(id_columns[0], ""), cells.get(id_columns[-1], "")
        if not clip_id or not item:
            raise PainseqError(f"{path}, line {line}: an empty {' or '.join(id_columns)}.")
        # Neither a clip nor an item may be repeated.
        for key in {f"{id_columns[0]} {clip_id}", f"{id_columns[-1]} {item}"}:
            if key in lines:
                raise PainseqError(f"{path}, line {line}: {key} is already in line {lines[key]}.")
            lines[key] = line
        items[clip_id] = item
    if not items:
        raise PainseqError(f"{path} has no items.")
    return items


def write_submission(
    predictions: Predictions,
    out: str | Path,
    layout: SubmissionFormat,
    fill: str | None = None,
    items: Mapping[str, str] | None = None,
) -> int:
    """Write a submission with one row per item.

    Args:
        predictions: predictions of the test part.
        out: CSV to write.
        layout: columns and labels.
        fill: class of items without a prediction, with probability 1; None: such items are an error.
        items: clip id -> item, all required items in the order of the rows; see `read_items`. None: the predicted
            clips, in their order.

    Returns:
        Number of rows.

    Raises:
        PainseqError: an item without a prediction and no `fill`; a prediction that is not of an item; other classes
            than the layout's; missing probabilities; no such folder.

    Example:
        >>> predictions = read_predictions(Path("runs/lstm_test/predictions.csv"))
        >>> layout = SubmissionFormat(native_labels("ai4pain", "three"))
        >>> write_submission(predictions, Path("submission.csv"), layout, fill="no_pain")
    """
    out = Path(out)
    place = {clip_id: row for row, clip_id in enumerate(predictions.clip_ids)}
    if items is None:
        items = {clip_id: clip_id for clip_id in place}
    _check_fits(predictions, layout, fill, items)
    unpredicted = {
        clip_id: item
        for clip_id, item in items.items()
        if clip_id not in place or predictions.label[place[clip_id]] < 0
    }
    if unpredicted and fill is None:
        raise PainseqError(
            f"{len(unpredicted)} clips have no prediction, such as {next(iter(unpredicted))!r} (unreadable, or no face "
            "found). A submission needs a label for each. Set fill to the class for them (command line: --fill CLASS)."
        )
    rows: list[Sequence[object]] = [layout.columns]
    for clip_id, item in items.items():
        row = None if clip_id in unpredicted else place[clip_id]
        rows.append([item, *_cells_of(predictions, row, layout, fill)])
    try:
        write_csv(out, rows)
    except OSError as error:
        raise PainseqError(f"{out} cannot be written: {error}.") from error
    if unpredicted:
        log.warning("%d items without a prediction are labelled %s.", len(unpredicted), layout.labels[str(fill)])
    return len(items)


def _check_fits(predictions: Predictions, layout: SubmissionFormat, fill: str | None, items: Mapping[str, str]) -> None:
    if sorted(predictions.class_names) != sorted(layout.labels):
        raise PainseqError(
            f"The predictions have the classes {first_few(predictions.class_names)}, but the layout has labels for "
            f"{first_few(layout.labels)}. Set labels to those of the model's scheme and data set, or to other names "
            "for each class (command line: --labels and --dataset, or --label-names CLASS=NAME ...)."
        )
    if fill is not None and fill not in layout.labels:
        raise PainseqError(f"fill is {fill!r}, which is not a class; classes are {first_few(predictions.class_names)}.")
    foreign = [clip_id for clip_id in predictions.clip_ids if clip_id not in items]
    if foreign:
        raise PainseqError(
            f"{len(foreign)} predictions are not of an item, such as {foreign[0]!r}. Give only predictions of the test "
            "part, and all its items."
        )


def _cells_of(predictions: Predictions, row: int | None, layout: SubmissionFormat, fill: str | None) -> list[object]:
    """Return the label, and the probabilities if the layout has them, of a row; None: of a filled item."""
    if row is None:
        name, probabilities = str(fill), {other: float(other == fill) for other in layout.labels}
    else:
        name = predictions.class_names[predictions.label[row]]
        probabilities = dict(zip(predictions.class_names, predictions.probabilities[row].tolist(), strict=True))
        if layout.probabilities and any(map(math.isnan, probabilities.values())):
            raise PainseqError(
                f"The predictions have no probabilities for clip {predictions.clip_ids[row]!r}. Omit probabilities "
                "from "
                "the layout (command line: --probabilities)."
            )
    return [layout.labels[name], *([probabilities[other] for other in layout.labels] if layout.probabilities else [])]


def check_submission(path: str | Path, layout: SubmissionFormat, items: Collection[str] | None = None) -> list[str]:
    """Return all problems of a submission at once, one sentence per kind; empty if there are none.

    Args:
        items: all required items; None if they are unknown.

    Raises:
        PainseqError: no such file, or not a CSV file in UTF-8.
    """
    rows, columns = _read_rows(path)
    problems = []
    blank = [line for line, row in ((1, columns), *rows) if any(cell != cell.strip() for cell in row)]
    if blank:
        problems.append(f"blanks before or after a cell ({listed([f'line {line}' for line in blank])}).")
    columns = [name.strip() for name in columns]
    if tuple(columns) != layout.columns:
        problems.append(f"the columns are {first_few(columns) or 'none'}; expected: {first_few(layout.columns)}.")
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated or layout.id_column not in columns:
        return problems
    if not rows:
        problems.append("no row after the first line.")

    wrong: defaultdict[str, list[str]] = defaultdict(list)
    seen: dict[str, int] = {}
    known = None if items is None else set(items)
    labels = first_few(layout.labels.values())
    for line, row in rows:
        if len(row) != len(columns):
            wrong[f"not {len(columns)} cells, as in the first line"].append(f"line {line}")
        cells = _cells(columns, row)
        for column in columns:
            if column in layout.columns and not cells.get(column):
                wrong[f"an empty {column}"].append(f"line {line}")
        item, label = cells.get(layout.id_column), cells.get(layout.label_column)
        if item and item in seen:
            wrong["repeated items"].append(f"{item} in lines {seen[item]} and {line}")
        elif item:
            seen[item] = line
            if known is not None and item not in known:
                wrong["unknown items"].append(f"{item} in line {line}")
        if label and label not in layout.labels.values():
            wrong[f"labels that are not one of {labels}"].append(f"{label!r} in line {line}")
        if layout.probabilities and (problem := _of_probabilities([cells.get(name) for name in layout.columns[2:]])):
            wrong[problem].append(f"line {line}")
    missing = [item for item in items or () if item not in seen]
    if missing:
        wrong["missing items"] = missing
    return problems + [f"{problem} ({len(places)}): {listed(places)}." for problem, places in wrong.items()]


def lines_with_other_labels(path: str | Path, layout: SubmissionFormat) -> list[int]:
    """Return the lines of a valid submission whose label is not the class with the highest probability.

    This is not a problem by itself: the label of a frame head is the majority vote of frames, and a tuned threshold
    differs from 0.5.
    """
    rows, columns = _read_rows(path)
    lines = []
    for line, row in rows:
        cells = _cells(columns, row)
        probabilities = {label: float(cells[f"prob_{label}"]) for label in layout.labels.values()}
        if probabilities[cells[layout.label_column]] < max(probabilities.values()) - SUM_TOLERANCE:
            lines.append(line)
    return lines


def _of_probabilities(cells: Sequence[str | None]) -> str | None:
    """Return the problem of the probabilities of one row, if any; empty cells are reported elsewhere."""
    if not all(cells):
        return None
    try:
        values = [float(cell) for cell in cells if cell]
    except ValueError:
        return "a probability that is not a number"
    if not all(-1e-6 <= value <= 1 + 1e-6 for value in values):
        return "a probability outside 0..1"
    return None if abs(sum(values) - 1) <= SUM_TOLERANCE else "probabilities that do not sum to 1"


def listed(places: Sequence[str]) -> str:
    """Join the first `NAMED_AT_MOST` places, and the number of others."""
    return first_few(places, NAMED_AT_MOST, "; ")


def _read_rows(path: str | Path) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Read the rows that are not blank, with their line numbers, and the first line."""
    path = Path(path)
    if not path.is_file():
        raise PainseqError(f"No file at {path}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = next(reader, [])
            return [(reader.line_num, row) for row in reader if row], columns
    except (UnicodeDecodeError, csv.Error) as error:
        raise PainseqError(f"{path} cannot be read as a CSV file in UTF-8: {error}.") from error


def _cells(columns: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    return {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
