"""Subject-wise splits and folds, and the one leak check that every fit and every evaluation passes through."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from painseq.errors import LeakError, PainseqError
from painseq.records import PARTS, Clip, Manifest, Part

if TYPE_CHECKING:
    from painseq.labels import LabelScheme

log = logging.getLogger("painseq")

Protocol = Literal["official", "official_inner", "subject_holdout", "subject_kfold", "loso", "subject_lists", "file"]

FILE_FORMAT = 1

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


@dataclass(frozen=True)
class LeakySplit(Split):
    """Parts that divide clips or frames, not subjects: only to show how much such a score flatters.

    Every subject counts as trained on and as tested, so no model fitted on it is scored as if the subjects were new.

    Args:
        protocol: ends in _LEAKY, and is shown wherever the split is.
        clip_ids: the clips of each part; those of single frames may be in several.
    """

    clip_ids: Mapping[Part, frozenset[str]]

    def __post_init__(self) -> None:
        if not self.protocol.endswith("_LEAKY"):
            raise ValueError(f"The protocol of a leaky split says so: {self.protocol}_LEAKY.")

    def clips(self, manifest: Manifest, part: Part) -> tuple[Clip, ...]:
        """The clips of one part, in the manifest's order."""
        return tuple(clip for clip in manifest if clip.clip_id in self.clip_ids.get(part, ()))


def make_split(manifest: Manifest, options: SplitOptions, scheme: LabelScheme | None = None) -> Split:
    """Split a data set by subject. The order of the manifest's rows does not matter.

    Subjects in no part are left out, and told in a warning. "subject_kfold" and "loso" leave out those of whom no clip
    has a known label, since nothing can be learned from them or scored. They even out the classes between the parts as
    far as whole subjects allow; the other protocols draw by chance alone.

    Args:
        manifest: whose subjects.
        options: protocol and what it reads.
        scheme: the classes to even out; None is the native labels.

    Raises:
        PainseqError: too few subjects, a fold or subject that does not exist, no official parts, a file that does not
            fit, an option that the protocol does not read.
        LeakError: a subject in two parts.
    """
    split = _split(manifest, options, _class_counts(manifest, scheme))
    _tell_left_out(split, manifest)
    return split


def every_fold(manifest: Manifest, options: SplitOptions, scheme: LabelScheme | None = None) -> list[Split]:
    """All folds of "subject_kfold" or "loso", in order: what `make_split` gives for each `fold`.

    Raises:
        PainseqError: a protocol without folds; see `make_split`.
    """
    counts = _class_counts(manifest, scheme)
    if options.protocol == "subject_kfold":
        folds = options.folds
    elif options.protocol == "loso":
        folds = len(_known(counts))
    else:
        raise PainseqError(f"Protocol {options.protocol!r} has no folds; subject_kfold and loso have.")
    # With no fold at all, the first one says what is wrong.
    numbered = [replace(options, fold=fold, fold_subject=None) for fold in range(max(1, folds))]
    splits = [_split(manifest, chosen, counts) for chosen in numbered]
    _tell_left_out(splits[0], manifest)
    return splits


def inner_splits(
    split: Split, manifest: Manifest, folds: int, seed: int, scheme: LabelScheme | None = None
) -> list[Split]:
    """Folds inside a split, to choose settings or a number of epochs without a look at those tested at the end.

    All subjects that are not tested, training and validation alike, are divided into `folds`; in turn each fold is the
    validation part, and the rest is trained on. The test part of an inner split is empty. Classes are evened out.

    Args:
        split: the outer one; its test subjects are in no inner split.
        manifest: the clips, which tell the classes of each subject.
        folds: how many, 2 or more.
        seed: of the folds.
        scheme: the classes to even out; None is the native labels.

    Raises:
        PainseqError: fewer subjects with a known label than folds.
    """
    counts = _class_counts(manifest, scheme)
    outer = {*split.train, *split.validation}
    subjects = [subject for subject in _known(counts) if subject in outer]
    parts = _kfold(subjects, folds, _random_state(seed, 0), counts, f"The training subjects of {manifest.name}")
    return [
        Split(f"{split.protocol}_inner_fold", tuple(s for s in subjects if s not in part), part, ()) for part in parts
    ]


def _split(manifest: Manifest, options: SplitOptions, counts: Mapping[str, Counter[object]]) -> Split:
    protocol = options.protocol
    _check_options(options)
    if protocol == "subject_lists":
        return _named(manifest, protocol, {part: getattr(options, part) for part in PARTS}, "The split")
    if protocol == "file":
        assert options.file is not None
        return read_split(options.file, manifest)
    if protocol == "official":
        return Split(protocol, *(tuple(subjects) for subjects in _official(manifest).values()))
    random_state = _random_state(options.seed, options.repeat)
    if protocol == "official_inner":
        official = _official(manifest)
        if not official["train"]:
            raise PainseqError(f"{manifest.name} has no official training subjects to split once more.")
        train, validation = _holdout(official["train"], options.validation_share, random_state, "validation")
        return Split(protocol, train, validation, tuple(official["test"]))
    if protocol == "subject_holdout":
        rest, test = _holdout(manifest.subjects, options.test_share, random_state, "test")
        train, validation = _holdout(rest, options.validation_share, random_state, "validation")
        return Split(protocol, train, validation, test)
    subjects = _known(counts)
    if protocol == "subject_kfold":
        parts = _kfold(subjects, options.folds, random_state, counts, manifest.name)
        test = _fold(parts, options.fold)
    else:
        test = (_left_out_subject(manifest, subjects, options),)
    rest = tuple(subject for subject in subjects if subject not in test)
    if not rest:
        raise PainseqError(f"{manifest.name} has one subject with a known label, so nobody is left to train on.")
    train, validation = _holdout(rest, options.validation_share, random_state, "validation", counts)
    return Split(protocol, train, validation, test)


def _check_options(options: SplitOptions) -> None:
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


def _official(manifest: Manifest) -> dict[Part, list[str]]:
    official = {part: sorted({clip.subject_id for clip in manifest if clip.part == part}) for part in PARTS}
    if not any(official.values()):
        raise PainseqError(
            f"{manifest.name} has no official split here. Choose --data.options.split.protocol subject_holdout "
            "or subject_kfold."
        )
    return official


def _class_counts(manifest: Manifest, scheme: LabelScheme | None) -> dict[str, Counter[object]]:
    """Subject, sorted -> clips a class; hidden labels are not counted."""
    counts: dict[str, Counter[object]] = {subject: Counter() for subject in manifest.subjects}
    for (subject, label), clips in Counter((clip.subject_id, clip.label) for clip in manifest).items():
        kind = label if scheme is None or label is None else scheme.target(label)
        if kind is not None:
            counts[subject][kind] += clips
    return counts


def _known(counts: Mapping[str, Counter[object]]) -> tuple[str, ...]:
    """The subjects of whom a label is known, sorted."""
    return tuple(subject for subject, classes in counts.items() if classes)


def _random_state(seed: int, repeat: int) -> int:
    if not 0 <= seed < 2**32 or repeat < 0:
        raise PainseqError(
            f"The split's seed is {seed} and its repeat {repeat}; a seed is a whole number from 0 to 4294967295, a "
            "repeat is 0 or more."
        )
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0]) if repeat else seed


def _kfold(
    subjects: Sequence[str], folds: int, random_state: int, counts: Mapping[str, Counter[object]], whose: str
) -> list[tuple[str, ...]]:
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
            f"{_some(list(subjects))} to leave out."
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


def _named(manifest: Manifest, protocol: str, lists: Mapping[Part, Iterable[str]], what: str) -> Split:
    """A split of subjects by name.

    Raises:
        PainseqError: nobody is named, or somebody who has no clip; names them all.
    """
    named = {subject for subjects in lists.values() for subject in subjects}
    if not named:
        raise PainseqError(f"{what} names no subject: give the lists train, validation and test.")
    unknown = sorted(named - set(manifest.subjects))
    if unknown:
        raise PainseqError(
            f"{what} names {_some(unknown, len(unknown))} without a clip in {manifest.name} under its label scheme. "
            f"It has {_some(list(manifest.subjects))}."
        )
    return Split(protocol, *(tuple(sorted(set(lists[part]))) for part in PARTS))


def _tell_left_out(split: Split, manifest: Manifest) -> None:
    taken = {subject for part in PARTS for subject in split.subjects(part)}
    if split.protocol == "official_inner":
        # That it leaves the official validation part alone is what it is for.
        taken |= {clip.subject_id for clip in manifest if clip.part == "validation"}
    left_out = [subject for subject in manifest.subjects if subject not in taken]
    if left_out:
        clips = sum(clip.subject_id not in taken for clip in manifest)
        log.warning(
            "%s: %s with %d clips left out: in no part of the split %s.",
            manifest.name,
            _some(left_out),
            clips,
            split.protocol,
        )


def write_split(path: Path, split: Split, manifest: Manifest, made_with: Mapping[str, object]) -> None:
    """Write a split to be published, and read again with the protocol "file".

    Args:
        path: JSON to write; must not exist yet.
        split: who is in which part.
        manifest: what was split; its name and fingerprint are written down.
        made_with: what decided it, such as `SplitOptions.decisive()`; for the reader of the file.

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
        raise PainseqError(f"{path} exists already, and nothing is overwritten. Choose another name.") from error
    except OSError as error:
        raise PainseqError(f"{path} cannot be written: {error}.") from error


def read_made_with(path: Path) -> dict[str, object]:
    """What decided the split in a file.

    Raises:
        PainseqError: no such file, or not a split.
    """
    made_with = _read_file(path).get("made_with")
    return made_with if isinstance(made_with, dict) else {}


def read_split(path: Path, manifest: Manifest) -> Split:
    """Read a split that `write_split` wrote. Its protocol is the one that made it.

    A manifest with another fingerprint (other clips, labels or spans) is told in a warning.

    Raises:
        PainseqError: no such file, not a split, of another data set, or it names a subject without a clip.
        LeakError: a subject in two parts.
    """
    content = _read_file(path)
    for key in ("data_set", "fingerprint", "protocol"):
        if not isinstance(content.get(key), str):
            raise PainseqError(f"{path}: {key} is {content.get(key)!r}; it must be a text.")
    for part in PARTS:
        subjects = content.get(part)
        if not isinstance(subjects, list) or not all(isinstance(subject, str) for subject in subjects):
            raise PainseqError(f"{path}: {part} must be a list of names of subjects, each in quotation marks.")
    if content["data_set"] != manifest.name:
        raise PainseqError(f"{path} splits the data set {content['data_set']!r}, but this is {manifest.name!r}.")
    split = _named(manifest, content["protocol"], {part: content[part] for part in PARTS}, str(path))
    if content["fingerprint"] != manifest.fingerprint():
        log.warning(
            "%s was made for clips of %s with the fingerprint %s, and here it is %s: other clips, or another label "
            "scheme. The subjects are divided as the file says.",
            path,
            manifest.name,
            content["fingerprint"],
            manifest.fingerprint(),
        )
    return split


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PainseqError(f"No split file at {path}. `painseq split` writes one.") from error
    except (OSError, ValueError) as error:
        raise PainseqError(f"{path} cannot be read as a split: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FILE_FORMAT:
        found = repr(content.get("format")) if isinstance(content, dict) else "none"
        raise PainseqError(f"{path} is no split file of format {FILE_FORMAT}; its format: {found}.")
    return content


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


def _some(subjects: Sequence[str], most: int = 5) -> str:
    named = ", ".join(subjects[:most])
    more = f" and {len(subjects) - most} more" if len(subjects) > most else ""
    return f"{len(subjects)} subject{'s' if len(subjects) > 1 else ''} ({named}{more})"
