"""Subject-wise splits, and the one leak check that every fit and every evaluation passes through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from painseq.errors import LeakError, PainseqError
from painseq.records import PARTS, Clip, Manifest, Part

Protocol = Literal["official", "official_inner", "subject_holdout", "subject_kfold"]


@dataclass(frozen=True)
class Split:
    """Which subjects a model is fitted on, stopped early on, and scored on.

    Args:
        protocol: how it was made.
        train: subjects whose clips the weights are fitted to.
        validation: subjects that early stopping and the choice of a checkpoint look at.
        test: subjects scored at the end.
    """

    protocol: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, left, other, right in (
            ("train", self.train, "validation", self.validation),
            ("train", self.train, "test", self.test),
            ("validation", self.validation, "test", self.test),
        ):
            both = sorted(set(left) & set(right))
            if both:
                raise LeakError(
                    f"{_some(both)} on both sides of the split: {name} and {other}. Every subject belongs to one part."
                )

    def parts(self) -> tuple[Part, ...]:
        """The parts that have subjects."""
        return tuple(part for part in PARTS if self.subjects(part))

    def subjects(self, part: Part) -> tuple[str, ...]:
        """The subjects of one part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]

    def clips(self, manifest: Manifest, part: Part) -> tuple[Clip, ...]:
        """The clips of one part, in the manifest's order."""
        subjects = set(self.subjects(part))
        return tuple(clip for clip in manifest if clip.subject_id in subjects)

    def to_dict(self) -> dict[str, object]:
        """Plain data, to be stored with a run."""
        return {
            "protocol": self.protocol,
            "train": list(self.train),
            "validation": list(self.validation),
            "test": list(self.test),
        }


def make_split(
    manifest: Manifest,
    protocol: Protocol,
    *,
    seed: int = 0,
    validation_share: float = 0.2,
    test_share: float = 0.2,
    folds: int = 5,
    fold: int = 0,
) -> Split:
    """Split a data set by subject. The order of the manifest's rows does not matter.

    Args:
        protocol: "official": the data set's own parts. "official_inner": its training subjects are split once
            more, into train and validation, and its own validation subjects stay untouched. "subject_holdout":
            shares of all subjects. "subject_kfold": fold number `fold` of `folds` is the test part.
        validation_share: share of the subjects that are not tested ("official_inner": of the official training
            subjects) to stop early on; 0 is none.
        test_share: share of all subjects ("subject_holdout").

    Raises:
        PainseqError: too few subjects, a fold that does not exist, or no official parts.
    """
    if protocol in ("official", "official_inner"):
        official = {
            part: sorted({clip.subject_id for clip in manifest if clip.part == part})
            for part in ("train", "validation", "test")
        }
        if not any(official.values()):
            raise PainseqError(
                f"{manifest.name} has no official split here. Choose --data.options.split.protocol subject_holdout "
                "or subject_kfold."
            )
        if protocol == "official":
            return Split(protocol, *(tuple(official[part]) for part in ("train", "validation", "test")))
        train, validation = _holdout(official["train"], validation_share, seed, "validation")
        return Split(protocol, train, validation, tuple(official["test"]))
    subjects = list(manifest.subjects)
    if protocol == "subject_holdout":
        rest, test = _holdout(subjects, test_share, seed, "test")
    elif protocol == "subject_kfold":
        if not 0 <= fold < folds:
            raise PainseqError(f"Fold {fold} does not exist: {folds} folds are numbered 0 to {folds - 1}.")
        if len(subjects) < folds:
            raise PainseqError(f"{manifest.name} has {len(subjects)} subjects, too few for {folds} folds.")
        splitter = GroupKFold(n_splits=folds, shuffle=True, random_state=seed)
        left, right = list(splitter.split(np.zeros(len(subjects)), groups=subjects))[fold]
        rest, test = tuple(subjects[i] for i in left), tuple(subjects[i] for i in right)
    else:
        raise PainseqError(
            f"No split protocol {protocol!r}; there are: official, official_inner, subject_holdout, subject_kfold."
        )
    train, validation = _holdout(list(rest), validation_share, seed, "validation")
    return Split(protocol, train, validation, test)


def _holdout(subjects: list[str], share: float, seed: int, what: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not 0 <= share < 1:
        raise PainseqError(f"The {what} share is {share}; it must be at least 0 and below 1.")
    if share == 0:
        return tuple(subjects), ()
    if len(subjects) < 2:
        raise PainseqError(
            f"{len(subjects)} subjects cannot be split into train and {what}. Give the data set more subjects, "
            f"or set the {what} share to 0."
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=max(1, round(share * len(subjects))), random_state=seed)
    left, right = next(splitter.split(np.zeros(len(subjects)), groups=subjects))
    return tuple(subjects[i] for i in left), tuple(subjects[i] for i in right)


def qualified(dataset: str, subjects: Iterable[str]) -> frozenset[str]:
    """Subjects as "data set/subject": how they are compared across data sets."""
    return frozenset(f"{dataset}/{subject}" for subject in subjects)


def check_no_leak(fitted_on: Iterable[str], scored_on: Iterable[str], what: str = "The model") -> None:
    """Refuse to score anybody that a model was fitted on.

    Args:
        fitted_on: whom `what` has seen: weights, early stopping, class weights; qualified.
        scored_on: whom it is about to be scored on; qualified.

    Raises:
        LeakError: a subject on both sides; names them.
    """
    both = sorted(set(fitted_on) & set(scored_on))
    if both:
        raise LeakError(
            f"{what} was fitted on {_some(both)} of those to be scored. A score on people it has seen says nothing "
            "of a new patient. Score other subjects, or fit on other subjects."
        )


def _some(subjects: list[str], most: int = 5) -> str:
    named = ", ".join(subjects[:most])
    more = f" and {len(subjects) - most} more" if len(subjects) > most else ""
    return f"{len(subjects)} subject{'s' if len(subjects) > 1 else ''} ({named}{more})"
