"""Subject-wise splits and folds, and the leak check of every fit and evaluation."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from painseq.data.protocols import SplitOptions, check_options, class_counts, divide, kfold, known, random_state_of
from painseq.errors import LeakError, PainseqError
from painseq.files import parse_json
from painseq.records import PARTS, Clip, Manifest, Part, plain_name, shared_people, some_subjects

if TYPE_CHECKING:
    from painseq.data.labels import LabelScheme

log = logging.getLogger("painseq")

FILE_FORMAT = 1


@dataclass(frozen=True)
class Split:
    """Training, validation and test subjects.

    Args:
        protocol: the protocol that made the split.
        train: ids of the training subjects.
        validation: ids of the validation subjects, used for early stopping and for choosing a checkpoint.
        test: ids of the test subjects.

    Raises:
        LeakError: a subject is in two parts.
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
            both = shared_people(left, right)
            if both:
                raise LeakError(
                    f"{some_subjects(both)} in two parts of the split: {name} and {other}. Put every subject in one "
                    "part."
                )

    def parts(self) -> tuple[Part, ...]:
        """Parts that have subjects."""
        return tuple(part for part in PARTS if self.subjects(part))

    def subjects(self, part: Part) -> tuple[str, ...]:
        """Subjects of one part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]

    def clips(self, manifest: Manifest, part: Part) -> tuple[Clip, ...]:
        """Clips of one part, in the order of the manifest."""
        subjects = set(self.subjects(part))
        return tuple(clip for clip in manifest if clip.subject_id in subjects)

    def to_dict(self) -> dict[str, object]:
        """Plain values, stored with a run."""
        return {
            "protocol": self.protocol,
            "train": list(self.train),
            "validation": list(self.validation),
            "test": list(self.test),
        }


@dataclass(frozen=True)
class LeakySplit(Split):
    """A split of clips or frames instead of subjects, only to show how much such a split inflates scores.

    Every subject counts as both a training and a test subject, so that scores are never reported as if subjects were
    new.

    Args:
        protocol: name that ends in _LEAKY, shown with the split everywhere.
        clip_ids: part -> clip ids; with splits of frames, a clip may be in several parts.
    """

    clip_ids: Mapping[Part, frozenset[str]]

    def __post_init__(self) -> None:
        if not self.protocol.endswith("_LEAKY"):
            raise ValueError(f"The protocol of a leaky split must end in _LEAKY: {self.protocol}_LEAKY.")

    def clips(self, manifest: Manifest, part: Part) -> tuple[Clip, ...]:
        """Clips of one part, in the order of the manifest."""
        return tuple(clip for clip in manifest if clip.clip_id in self.clip_ids.get(part, ()))


def split_of_items(parts: Mapping[Part, Sequence[Clip]], items: Sequence[Clip], protocol: str) -> Split:
    """Make the split of divided items, which is leaky if a subject is in two parts.

    Args:
        parts: part -> clips of its items.
        items: clips of all items; in a leaky split, all their subjects count as training and test subjects.
        protocol: how the items were divided; _LEAKY is added for a leaky split.
    """
    subjects = {part: {clip.subject_id for clip in clips} for part, clips in parts.items()}
    if sum(map(len, subjects.values())) == len(set().union(*subjects.values())):
        return Split(protocol, *(tuple(sorted(subjects.get(part, ()))) for part in PARTS))
    return leaky_split(parts, items, protocol)


def make_split(manifest: Manifest, options: SplitOptions, scheme: LabelScheme | None = None) -> Split:
    """Split a data set by subject, independently of the order of clips in the manifest.

    Subjects in no part are left out with a warning. "subject_kfold" and "loso" leave out subjects without any known
    label, which can be neither trained on nor scored. They balance classes between parts as far as whole subjects
    allow; other protocols draw at random.

    Args:
        manifest: clips of the data set.
        options: protocol and its options.
        scheme: classes to balance; None for native labels.

    Raises:
        PainseqError: too few subjects, a missing fold or subject, no official parts, a file of another data set, or an
            option that the protocol does not read.
        LeakError: a subject is in two parts.

    Example:
        >>> make_split(data.manifest, SplitOptions("subject_kfold", fold=2))  # doctest: +SKIP
    """
    split = _split(manifest, options, class_counts(manifest, scheme))
    _warn_of_left_out(split, manifest)
    return split


def every_fold(manifest: Manifest, options: SplitOptions, scheme: LabelScheme | None = None) -> list[Split]:
    """Make the splits of all folds of "subject_kfold" or "loso", in order; see `make_split`.

    Raises:
        PainseqError: a protocol without folds; see `make_split`.
    """
    counts = class_counts(manifest, scheme)
    if options.protocol == "subject_kfold":
        folds = options.folds
    elif options.protocol == "loso":
        folds = len(known(counts))
    else:
        raise PainseqError(f"Protocol {options.protocol!r} has no folds. Choose subject_kfold or loso.")
    # With 0 folds, making the first one raises the error.
    numbered = [replace(options, fold=fold, fold_subject=None) for fold in range(max(1, folds))]
    splits = [_split(manifest, chosen, counts) for chosen in numbered]
    _warn_of_left_out(splits[0], manifest)
    return splits


def inner_splits(
    split: Split, manifest: Manifest, folds: int, seed: int, scheme: LabelScheme | None = None
) -> list[Split]:
    """Make inner cross-validation splits, to choose settings or a number of epochs without using test subjects.

    Training and validation subjects of the outer split are divided into `folds`. Each fold is the validation part once,
    and the other folds are the training part. The test part of an inner split is empty. Classes are balanced.

    Args:
        split: outer split; its test subjects are in no inner split.
        manifest: clips of the data set.
        folds: number of folds, 2 or more.
        seed: seed of the folds.
        scheme: classes to balance; None for native labels.

    Raises:
        PainseqError: fewer subjects with a known label than folds.
    """
    counts = class_counts(manifest, scheme)
    outer = {*split.train, *split.validation}
    subjects = [subject for subject in known(counts) if subject in outer]
    parts = kfold(subjects, folds, random_state_of(seed, 0), counts, f"The training subjects of {manifest.name}")
    return [
        Split(f"{split.protocol}_inner_fold", tuple(s for s in subjects if s not in part), part, ()) for part in parts
    ]


def out_of_fold_splits(
    split: Split, manifest: Manifest, folds: int, seed: int, scheme: LabelScheme | None = None
) -> list[Split]:
    """Make splits that predict every training subject once by a model fitted without it.

    The training subjects are divided into `folds`. Each fold is the test part once, and the other folds are the
    training part; the validation part is that of the split. Test subjects of the split are in no part. Classes are
    balanced.

    Args:
        split: split of the fit.
        manifest: clips of the data set.
        folds: number of folds, 2 or more.
        seed: seed of the folds.
        scheme: classes to balance; None for native labels.

    Raises:
        PainseqError: fewer training subjects with a known label than folds.
    """
    counts = class_counts(manifest, scheme)
    subjects = [subject for subject in known(counts) if subject in set(split.train)]
    parts = kfold(subjects, folds, random_state_of(seed, 0), counts, f"The training subjects of {manifest.name}")
    name = f"{split.protocol}_out_of_fold"
    return [Split(name, tuple(s for s in subjects if s not in part), split.validation, part) for part in parts]


def stratified_folds(
    target: NDArray[np.int64], names: NDArray[np.str_], folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divide items into folds with balanced classes; items of one name stay together.

    Uses scikit-learn's `StratifiedKFold`, or `StratifiedGroupKFold` if several items have a name.

    Args:
        target: (n,) class of each item.
        names: (n,) name of each item's group.
        folds: number of folds, 2 or more.
        seed: seed of the random division.

    Returns:
        For each fold the indices of the other items, and those of its own.

    Raises:
        PainseqError: fewer groups, or items of a class, than folds; an empty fold.
    """
    found = fewest(target, names)
    if not 2 <= folds <= found:
        raise PainseqError(
            f"{folds} folds need at least 2 folds, and as many groups and items of each class; there are only {found}. "
            "Choose another number of folds."
        )
    alone = len(np.unique(names)) == len(names)
    splitter = (StratifiedKFold if alone else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    divisions = list(splitter.split(target, target, None if alone else names))
    if not all(len(test) for _, test in divisions):
        raise PainseqError(f"The classes of the groups are too uneven for {folds} folds: one is empty. Lower folds.")
    return divisions


def fewest(target: NDArray[np.int64], names: NDArray[np.str_]) -> int:
    """Return the number of groups or of items of the rarest class, whichever is smaller."""
    return int(min(len(np.unique(names)), *np.unique(target, return_counts=True)[1]))


def leaky_split(parts: Mapping[Part, Iterable[Clip]], clips: Iterable[Clip], protocol: str) -> LeakySplit:
    """Make the split of divided clips, all of whose subjects count as training and as test subjects.

    Args:
        parts: part -> its clips.
        clips: all clips of the data set.
        protocol: how the clips were divided; _LEAKY is added.
    """
    subjects = tuple(sorted({clip.subject_id for clip in clips}))
    clip_ids = {part: frozenset(clip.clip_id for clip in of_part) for part, of_part in parts.items()}
    return LeakySplit(f"{protocol}_LEAKY", subjects, subjects if clip_ids.get("validation") else (), subjects, clip_ids)


def _split(manifest: Manifest, options: SplitOptions, counts: Mapping[str, Counter[object]]) -> Split:
    check_options(options)
    if options.protocol == "subject_lists":
        return _listed(manifest, options.protocol, {part: getattr(options, part) for part in PARTS}, "The split")
    if options.protocol == "file":
        assert options.file is not None
        return read_split(options.file, manifest)
    return Split(options.protocol, *divide(manifest, options, counts))


def _listed(manifest: Manifest, protocol: str, lists: Mapping[Part, Iterable[str]], source: str) -> Split:
    """Make a split from lists of subjects, however their names are spelled.

    Raises:
        PainseqError: no subjects, or subjects without a clip.
    """
    listed = {subject for subjects in lists.values() for subject in subjects}
    if not listed:
        raise PainseqError(f"{source} has no subjects: give the lists train, validation and test.")
    spelling = {plain_name(subject): subject for subject in manifest.subjects}
    unknown = sorted(subject for subject in listed if plain_name(subject) not in spelling)
    if unknown:
        raise PainseqError(
            f"{source} lists {some_subjects(unknown, len(unknown))} without a clip in {manifest.name} under its label "
            f"scheme. It has {some_subjects(manifest.subjects)}."
        )
    return Split(protocol, *(tuple(sorted({spelling[plain_name(name)] for name in lists[part]})) for part in PARTS))


def _warn_of_left_out(split: Split, manifest: Manifest) -> None:
    expected = {subject for part in PARTS for subject in split.subjects(part)}
    if split.protocol == "official_inner":
        # This protocol leaves out the official validation part on purpose.
        expected |= {clip.subject_id for clip in manifest if clip.part == "validation"}
    left_out = [subject for subject in manifest.subjects if subject not in expected]
    if left_out:
        clips = sum(clip.subject_id not in expected for clip in manifest)
        log.warning(
            "%s: %s with %d clips left out, because they are in no part of the split %s.",
            manifest.name,
            some_subjects(left_out),
            clips,
            split.protocol,
        )


def write_split(path: Path, split: Split, manifest: Manifest, made_with: Mapping[str, object]) -> None:
    """Write a split as JSON, to be published and read with the protocol "file".

    Args:
        path: file to write; must not exist yet.
        split: subjects of each part.
        manifest: clips of the data set; its name and fingerprint are written too.
        made_with: options that determined the split, such as `SplitOptions.decisive()`.

    Raises:
        PainseqError: the file exists, or cannot be written.
    """
    content = {
        "format": FILE_FORMAT,
        "data_set": manifest.name,
        "fingerprint": manifest.fingerprint(),
        "made_with": dict(made_with),
        **split.to_dict(),
    }
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2, default=str) + "\n")
    except FileExistsError as error:
        raise PainseqError(f"{path} already exists and is not overwritten. Choose another name.") from error
    except OSError as error:
        raise PainseqError(f"{path} cannot be written: {error}.") from error


def made_with(options: SplitOptions) -> dict[str, object]:
    """Options that determined a split, for `write_split`; for a split read from a file, those stored in the file."""
    if options.protocol == "file" and options.file is not None:
        return read_made_with(options.file)
    return options.decisive()


def read_made_with(path: Path) -> dict[str, object]:
    """Read the options that determined the split in a file.

    Raises:
        PainseqError: no such file, or not a split.
    """
    options = _read_file(path).get("made_with")
    return options if isinstance(options, dict) else {}


def read_split(path: Path, manifest: Manifest) -> Split:
    """Read a split that was written by `write_split`.

    Warns if the manifest has another fingerprint (other clips, labels or spans).

    Raises:
        PainseqError: no such file, not a split, another data set, or a subject without a clip.
        LeakError: a subject is in two parts.
    """
    content = _read_file(path)
    for key in ("data_set", "fingerprint", "protocol"):
        if not isinstance(content.get(key), str):
            raise PainseqError(f"{path}: {key} is {content.get(key)!r}; it must be a text.")
    for part in PARTS:
        subjects = content.get(part)
        if not isinstance(subjects, list) or not all(isinstance(subject, str) for subject in subjects):
            raise PainseqError(f"{path}: {part} must be a list of subject ids, each in quotation marks.")
    if content["data_set"] != manifest.name:
        raise PainseqError(f"{path} is a split of the data set {content['data_set']!r}, not of {manifest.name!r}.")
    split = _listed(manifest, content["protocol"], {part: content[part] for part in PARTS}, str(path))
    if content["fingerprint"] != manifest.fingerprint():
        log.warning(
            "%s was made for clips of %s with the fingerprint %s, but the current fingerprint is %s: the clips or the "
            "label scheme differ. The subjects are split as in the file.",
            path,
            manifest.name,
            content["fingerprint"],
            manifest.fingerprint(),
        )
    return split


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise PainseqError(f"No split file at {path}. `painseq split` writes one.") from error
    except (OSError, ValueError) as error:
        raise PainseqError(f"{path} cannot be read as a split: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FILE_FORMAT:
        found = repr(content.get("format")) if isinstance(content, dict) else "none"
        raise PainseqError(f"{path} is not a split file of format {FILE_FORMAT}; its format: {found}.")
    return content


def qualified(dataset: str, subjects: Iterable[str]) -> frozenset[str]:
    """Qualify subject ids as "data set/subject", to compare them across data sets."""
    return frozenset(f"{dataset}/{subject}" for subject in subjects)


def check_no_leak(fitted_on: Iterable[str], scored_on: Iterable[str], what: str = "The model") -> None:
    """Check that no scored subject was used to fit a model (leak check between fitted and scored subjects).

    Args:
        fitted_on: qualified ids of subjects used for weights, early stopping or class weights.
        scored_on: qualified ids of subjects to be scored.
        what: the model, as the subject of the error message.

    Raises:
        LeakError: a subject is in both; the message lists them.
    """
    both = shared_people(scored_on, fitted_on)
    if both:
        raise LeakError(
            f"{what} was fitted on {some_subjects(both)} of the subjects to be scored. Such a score says nothing about "
            "new subjects. Score other subjects, or fit on other subjects."
        )
