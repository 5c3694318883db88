"""Protocols: how the subjects of a data set are divided into train, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from painseq.errors import PainseqError
from painseq.records import PARTS, Manifest, Part, some_subjects

if TYPE_CHECKING:
    from painseq.data.labels import LabelScheme

Protocol = Literal["official", "official_inner", "subject_holdout", "subject_kfold", "loso", "subject_lists", "file"]

READS: Mapping[str, tuple[str, ...]] = {
    "official": (),
    "official_inner": ("validation_share", "seed", "repeat"),
    "subject_holdout": ("validation_share", "test_share", "seed", "repeat"),
    "subject_kfold": ("validation_share", "folds", "fold", "seed", "repeat"),
    "loso": ("validation_share", "fold", "fold_subject", "seed", "repeat"),
    "subject_lists": ("train", "validation", "test"),
    "file": ("file",),
}
"""Protocol -> the options that it reads."""


@dataclass(frozen=True)
class SplitOptions:
    """How subjects are split; docs/protocols.md tells which protocol is for what.

    Args:
        protocol: "official": the data set's own parts. "official_inner": its training subjects are split once more,
            into train and validation, and its own validation subjects stay untouched. "subject_holdout": shares of all
            subjects. "subject_kfold": fold number `fold` of `folds` is the test part. "loso": one subject is.
            "subject_lists": `train`, `validation` and `test` name the subjects. "file": `file` does.
        validation_share: share of the subjects that are not tested ("official_inner": of the official training
            subjects) to stop early on; 0 is none.
        test_share: share of all subjects ("subject_holdout").
        folds: how many ("subject_kfold").
        fold: which one is tested, from 0; for "loso" the place among the sorted subjects.
        seed: of whatever is drawn.
        repeat: draws anew with the same seed, for repeated folds; from 0.
        fold_subject: the subject that "loso" leaves out, instead of `fold`.
        train, validation, test: names of subjects ("subject_lists"); whoever is in none is left out.
        file: a split that `painseq split` wrote.
    """

    protocol: Protocol = "subject_holdout"
    validation_share: float = 0.2
    test_share: float = 0.2
    folds: int = 5
    fold: int = 0
    seed: int = 0
    repeat: int = 0
    fold_subject: str | None = None
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    file: Path | None = None

    def decisive(self) -> dict[str, object]:
        """The options that the protocol reads, as plain data."""
        return {name: getattr(self, name) for name in READS[self.protocol]}


def check_options(options: SplitOptions) -> None:
    """Refuse what would be passed over in silence, such as a file without the protocol that reads it."""
    if options.protocol not in READS:
        raise PainseqError(f"No split protocol {options.protocol!r}; there are: {', '.join(get_args(Protocol))}.")
    for name in ("fold", "repeat", "fold_subject", "train", "validation", "test", "file"):
        given = getattr(options, name)
        if given and name not in READS[options.protocol]:
            readers = [protocol for protocol, reads in READS.items() if name in reads]
            shown = ", ".join(given) if isinstance(given, tuple) else given
            raise PainseqError(
                f"--data.options.split.{name} is {shown}, but the protocol {options.protocol!r} does not read it; "
                f"{', '.join(readers)} would. Leave it out, or choose another protocol."
            )
    if options.protocol == "file" and options.file is None:
        raise PainseqError("The protocol 'file' needs --data.options.split.file: a file that `painseq split` wrote.")
    if options.fold and options.fold_subject:
        raise PainseqError(f"fold is {options.fold} and fold_subject {options.fold_subject}. Give one of them.")


def class_counts(manifest: Manifest, scheme: LabelScheme | None) -> dict[str, Counter[object]]:
    """Subject, sorted -> clips a class; hidden labels are not counted."""
    counts: dict[str, Counter[object]] = {subject: Counter() for subject in manifest.subjects}
    for (subject, label), clips in Counter((clip.subject_id, clip.label) for clip in manifest).items():
        kind = label if scheme is None or label is None else scheme.target(label)
        if kind is not None:
            counts[subject][kind] += clips
    return counts


def known(counts: Mapping[str, Counter[object]]) -> tuple[str, ...]:
    """The subjects of whom a label is known, sorted."""
    return tuple(subject for subject, classes in counts.items() if classes)


def divide(
    manifest: Manifest, options: SplitOptions, counts: Mapping[str, Counter[object]]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The subjects of train, validation and test, by a protocol that draws them or that the data set states.

    Args:
        manifest: whose subjects.
        options: of any protocol but "subject_lists" and "file".
        counts: of `class_counts`.

    Raises:
        PainseqError: too few subjects, a fold or subject that does not exist, no official parts.
    """
    protocol = options.protocol
    if protocol == "official":
        official = _official(manifest)
        return official["train"], official["validation"], official["test"]
    random_state = random_state_of(options.seed, options.repeat)
    if protocol == "official_inner":
        official = _official(manifest)
        if not official["train"]:
            raise PainseqError(f"{manifest.name} has no official training subjects to split once more.")
        train, validation = _holdout(official["train"], options.validation_share, random_state, "validation")
        return train, validation, official["test"]
    if protocol == "subject_holdout":
        rest, test = _holdout(manifest.subjects, options.test_share, random_state, "test")
        train, validation = _holdout(rest, options.validation_share, random_state, "validation")
        return train, validation, test
    subjects = known(counts)
    if protocol == "subject_kfold":
        test = _fold(kfold(subjects, options.folds, random_state, counts, manifest.name), options.fold)
    else:
        test = (_left_out_subject(manifest, subjects, options),)
    rest = tuple(subject for subject in subjects if subject not in test)
    if not rest:
        raise PainseqError(f"{manifest.name} has one subject with a known label, so nobody is left to train on.")
    train, validation = _holdout(rest, options.validation_share, random_state, "validation", counts)
    return train, validation, test


def _official(manifest: Manifest) -> dict[Part, tuple[str, ...]]:
    official = {part: tuple(sorted({clip.subject_id for clip in manifest if clip.part == part})) for part in PARTS}
    if not any(official.values()):
        raise PainseqError(
            f"{manifest.name} has no official split here. Choose --data.options.split.protocol subject_holdout "
            "or subject_kfold."
        )
    return official


def random_state_of(seed: int, repeat: int) -> int:
    """The seed of one repeat's draws.

    Raises:
        PainseqError: a negative number, or a seed of more than 32 bits.
    """
    if not 0 <= seed < 2**32 or repeat < 0:
        raise PainseqError(
            f"The split's seed is {seed} and its repeat {repeat}; a seed is a whole number from 0 to 4294967295, a "
            "repeat is 0 or more."
        )
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0]) if repeat else seed


def kfold(
    subjects: Sequence[str], folds: int, random_state: int, counts: Mapping[str, Counter[object]], whose: str
) -> list[tuple[str, ...]]:
    """Folds of subjects, sorted names each; the classes are evened out.

    Args:
        counts: of `class_counts`.
        whose: the subjects are, for messages.

    Raises:
        PainseqError: fewer than 2 folds, or fewer subjects than folds.
    """
    if folds < 2:
        raise PainseqError(f"folds is {folds}; it must be 2 or more.")
    if len(subjects) < folds:
        raise PainseqError(f"{whose}: {len(subjects)} subjects with a known label, too few for {folds} folds.")
    splitter = GroupKFold(n_splits=folds, shuffle=True, random_state=random_state)
    drawn = [[subjects[i] for i in test] for _, test in splitter.split(np.zeros(len(subjects)), groups=list(subjects))]
    return _evened_out(drawn, counts)


def _fold(parts: list[tuple[str, ...]], fold: int) -> tuple[str, ...]:
    if not 0 <= fold < len(parts):
        raise PainseqError(f"Fold {fold} does not exist: {len(parts)} folds are numbered 0 to {len(parts) - 1}.")
    return parts[fold]


def _left_out_subject(manifest: Manifest, subjects: tuple[str, ...], options: SplitOptions) -> str:
    if options.fold_subject is None:
        if not subjects:
            raise PainseqError(f"No clip of {manifest.name} has a label, so there is nobody to leave out.")
        return _fold([(subject,) for subject in subjects], options.fold)[0]
    if options.fold_subject not in subjects:
        why = "has no clip with a known label" if options.fold_subject in manifest.subjects else "is not among them"
        raise PainseqError(
            f"--data.options.split.fold_subject is {options.fold_subject}, who {why}. {manifest.name} has "
            f"{some_subjects(subjects)} to leave out."
        )
    return options.fold_subject


def _holdout(
    subjects: Sequence[str],
    share: float,
    random_state: int,
    what: str,
    counts: Mapping[str, Counter[object]] | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide into those who stay and those held out; with `counts` the classes are evened out."""
    if not 0 <= share < 1:
        raise PainseqError(f"The {what} share is {share}; it must be at least 0 and below 1.")
    if share == 0:
        return tuple(subjects), ()
    held_out = max(1, round(share * len(subjects)))
    if len(subjects) <= held_out:
        raise PainseqError(
            f"{len(subjects)} subjects cannot be split into train and {what}, with a {what} share of {share:g}. Give "
            f"the data set more subjects, or set the {what} share to 0."
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=held_out, random_state=random_state)
    left, right = next(splitter.split(np.zeros(len(subjects)), groups=list(subjects)))
    drawn = [[subjects[i] for i in left], [subjects[i] for i in right]]
    stay, out = [tuple(part) for part in drawn] if counts is None else _evened_out(drawn, counts)
    return stay, out


def _evened_out(parts: list[list[str]], counts: Mapping[str, Counter[object]]) -> list[tuple[str, ...]]:
    """Exchange subjects between parts, one for one, as long as that evens out the classes; sorted names.

    What is made small is the sum, over parts and classes, of the squares of what a part has of a class (as a share of
    the class's clips) beyond its share of the subjects. So each class counts the same, however rare; and subjects who
    are all alike stay as they were drawn.
    """
    subjects = sorted(subject for part in parts for subject in part)
    classes = sorted({kind for subject in subjects for kind in counts[subject]}, key=str)
    place = {subject: number for number, part in enumerate(parts) for subject in part}
    where = np.array([place[subject] for subject in subjects])
    clips = np.array([[counts[subject][kind] for kind in classes] for subject in subjects], dtype=np.float64)
    shares = clips / clips.sum(axis=0)
    excess = np.array([(shares - 1 / len(subjects))[where == number].sum(axis=0) for number in range(len(parts))])
    exchanged = True
    while exchanged:
        exchanged = False
        for one in range(len(subjects)):
            gain = shares - shares[one]
            # Rounded, so that a tie is a tie on every machine. Exchanges within a part come out as no improvement.
            change = np.round((gain * (excess[where[one]] - excess[where] + gain)).sum(axis=1), 10)
            other = int(change.argmin())
            if change[other] < 0:
                excess[where[one]] += gain[other]
                excess[where[other]] -= gain[other]
                where[[one, other]] = where[[other, one]]
                exchanged = True
    return [
        tuple(subject for subject, at in zip(subjects, where, strict=True) if at == number)
        for number in range(len(parts))
    ]
