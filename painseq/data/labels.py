"""Label schemes, which map a data set's native labels to the classes of an experiment or to a scale."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from painseq.data.facts import DataSetFacts
from painseq.errors import PainseqError, first_few
from painseq.records import UNKNOWN, Clip, Manifest, plain_name

log = logging.getLogger("painseq")

_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"(?P<above>>)?(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})")


@dataclass(frozen=True)
class Scale:
    """A scale of numeric labels, for regression.

    Args:
        name: e.g. "pspi", "vas".
        low: lowest number (no pain), 0 or more.
        high: highest number.

    Raises:
        PainseqError: `low` is below 0, or `high` is not above `low` or not finite.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high < math.inf:
            raise PainseqError(
                f"The scale {self.name!r} is {self.low:g} to {self.high:g}; it must start at 0 or above, and end at a "
                "higher, finite number."
            )

    def __str__(self) -> str:
        return f"{self.name}, {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class LabelScheme:
    """The targets of a model for one data set: classes, or numbers on a scale.

    Args:
        dataset: name of the data set.
        name: e.g. "binary", "three", "five", "pspi".
        classes: class name -> native labels or ranges of them, in order of pain; empty with a scale.
        known: all native labels of the data set, as labels or ranges; empty if not known.
        scale: the scale of the labels, for regression; None for classes.
    """

    dataset: str
    name: str
    classes: Mapping[str, tuple[str, ...]]
    known: tuple[str, ...] = ()
    scale: Scale | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order of pain; targets are indices into them. Empty with a scale."""
        return tuple(self.classes)

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups that clips are counted in: the classes, or a single group with a scale."""
        return self.class_names if self.scale is None else (self.scale.name,)

    @property
    def predicts_values(self) -> bool:
        """Whether targets are numbers on a scale, not classes."""
        return self.scale is not None

    @property
    def pain_free(self) -> str:
        """What target 0 is: the first class, or 0 on the scale."""
        return self.class_names[0] if self.scale is None else f"{self.scale.name} 0"

    @property
    def ordered(self) -> bool:
        """Whether the order of pain is known; other labels are sorted alphabetically."""
        return self.name != "native" or bool(self.known) or all(_number(label) is not None for label in self.classes)

    def group(self, native: str | None) -> str | None:
        """The group (see `groups`) of a native label; None for a label that is hidden or left out."""
        target = self.target(native)
        if target is None or target == UNKNOWN:
            return None
        return self.groups[int(target) if self.scale is None else 0]

    def target(self, native: str | None) -> float | None:
        """Class index of a native label, or its number on the scale.

        `UNKNOWN` for a hidden label (None); None for a label that the scheme leaves out.
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
        """The native label of a class in a submission.

        Raises:
            PainseqError: the class is a range of numbers.
        """
        entry = self.classes[class_name][0]
        if _RANGE.fullmatch(entry):
            raise PainseqError(
                f"Class {class_name} of {self.dataset} is the range {entry}, so it has no single native label."
            )
        return entry

    def apply(self, manifest: Manifest) -> Manifest:
        """Select the clips whose label the scheme maps, or that are hidden.

        Raises:
            PainseqError: an unknown label, a label in two classes, or two classes whose labels differ only in spelling.
        """
        found = Counter(clip.label for clip in manifest if clip.label is not None)
        listed = first_few(f"{label} ({found[label]} clips)" for label in ordered_labels(found))
        unknown = [label for label in ordered_labels(found) if not self.knows(label)]
        if unknown:
            first = next(clip.clip_id for clip in manifest if clip.label == unknown[0])
            raise PainseqError(
                f"{manifest.name}: unknown label {unknown[0]!r}. Found: {listed}; known: {first_few(self.known)}. "
                f"The first clip with it is {first!r}."
            )
        for label in found:
            names = [name for name, entries in self.classes.items() if _is_among(label, entries)]
            if len(names) > 1:
                raise PainseqError(
                    f"{manifest.name}: label {label!r} is in the classes {' and '.join(names)}; put it in one class."
                )
        spelling: dict[str, str] = {}
        for label in ordered_labels(found):
            same = spelling.setdefault(plain_name(label), label)
            if None not in (self.target(same), self.target(label)) and self.target(same) != self.target(label):
                raise PainseqError(
                    f"{manifest.name}: labels {same!r} and {label!r} are in two classes, but differ only in capitals, "
                    f"blanks or the encoding of a letter. Use one spelling. Found: {listed}."
                )
        left_out = [label for label in ordered_labels(found) if self.target(label) is None]
        if left_out and (self.name == "own" or not self.known):
            log.warning("%s: no class for %s; found: %s.", manifest.name, first_few(left_out), listed)
        unused = [e for entries in self.classes.values() for e in entries if not any(_is_among(n, [e]) for n in found)]
        if unused and self.name == "own":
            log.warning("%s: no clip has the label %s; found: %s.", manifest.name, first_few(unused), listed)
        return manifest.only(clip for clip in manifest if self.target(clip.label) is not None)

    def counts(self, clips: Manifest | tuple[Clip, ...]) -> dict[str, int]:
        """Number of clips in each of the `groups`, in order, without hidden labels."""
        found = Counter(self.group(clip.label) for clip in clips)
        return {name: found[name] for name in self.groups}


def label_scheme(dataset: str, name: str, facts: DataSetFacts) -> LabelScheme:
    """Look up a label scheme of a data set.

    Args:
        dataset: name of the data set.
        name: name of the scheme, or a range of numbers such as "0..10", for regression on numeric labels.
        facts: facts of the data set's module, such as `BioVid.facts`; `DataSetFacts()` for your own data.

    Raises:
        PainseqError: the data set has no scheme of that name; lists its schemes.
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
            f"The data set {dataset!r} has no label scheme {name!r}, and no other schemes. List the classes in the "
            "data options (labels: {no_pain: [...], high_pain: [...]}), make every label a class (labels: native), or "
            "use numeric labels (labels: 0..10)."
        )
    scale = facts.scales.get(name.partition("_")[0])
    return LabelScheme(dataset, name, facts.schemes[name], facts.native if scale is None else (scale,))


def own_scheme(
    dataset: str, classes: Mapping[str, Sequence[str | int | float]], known: Sequence[str] = ()
) -> LabelScheme:
    """Make a label scheme of the user's classes.

    Args:
        dataset: name of the data set.
        classes: class name -> native labels or ranges, in order of pain.
        known: all native labels of the data set; empty if not known.

    Raises:
        PainseqError: fewer than two classes, a class without labels, a name that YAML read as a boolean or number, a
            label in two classes, or an unknown label.

    Example:
        >>> own_scheme("mine", {"no_pain": ["calm"], "pain": ["1..4"]}).class_names
        ('no_pain', 'pain')
    """
    wrong = [name for name in classes if not isinstance(name, str)]
    if wrong:
        raise PainseqError(
            f"labels has a class named {wrong[0]!r}, which is not text: YAML reads yes, no, on, off and bare numbers "
            "as values. Put the name in quotes."
        )
    if len(classes) < 2:
        raise PainseqError(f"labels has {len(classes)} classes ({first_few(classes) or 'none'}); list two or more.")
    written = {name: tuple(map(_written, entries)) for name, entries in classes.items()}
    scheme = LabelScheme(dataset, "own", written, tuple(known))
    claims = Counter(entry for entries in written.values() for entry in entries)
    for name, entries in written.items():
        if not entries:
            raise PainseqError(f"labels has no native labels for class {name}; list them.")
        for entry in entries:
            if claims[entry] > 1:
                raise PainseqError(f"labels lists {entry!r} more than once; put a label in one class.")
            span = _RANGE.fullmatch(entry)
            if span is not None and float(span["low"]) > float(span["high"]):
                raise PainseqError(f"labels: class {name} has the range {entry!r}, which ends before it starts.")
            if span is None and not scheme.knows(entry):
                raise PainseqError(
                    f"labels: class {name} has the label {entry!r}, which is not a label of {dataset}; its labels: "
                    f"{first_few(scheme.known)}."
                )
    return scheme


def native_scheme(manifest: Manifest, order: Sequence[str] = ()) -> LabelScheme:
    """Make a label scheme in which every label found is a class.

    Labels that are not in `order` have no class; `LabelScheme.apply` rejects them.

    Args:
        manifest: all clips of the data set.
        order: all native labels in order of pain; if empty, numbers by value, then words alphabetically.
    """
    found = {clip.label for clip in manifest if clip.label is not None}
    known = tuple(order)
    named = [label for label in ordered_labels(found, known) if not known or _is_among(label, known)]
    scheme = LabelScheme(manifest.name, "native", {label: (label,) for label in named}, known)
    if not scheme.ordered:
        log.warning(
            "%s: the order of pain is not known, so labels are sorted alphabetically, starting with no pain: %s. Kappa "
            "and mean error depend on it; set the order with --data.classes.",
            manifest.name,
            first_few(named),
        )
    return scheme


def ordered_labels(labels: Iterable[str], order: Sequence[str] = ()) -> list[str]:
    """Sort labels as in `order`, followed by other labels: numbers by value, then words alphabetically."""

    def sort_key(label: str) -> tuple[int, int, float, str]:
        number = _number(label)
        listed = order.index(label) if label in order else len(order)
        return (listed, 1, 0.0, label) if number is None else (listed, 0, number, label)

    return sorted(labels, key=sort_key)


def scale_of(name: str, written: str) -> Scale:
    """Parse a scale from a range such as "0..16".

    Raises:
        PainseqError: not a range, or an invalid scale.
    """
    span = _RANGE.fullmatch(written)
    if span is None or span["above"]:
        raise PainseqError(f"The scale {name!r} is written as {written!r}; write it as a range such as 0..10.")
    return Scale(name, float(span["low"]), float(span["high"]))


def check_same_targets(trained: tuple[str, ...], scale: Scale | None, data: LabelScheme) -> None:
    """Check that a model and the data to be scored have the same classes or scale.

    Args:
        trained: class names of the model; empty with a scale.
        scale: scale of the model; None for classes.
        data: label scheme of the data to be scored.

    Raises:
        PainseqError: classes or scales differ; says how to choose a label scheme.
    """
    if scale != data.scale:
        raise PainseqError(
            f"The model predicts {_targets(trained, scale)}, but the data has "
            f"{_targets(data.class_names, data.scale)}. Choose the label scheme that the model was fitted with "
            "(--data.options.labels), or fit a model for these labels."
        )
    if trained != data.class_names:
        raise PainseqError(
            f"The model predicts {len(trained)} classes ({first_few(trained)}), but the data has "
            f"{len(data.class_names)} ({first_few(data.class_names)}). Choose a label scheme with the model's classes "
            "(--data.options.labels, such as binary, three or five; see docs/data_sets.md), or fit a model for these "
            "classes."
        )


def _targets(names: tuple[str, ...], scale: Scale | None) -> str:
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
