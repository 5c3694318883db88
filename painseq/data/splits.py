"""Subject-wise splits and folds, and the one leak check that every fit and every evaluation passes through."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from painseq.data.protocols import SplitOptions, check_options, class_counts, divide, kfold, known, random_state_of
from painseq.errors import LeakError, PainseqError
from painseq.records import PARTS, Clip, Manifest, Part, some_subjects

if TYPE_CHECKING:
    from painseq.data.labels import LabelScheme

log = logging.getLogger("painseq")

FILE_FORMAT = 1


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
                    f"{some_subjects(both)} on both sides of the split: {name} and {other}. Every subject belongs to "
                    "one part."
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


def split_of_items(parts: Mapping[Part, Sequence[Clip]], items: Sequence[Clip], protocol: str) -> Split:
    """The split that parts of items make: leaky where somebody stands in two of them.

    Args:
        parts: the clip of each item.
        items: those of all items; on a leaky split, whoever they show counts as trained on and as tested.
        protocol: how the items were divided; of a leaky split, _LEAKY is added.
    """
    own = {part: {clip.subject_id for clip in clips} for part, clips in parts.items()}
    if sum(map(len, own.values())) == len(set().union(*own.values())):
        return Split(protocol, *(tuple(sorted(own.get(part, ()))) for part in PARTS))
    everybody = tuple(sorted({clip.subject_id for clip in items}))
    return LeakySplit(
        f"{protocol}_LEAKY",
        everybody,
        everybody if "validation" in parts else (),
        everybody,
        {part: frozenset(clip.clip_id for clip in clips) for part, clips in parts.items()},
    )


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
    split = _split(manifest, options, class_counts(manifest, scheme))
    _tell_left_out(split, manifest)
    return split


def every_fold(manifest: Manifest, options: SplitOptions, scheme: LabelScheme | None = None) -> list[Split]:
    """All folds of "subject_kfold" or "loso", in order: what `make_split` gives for each `fold`.

    Raises:
        PainseqError: a protocol without folds; see `make_split`.
    """
    counts = class_counts(manifest, scheme)
    if options.protocol == "subject_kfold":
        folds = options.folds
    elif options.protocol == "loso":
        folds = len(known(counts))
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
    counts = class_counts(manifest, scheme)
    outer = {*split.train, *split.validation}
    subjects = [subject for subject in known(counts) if subject in outer]
    parts = kfold(subjects, folds, random_state_of(seed, 0), counts, f"The training subjects of {manifest.name}")
    return [
        Split(f"{split.protocol}_inner_fold", tuple(s for s in subjects if s not in part), part, ()) for part in parts
    ]


def _split(manifest: Manifest, options: SplitOptions, counts: Mapping[str, Counter[object]]) -> Split:
    check_options(options)
    if options.protocol == "subject_lists":
        return _named(manifest, options.protocol, {part: getattr(options, part) for part in PARTS}, "The split")
    if options.protocol == "file":
        assert options.file is not None
        return read_split(options.file, manifest)
    return Split(options.protocol, *divide(manifest, options, counts))


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
            f"{what} names {some_subjects(unknown, len(unknown))} without a clip in {manifest.name} under its label "
            f"scheme. It has {some_subjects(manifest.subjects)}."
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
            some_subjects(left_out),
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


def made_with(options: SplitOptions) -> dict[str, object]:
    """What decided a split, for `write_split`: the options, or for a split read from a file what decided that one."""
    if options.protocol == "file" and options.file is not None:
        return read_made_with(options.file)
    return options.decisive()


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
            f"{what} was fitted on {some_subjects(both)} of those to be scored. A score on people it has seen says "
            "nothing of a new patient. Score other subjects, or fit on other subjects."
        )
