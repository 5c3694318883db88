"""Sex and age of subjects, and the scores of each subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from painseq.errors import PainseqError, first_few
from painseq.evaluation.counts import faceless_share
from painseq.evaluation.metrics import accuracy, balanced_accuracy, confusion_matrix, rows_by_subject
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.rows import read_columns
from painseq.files import write_csv
from painseq.records import SEXES, UNKNOWN, Clip, check_person
from painseq.tables import whole_number


@dataclass(frozen=True)
class Person:
    """Sex and age of a subject.

    Args:
        sex: "f" or "m"; None if not known.
        age: in years; None if not known.

    Raises:
        PainseqError: see `check_person`.
    """

    sex: str | None = None
    age: int | None = None

    def __post_init__(self) -> None:
        check_person(self.sex, self.age)


@dataclass(frozen=True)
class SubjectRow:
    """Scores and counts of one subject.

    Args:
        subject_id: the subject's id.
        sex: "f" or "m"; None if not known.
        age: in years; None if not known.
        clips: number of all clips of this subject.
        scored: number of clips with a truth and a prediction.
        without_prediction: number of clips without a prediction.
        accuracy: of the scored clips; None without any.
        balanced_accuracy: over the classes that this subject has; None without a scored clip.
        faceless_share: share of frames without a face; None if the file does not state it.
    """

    subject_id: str
    sex: str | None
    age: int | None
    clips: int
    scored: int
    without_prediction: int
    accuracy: float | None
    balanced_accuracy: float | None
    faceless_share: float | None

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return dict(vars(self))


def people_of(clips: Iterable[Clip]) -> dict[str, Person]:
    """Subject id -> the first known sex and the first known age among the subject's clips."""
    sexes: dict[str, str | None] = {}
    ages: dict[str, int | None] = {}
    for clip in clips:
        sexes[clip.subject_id] = sexes.get(clip.subject_id) or clip.sex
        known = ages.get(clip.subject_id)
        ages[clip.subject_id] = clip.age if known is None else known
    return {subject: Person(sex, ages[subject]) for subject, sex in sexes.items()}


def read_people(path: str | Path) -> dict[str, Person]:
    """Read sex and age by subject id from a CSV.

    Its columns are subject_id, sex (f, m or empty) and age (years or empty); one of sex and age may be missing.

    Raises:
        PainseqError: no such file, a missing column, a repeated subject or an invalid value, with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise PainseqError(f"No table of subjects at {path}.")
    table = read_columns(path, {"subject_id"}, lambda name: name in ("sex", "age"))
    if len(table.cells) == 1:
        raise PainseqError(f"{path} has no column sex or age. Columns found: {first_few(table.names)}.")
    people: dict[str, Person] = {}
    for row, subject in enumerate(table.cells["subject_id"]):
        sex, age = (table.cells[name][row].strip() if name in table.cells else "" for name in ("sex", "age"))
        if not subject or subject in people:
            raise table.error(row, f"subject_id {subject!r} is empty or appears more than once.")
        try:
            years = whole_number(age) if age else None
        except ValueError as error:
            raise table.error(row, f"age is {age!r}; write whole years, or leave the cell empty.") from error
        try:
            people[subject] = Person(SEXES.get(sex.lower(), sex) or None, years)
        except PainseqError as error:
            raise table.error(row, str(error)) from error
    return people


def subject_rows(predictions: Predictions, people: Mapping[str, Person]) -> tuple[SubjectRow, ...]:
    """One row per subject, sorted by id."""
    return tuple(
        _row(subject, predictions.only(rows), people.get(subject, Person()))
        for subject, rows in rows_by_subject(predictions.subject_ids).items()
    )


def _row(subject: str, predictions: Predictions, person: Person) -> SubjectRow:
    confusion = confusion_matrix(predictions.truth, predictions.label, len(predictions.class_names))
    counted = (predictions.frames != UNKNOWN) & (predictions.faceless != UNKNOWN)
    scored = int(predictions.scored.sum())
    return SubjectRow(
        subject_id=subject,
        sex=person.sex,
        age=person.age,
        clips=len(predictions),
        scored=scored,
        without_prediction=int((~predictions.predicted).sum()),
        accuracy=float(accuracy(confusion)) if scored else None,
        balanced_accuracy=float(balanced_accuracy(confusion)) if scored else None,
        faceless_share=faceless_share(predictions, counted),
    )


def write_subjects(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with equal keys, such as those of `SubjectRow.to_dict`, as CSV; None is an empty cell."""
    columns = list(rows[0]) if rows else []
    write_csv(path, [columns, *([row[name] for name in columns] for row in rows)])
