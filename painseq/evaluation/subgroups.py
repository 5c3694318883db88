"""Scores by sex and by age band, since a mean over all subjects can hide groups with other scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from painseq.evaluation.intervals import DRAWS, Interval, bootstrap_interval, confusion_intervals, draw_subjects
from painseq.evaluation.metrics import (
    STATISTICS,
    Floats,
    Scores,
    balanced_accuracy,
    confusion_by_subject,
    scores_of,
)
from painseq.evaluation.people import Person
from painseq.evaluation.predictions import Predictions
from painseq.records import MAX_AGE

FEWEST = 5
"""Groups with fewer subjects have no interval."""

OLDEST_OF_BAND = {"under 36": 35, "36 to 50": 50, "over 50": MAX_AGE}
"""Age band -> oldest age in years: BioVid's groups (20 to 35, 36 to 50, 51 to 65), open at both ends."""

UNKNOWN_GROUP = "not known"


@dataclass(frozen=True)
class Subgroup:
    """Scores of the subjects of one group.

    Args:
        attribute: "sex" or "age".
        name: name of the group: "f", "m", "under 36", "36 to 50", "over 50" or "not known".
        subjects: number of subjects with at least one scored clip.
        clips: number of their scored clips.
        scores: scores of these clips.
        intervals: name of each defined statistic -> interval; empty for small groups.
        caution: why there is no interval, or None.
    """

    attribute: str
    name: str
    subjects: int
    clips: int
    scores: Scores
    intervals: dict[str, Interval]
    caution: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "attribute": self.attribute,
            "name": self.name,
            "subjects": self.subjects,
            "clips": self.clips,
            "scores": self.scores.to_dict(),
            "intervals": {name: interval.to_dict() for name, interval in self.intervals.items()},
            "caution": self.caution,
        }


@dataclass(frozen=True)
class GroupDifference:
    """Balanced accuracy of one group minus that of another.

    Args:
        attribute: "sex" or "age".
        first: name of the first group.
        second: name of the second group.
        value: first minus second.
        interval: interval of the value. The groups have different subjects and are resampled independently; number of
            subjects and note are those of the smaller group.
    """

    attribute: str
    first: str
    second: str
    value: float
    interval: Interval

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "attribute": self.attribute,
            "first": self.first,
            "second": self.second,
            "statistic": "balanced_accuracy",
            "difference": self.value,
            "interval": self.interval.to_dict(),
        }


def age_band(age: int) -> str:
    """The band of an age in years."""
    return next(name for name, oldest in OLDEST_OF_BAND.items() if age <= oldest)


def subgroups(
    predictions: Predictions, people: Mapping[str, Person]
) -> tuple[tuple[Subgroup, ...], tuple[GroupDifference, ...]]:
    """Score groups by sex and by age band, and the differences between each two groups.

    An attribute that is known for no subject gives no groups. Groups with fewer than `FEWEST` subjects have no interval
    and are not compared.

    Args:
        predictions: predictions of all subjects.
        people: subject id -> sex and age; missing subjects are of unknown sex and age.
    """
    subjects, confusion = confusion_by_subject(
        predictions.truth, predictions.label, predictions.subject_ids, len(predictions.class_names)
    )
    persons = [people.get(subject, Person()) for subject in subjects]
    sexes = [person.sex or UNKNOWN_GROUP for person in persons]
    age_bands = [UNKNOWN_GROUP if person.age is None else age_band(person.age) for person in persons]
    groups, differences = [], []
    for attribute, members, order in (("sex", sexes, ("f", "m")), ("age", age_bands, tuple(OLDEST_OF_BAND))):
        by_group = {name: confusion[np.array(members) == name] for name in (*order, UNKNOWN_GROUP) if name in members}
        if set(by_group) <= {UNKNOWN_GROUP}:
            continue
        groups += [_subgroup(attribute, name, by_group[name], predictions) for name in by_group]
        large = [name for name in order if name in by_group and len(by_group[name]) >= FEWEST]
        differences += [
            _difference(attribute, first, second, by_group[first], by_group[second])
            for first, second in combinations(large, 2)
        ]
    return tuple(groups), tuple(differences)


def _subgroup(attribute: str, name: str, confusion: Floats, predictions: Predictions) -> Subgroup:
    scores = scores_of(confusion.sum(0), predictions.class_names, predictions.order_known)
    defined = [key for key in STATISTICS if scores.value(key) is not None]
    few = len(confusion) < FEWEST
    people = f"{len(confusion)} subject{'s' if len(confusion) > 1 else ''}"
    return Subgroup(
        attribute=attribute,
        name=name,
        subjects=len(confusion),
        clips=int(confusion.sum()),
        scores=scores,
        intervals={} if few else confusion_intervals(confusion, defined),
        caution=f"only {people}: no interval, and no conclusion possible" if few else None,
    )


def _difference(attribute: str, first: str, second: str, a: Floats, b: Floats) -> GroupDifference:
    # The number of subjects of the smaller group decides how far the percentiles are expanded.
    smaller, larger, sign = (a, b, 1) if len(a) <= len(b) else (b, a, -1)
    others = balanced_accuracy(np.tensordot(draw_subjects(len(larger), DRAWS, seed=1).astype(float), larger, axes=1))

    def difference(times: NDArray[np.int64]) -> Floats:
        values: Floats = sign * (balanced_accuracy(np.tensordot(times.astype(float), smaller, axes=1)) - others)
        return values

    return GroupDifference(
        attribute=attribute,
        first=first,
        second=second,
        value=float(balanced_accuracy(a.sum(0)) - balanced_accuracy(b.sum(0))),
        interval=bootstrap_interval(difference, len(smaller)),
    )
