"""Label schemes: from a data set's native labels to the named classes of an experiment."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from painseq.data.facts import DataSetFacts
from painseq.errors import PainseqError
from painseq.records import UNKNOWN, Clip, Manifest, plain_name

log = logging.getLogger("painseq")

_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"(?P<above>>)?(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})")


@dataclass(frozen=True)
class Scale:
    """Numbers that labels are, for regression.

    Args:
        name: e.g. "pspi", "vas".
        low: the smallest number, no pain; 0 or more.
        high: the largest.

    Raises:
        PainseqError: a range that ends before it begins, or begins below 0.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise PainseqError(
                f"The scale {self.name!r} goes from {self.low:g} to {self.high:g}; it must begin at 0 or above, and "
                "end higher."
            )

    def __str__(self) -> str:
        return f"{self.name}, {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class LabelScheme:
    """What a model of one data set is to say: a class, or a number on a scale.

    Args:
        dataset: whose native labels these are.
        name: e.g. "binary", "three", "five", "pspi".
        classes: class name -> native labels or ranges of them, in order of pain; empty with a scale.
        known: all labels that the data set uses, as labels or ranges; empty where nobody knows them all.
        scale: for regression, the numbers that the labels are.
    """

    dataset: str
    name: str
    classes: Mapping[str, tuple[str, ...]]
    known: tuple[str, ...] = ()
    scale: Scale | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order of pain; an index into them is a target. None with a scale."""
        return tuple(self.classes)

    @property
    def groups(self) -> tuple[str, ...]:
        """What clips are counted by: the classes, or with a scale all of it together."""
        return self.class_names if self.scale is None else (self.scale.name,)

    @property
    def ordered(self) -> bool:
        """Whether the order of pain is known; words that were merely found stand by the alphabet."""
        return self.name != "native" or bool(self.known) or all(_number(label) is not None for label in self.classes)

    def group(self, native: str | None) -> str | None:
        """Which of `groups` a native label belongs to; None for one that is hidden or left out."""
        target = self.target(native)
        if target is None or target == UNKNOWN:
            return None
        return self.groups[int(target) if self.scale is None else 0]

    def target(self, native: str | None) -> float | None:
        """Class index of a native label, or its number on the scale.

        `UNKNOWN` for a hidden label, None for one that the scheme leaves out.
        """
        if native is None:
            return UNKNOWN
        if self.scale is not None:
            number = _number(native)
            return None if number is None or not self.scale.low <= number <= self.scale.high else number
        for index, entries in enumerate(self.classes.values()):
            if _is_among(native, entries):
                return index
        return None

    def knows(self, native: str) -> bool:
        """Whether the data set uses this label."""
        return not self.known or _is_among(native, self.known)

    def native(self, class_name: str) -> str:
        """The native label that a class name stands for in a submission.

        Raises:
            PainseqError: the class is a range of numbers, of which none stands for it.
        """
        entry = self.classes[class_name][0]
        if _RANGE.fullmatch(entry):
            raise PainseqError(
                f"Class {class_name} of {self.dataset} is the range {entry}, so it has no native label of its own."
            )
        return entry

    def apply(self, manifest: Manifest) -> Manifest:
        """The clips that take part: those whose label the scheme maps, or hides.

        Raises:
            PainseqError: a label that the data set is not known to use, with all that were found; one that two classes
                claim; two classes whose labels differ in their spelling alone.
        """
        found = Counter(clip.label for clip in manifest if clip.label is not None)
        listed = ", ".join(f"{label} ({found[label]} clips)" for label in ordered_labels(found))
        unknown = [label for label in ordered_labels(found) if not self.knows(label)]
        if unknown:
            first = next(clip.clip_id for clip in manifest if clip.label == unknown[0])
            raise PainseqError(
                f"{manifest.name}: unknown label {unknown[0]!r}. Found: {listed}; known: {', '.join(self.known)}. "
                f"It is that of the clip {first!r}."
            )
        for label in found:
            claiming = [name for name, entries in self.classes.items() if _is_among(label, entries)]
            if len(claiming) > 1:
                raise PainseqError(
                    f"{manifest.name}: label {label!r} belongs to {' and '.join(claiming)}; give it one."
                )
        spelling: dict[str, str] = {}
        for label in ordered_labels(found):
            same = spelling.setdefault(plain_name(label), label)
            if None not in (self.target(same), self.target(label)) and self.target(same) != self.target(label):
                raise PainseqError(
                    f"{manifest.name}: labels {same!r} and {label!r} differ in capitals, blanks or the encoding of a "
                    f"letter alone, and are two classes. Write them in one way. Found: {listed}."
                )
        left_out = [label for label in ordered_labels(found) if self.target(label) is None]
        if left_out and (self.name == "own" or not self.known):
            log.warning("%s: no class for %s; found: %s.", manifest.name, ", ".join(left_out), listed)
        idle = [e for entries in self.classes.values() for e in entries if not any(_is_among(n, [e]) for n in found)]
        if idle and self.name == "own":
            log.warning("%s: no clip has the label %s; found: %s.", manifest.name, ", ".join(idle), listed)
        return manifest.only(clip for clip in manifest if self.target(clip.label) is not None)

    def counts(self, clips: Manifest | tuple[Clip, ...]) -> dict[str, int]:
        """Clips of each of the `groups`, in order; hidden labels are left out."""
        found = Counter(self.group(clip.label) for clip in clips)
        return {name: found[name] for name in self.groups}


def label_scheme(dataset: str, name: str, facts: DataSetFacts) -> LabelScheme:
    """Look up a scheme of a data set.

    Args:
        dataset: its name.
        name: of a scheme; or a range of numbers such as "0..10", for regression on labels that are numbers.
        facts: what the data set's module states, as `BioVid.facts`; `DataSetFacts()` for data of your own.

    Raises:
        PainseqError: the data set has no scheme of that name; lists those it has.
    """
    if _RANGE.fullmatch(name):
        return LabelScheme(dataset, name, {}, (name,), scale_of("value", name))
    if name in facts.scales:
        written = facts.scales[name]
        return LabelScheme(dataset, name, {}, (written,), scale_of(name, written))
    if name not in facts.schemes:
        has = ", ".join([*facts.schemes, *facts.scales])
        if has:
            raise PainseqError(f"{dataset} has no label scheme {name!r}; it has: {has}.")
        raise PainseqError(
            f"The data set {dataset!r} has no label scheme {name!r}, nor any other. Write the classes into the data "
            "options (labels: {no_pain: [...], high_pain: [...]}), make every label a class (labels: native), or take "
            "numbers as they are (labels: 0..10)."
        )
    scale = facts.scales.get(name.partition("_")[0])
    return LabelScheme(dataset, name, facts.schemes[name], facts.native if scale is None else (scale,))


def own_scheme(
    dataset: str, classes: Mapping[str, Sequence[str | int | float]], known: Sequence[str] = ()
) -> LabelScheme:
    """A scheme that the user wrote.

    Args:
        dataset: whose native labels these are.
        classes: class name -> native labels or ranges, in order of pain.
        known: all labels that the data set uses; empty where nobody knows them all.

    Raises:
        PainseqError: fewer than two classes, a class without labels, a name that YAML took for yes or no, a label in
            two classes, one that the data set does not use.
    """
    wrong = [name for name in classes if not isinstance(name, str)]
    if wrong:
        raise PainseqError(
            f"labels names a class {wrong[0]!r}: YAML takes yes, no, on, off and bare numbers for values. Put the name "
            "in quotes."
        )
    if len(classes) < 2:
        raise PainseqError(f"labels has {len(classes)} classes ({', '.join(classes) or 'none'}); give two or more.")
    written = {name: tuple(map(_written, entries)) for name, entries in classes.items()}
    scheme = LabelScheme(dataset, "own", written, tuple(known))
    claims = Counter(entry for entries in written.values() for entry in entries)
    for name, entries in written.items():
        if not entries:
            raise PainseqError(f"labels gives class {name} no label; list the native labels that it stands for.")
        for entry in entries:
            if claims[entry] > 1:
                raise PainseqError(f"labels lists {entry!r} more than once; a label has one class.")
            span = _RANGE.fullmatch(entry)
            if span is not None and float(span["low"]) > float(span["high"]):
                raise PainseqError(f"labels gives class {name} the range {entry!r}, which ends before it begins.")
            if span is None and not scheme.knows(entry):
                raise PainseqError(
                    f"labels gives class {name} the label {entry!r}, which {dataset} does not use; it uses: "
                    f"{', '.join(scheme.known)}."
                )
    return scheme


def native_scheme(manifest: Manifest, order: Sequence[str] = ()) -> LabelScheme:
    """Every label found is a class of its own.

    Args:
        manifest: all clips of the data set.
        order: all its labels in order of pain; none given stands for numbers by size, then words by the alphabet.

    A label that is not in the order given, or not known for the data set, has no class; `LabelScheme.apply` refuses it.
    """
    found = {clip.label for clip in manifest if clip.label is not None}
    known = tuple(order)
    named = [label for label in ordered_labels(found, known) if not known or _is_among(label, known)]
    scheme = LabelScheme(manifest.name, "native", {label: (label,) for label in named}, known)
    if not scheme.ordered:
        log.warning(
            "%s: no order of pain is known, so the alphabet's stands for it, from no pain on: %s. Kappa and mean error "
            "depend on it; --data.classes tells the right one.",
            manifest.name,
            ", ".join(named),
        )
    return scheme


def ordered_labels(labels: Iterable[str], order: Sequence[str] = ()) -> list[str]:
    """Labels as `order` has them; what it has not, behind: numbers by size, then words by the alphabet."""

    def place(label: str) -> tuple[int, int, float, str]:
        number = _number(label)
        listed = order.index(label) if label in order else len(order)
        return (listed, 1, 0.0, label) if number is None else (listed, 0, number, label)

    return sorted(labels, key=place)


def scale_of(name: str, written: str) -> Scale:
    """A scale from a range as it is written, such as "0..16".

    Raises:
        PainseqError: not a range, or one that no scale can have.
    """
    span = _RANGE.fullmatch(written)
    if span is None or span["above"]:
        raise PainseqError(f"The scale {name!r} is written {written!r}; write its ends as 0..10.")
    return Scale(name, float(span["low"]), float(span["high"]))


def check_same_targets(trained: tuple[str, ...], scale: Scale | None, data: LabelScheme) -> None:
    """Refuse to score a model on data with other classes, or of another scale.

    Args:
        trained: the model's classes; none with a scale.
        scale: the model's.
        data: of what is to be scored.

    Raises:
        PainseqError: they differ; says how to choose a scheme.
    """
    if scale != data.scale:
        raise PainseqError(
            f"The model says {_said(trained, scale)}, and the data has {_said(data.class_names, data.scale)}. Choose "
            "the label scheme that the model was fitted with (--data.options.labels), or fit a model for these labels."
        )
    if trained != data.class_names:
        raise PainseqError(
            f"The model tells {len(trained)} classes apart ({', '.join(trained)}), the data has "
            f"{len(data.class_names)} ({', '.join(data.class_names)}). Choose a label scheme with the model's classes: "
            "--data.options.labels (binary, three, five; docs/data_sets.md lists them), or train a model for these "
            "classes."
        )


def _said(names: tuple[str, ...], scale: Scale | None) -> str:
    return f"classes ({', '.join(names)})" if scale is None else f"numbers on a scale ({scale})"


def _is_among(label: str, entries: Sequence[str]) -> bool:
    number = _number(label)
    return any(
        label == entry or (number is not None and number == _number(entry)) or _in_range(label, entry)
        for entry in entries
    )


@lru_cache(maxsize=4096)
def _in_range(label: str, entry: str) -> bool:
    span, number = _RANGE.fullmatch(entry), _number(label)
    if span is None or number is None:
        return False
    low, high = float(span["low"]), float(span["high"])
    return low <= number <= high and not (span["above"] and number == low)


def _number(label: str) -> float | None:
    return float(label) if re.fullmatch(_NUMBER, label) else None


def _written(entry: str | int | float) -> str:
    return entry if isinstance(entry, str) else f"{entry:g}"
