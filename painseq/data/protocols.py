"""Protocols for splitting the subjects of a data set into training, validation and test subjects."""

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
    """Options of a split; docs/protocols.md describes the protocols.

    Args:
        protocol: "official": the official parts of the data set. "official_inner": the official training subjects are
            split into training and validation subjects, and the official validation subjects are not used.
            "subject_holdout": random shares of all subjects. "subject_kfold": fold number `fold` of `folds` is the test
            part. "loso": leave one subject out as the test part. "subject_lists": `train`, `validation` and `test` list
            the subjects. "file": `file` lists the subjects.
        validation_share: share of the subjects outside the test part ("official_inner": of the official training
            subjects) used for validation; 0 for none.
        test_share: share of all subjects used for testing ("subject_holdout").
        folds: number of folds ("subject_kfold").
        fold: index of the test fold, from 0; for "loso" the index among the sorted subjects.
        seed: seed of random draws.
        repeat: index of the repetition, from 0; each repetition draws differently with the same seed.
        fold_subject: the subject that "loso" leaves out, instead of `fold`.
        train, validation, test: subject ids ("subject_lists"); other subjects are left out.
        file: a split written by `painseq split`.
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
        """Options that the protocol reads, as plain values."""
        return {name: getattr(self, name) for name in READS[self.protocol]}


def check_options(options: SplitOptions) -> None:
    """Check that the protocol reads all options that are set, such as `file`.

    Raises:
        PainseqError: an unknown protocol, an option that it does not read, or a missing or contradictory option.
    """
    if options.protocol not in READS:
        raise PainseqError(f"No split protocol {options.protocol!r}; choose from: {', '.join(get_args(Protocol))}.")
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
        raise PainseqError(f"fold is {options.fold} and fold_subject is {options.fold_subject}. Give only one of them.")


def class_counts(manifest: Manifest, scheme: LabelScheme | None) -> dict[str, Counter[object]]:
    """Count clips by subject (sorted) and class, without hidden labels; `scheme` None counts native labels."""
    counts: dict[str, Counter[object]] = {subject: Counter() for subject in manifest.subjects}
    for (subject, label), clips in Counter((clip.subject_id, clip.label) for clip in manifest).items():
        target = label if scheme is None or label is None else scheme.target(label)
        if target is not None:
            counts[subject][target] += clips
    return counts


def known(counts: Mapping[str, Counter[object]]) -> tuple[str, ...]:
    """Subjects with at least one known label, in the order of `counts`."""
    return tuple(subject for subject, classes in counts.items() if classes)


def divide(
    manifest: Manifest, options: SplitOptions, counts: Mapping[str, Counter[object]]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Divide subjects into training, validation and test subjects, by an official or random protocol.

    Args:
        manifest: clips of the data set.
        options: options of any protocol except "subject_lists" and "file".
        counts: result of `class_counts`.

    Raises:
        PainseqError: too few subjects, a missing fold or subject, or no official parts.
    """
    protocol = options.protocol
    if protocol == "official":
        official = _official(manifest)
        return official["train"], official["validation"], official["test"]
    random_state = random_state_of(options.seed, options.repeat)
    if protocol == "official_inner":
        official = _official(manifest)
        if not official["train"]:
            raise PainseqError(f"{manifest.name} has no official training subjects to split. Choose another protocol.")
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
        raise PainseqError(f"{manifest.name} has one subject with a known label, so no training subjects are left.")
    train, validation = _holdout(rest, options.validation_share, random_state, "validation", counts)
    return train, validation, test


def _official(manifest: Manifest) -> dict[Part, tuple[str, ...]]:
    official = {part: tuple(sorted({clip.subject_id for clip in manifest if clip.part == part})) for part in PARTS}
    if not any(official.values()):
        raise PainseqError(
            f"{manifest.name} has no official split. Choose --data.options.split.protocol subject_holdout or "
            "subject_kfold."
        )
    return official


def random_state_of(seed: int, repeat: int) -> int:
    """Random state of one repetition.

    Raises:
        PainseqError: a negative number, or a seed of more than 32 bits.
    """
    if not 0 <= seed < 2**32 or repeat < 0:
        raise PainseqError(
            f"The split's seed is {seed} and its repeat is {repeat}; seed must be a whole number from 0 to 4294967295, "
            "and repeat must be 0 or more."
        )
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0]) if repeat else seed


def kfold(
    subjects: Sequence[str], folds: int, random_state: int, counts: Mapping[str, Counter[object]], dataset: str
) -> list[tuple[str, ...]]:
    """Divide subjects into folds with balanced classes; each fold is sorted.

    Args:
        subjects: subject ids.
        folds: number of folds, 2 or more.
        random_state: seed of the draw.
        counts: result of `class_counts`.
        dataset: name of the data set, for messages.

    Raises:
        PainseqError: fewer than 2 folds, or fewer subjects than folds.
    """
    if folds < 2:
        raise PainseqError(f"folds is {folds}; it must be 2 or more.")
    if len(subjects) < folds:
        raise PainseqError(f"{dataset}: {len(subjects)} subjects with a known label, too few for {folds} folds.")
    splitter = GroupKFold(n_splits=folds, shuffle=True, random_state=random_state)
    drawn = [[subjects[i] for i in test] for _, test in splitter.split(np.zeros(len(subjects)), groups=list(subjects))]
    return _balanced(drawn, counts)


def _fold(parts: list[tuple[str, ...]], fold: int) -> tuple[str, ...]:
    if not 0 <= fold < len(parts):
        raise PainseqError(f"Fold {fold} does not exist: the {len(parts)} folds are numbered 0 to {len(parts) - 1}.")
    return parts[fold]


def _left_out_subject(manifest: Manifest, subjects: tuple[str, ...], options: SplitOptions) -> str:
    if options.fold_subject is None:
        if not subjects:
            raise PainseqError(f"No clip of {manifest.name} has a label, so no subject can be left out.")
        return _fold([(subject,) for subject in subjects], options.fold)[0]
    if options.fold_subject not in subjects:
        reason = "has no clip with a known label" if options.fold_subject in manifest.subjects else "does not exist"
        raise PainseqError(
            f"--data.options.split.fold_subject is {options.fold_subject}, which {reason}. {manifest.name} has "
            f"{some_subjects(subjects)} that can be left out."
        )
    return options.fold_subject


def _holdout(
    subjects: Sequence[str],
    share: float,
    random_state: int,
    part: Part,
    counts: Mapping[str, Counter[object]] | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide subjects into remaining and held-out subjects, with balanced classes if `counts` is given."""
    if not 0 <= share < 1:
        raise PainseqError(f"The {part} share is {share}; it must be at least 0 and below 1.")
    if share == 0:
        return tuple(subjects), ()
    held_out = max(1, round(share * len(subjects)))
    if len(subjects) <= held_out:
        raise PainseqError(
            f"{len(subjects)} subjects cannot be split into train and {part} with a {part} share of {share:g}. Use "
            f"more subjects, or set the {part} share to 0."
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=held_out, random_state=random_state)
    left, right = next(splitter.split(np.zeros(len(subjects)), groups=list(subjects)))
    drawn = [[subjects[i] for i in left], [subjects[i] for i in right]]
    remaining, held_out_subjects = [tuple(ids) for ids in drawn] if counts is None else _balanced(drawn, counts)
    return remaining, held_out_subjects


def _balanced(parts: list[list[str]], counts: Mapping[str, Counter[object]]) -> list[tuple[str, ...]]:
    """Balance classes by exchanging pairs of subjects between parts while this helps; parts are sorted.

    Minimises the sum, over parts and classes, of the squared excess of a part's share of a class's clips over its share
    of the subjects. All classes have the same weight, however rare, and subjects with equal classes are not exchanged.
    """
    subjects = sorted(subject for part in parts for subject in part)
    classes = sorted({name for subject in subjects for name in counts[subject]}, key=str)
    drawn_part = {subject: number for number, part in enumerate(parts) for subject in part}
    part_of = np.array([drawn_part[subject] for subject in subjects])
    clips = np.array([[counts[subject][name] for name in classes] for subject in subjects], dtype=np.float64)
    shares = clips / clips.sum(axis=0)
    excess = np.array([(shares - 1 / len(subjects))[part_of == number].sum(axis=0) for number in range(len(parts))])
    exchanged = True
    while exchanged:
        exchanged = False
        for first in range(len(subjects)):
            gain = shares - shares[first]
            # Rounded, so that ties are ties on every machine. Exchanges within a part are no improvement.
            change = np.round((gain * (excess[part_of[first]] - excess[part_of] + gain)).sum(axis=1), 10)
            second = int(change.argmin())
            if change[second] < 0:
                excess[part_of[first]] += gain[second]
                excess[part_of[second]] -= gain[second]
                part_of[[first, second]] = part_of[[second, first]]
                exchanged = True
    return [
        tuple(subject for subject, assigned in zip(subjects, part_of, strict=True) if assigned == number)
        for number in range(len(parts))
    ]
