"""Who the subjects are, as far as it is known, and how a model does on each of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from painseq.errors import PainseqError
from painseq.evaluation.counts import faceless_share
from painseq.evaluation.metrics import accuracy, balanced_accuracy, confusion_matrix
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.rows import read_rows
from painseq.records import SEXES, UNKNOWN, Clip, check_person


@dataclass(frozen=True)
class Person:
    """What is known of a subject.

    Args:
        sex: "f" or "m"; None where it is not known.
        age: in years; None likewise.

    Raises:
        PainseqError: see `check_person`.
    """

    sex: str | None = None
    age: int | None = None

    def __post_init__(self) -> None:
        check_person(self.sex, self.age)


@dataclass(frozen=True)
class SubjectRow:
    """One subject.

    Args:
        subject_id: who.
        sex: "f" or "m"; None where it is not known.
        age: in years; None likewise.
        clips: all clips of this subject.
        scored: those with a truth and a prediction.
        without_prediction: those without a prediction.
        accuracy: of the scored clips; None without any.
        balanced_accuracy: over the classes that this subject has; None without a scored clip.
        faceless_share: share of the frames without a face; None where the file does not say.
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
    """By subject, the first sex and the first age that one of the clips tells."""
    sexes: dict[str, str | None] = {}
    ages: dict[str, int | None] = {}
    for clip in clips:
        sexes[clip.subject_id] = sexes.get(clip.subject_id) or clip.sex
        known = ages.get(clip.subject_id)
        ages[clip.subject_id] = clip.age if known is None else known
    return {subject: Person(sex, ages[subject]) for subject, sex in sexes.items()}


def read_people(path: Path) -> dict[str, Person]:
    """Persons by subject id from a CSV with the columns subject_id, sex (f, m or empty) and age (years or empty).

    Raises:
        PainseqError: no such file, a missing column, a subject twice or a bad value, with its line.
    """
    if not path.is_file():
        raise PainseqError(f"No table of subjects at {path}.")
    rows, columns = read_rows(path, {"subject_id"})
    if not {"sex", "age"} & set(columns):
        raise PainseqError(f"{path}: neither a column sex nor age. Columns found: {', '.join(columns)}.")
    people: dict[str, Person] = {}
    for line, row in rows:
        subject, sex, age = row["subject_id"], row.get("sex", "").strip().lower(), row.get("age", "").strip()
        if not subject or subject in people:
            raise PainseqError(f"{path}, line {line}: subject {subject!r} has no name or appears twice.")
        if age and not age.isdecimal():
            raise PainseqError(f"{path}, line {line}: age is {age!r}; write whole years or nothing.")
        try:
            people[subject] = Person(SEXES.get(sex, sex) or None, int(age) if age else None)
        except PainseqError as error:
            raise PainseqError(f"{path}, line {line}: {error}") from error
    return people


def subject_rows(predictions: Predictions, people: Mapping[str, Person]) -> tuple[SubjectRow, ...]:
    """A row a subject, sorted by name."""
    ids = np.asarray(predictions.subject_ids, dtype=object)
    return tuple(
        _row(subject, predictions.only(ids == subject), people.get(subject, Person())) for subject in sorted(set(ids))
    )


def _row(subject: str, own: Predictions, person: Person) -> SubjectRow:
    confusion = confusion_matrix(own.truth, own.label, len(own.class_names))
    counted = (own.frames != UNKNOWN) & (own.faceless != UNKNOWN)
    scored = int(own.scored.sum())
    return SubjectRow(
        subject_id=subject,
        sex=person.sex,
        age=person.age,
        clips=len(own),
        scored=scored,
        without_prediction=int((~own.predicted).sum()),
        accuracy=float(accuracy(confusion)) if scored else None,
        balanced_accuracy=float(balanced_accuracy(confusion)) if scored else None,
        faceless_share=faceless_share(own, counted),
    )


def write_subjects(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV of rows with the same keys, such as those of `SubjectRow.to_dict`; None is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
