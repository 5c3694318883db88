"""Label schemes: from a data set's native labels to the named classes of an experiment.

Schemes are data. To add one, add a row; to add a data set, add its native labels and its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from painseq.batch import UNKNOWN
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest

NATIVE: Mapping[str, tuple[str, ...]] = {
    "biovid": ("BL1", "PA1", "PA2", "PA3", "PA4"),
    "ai4pain": ("No_Pain", "Low_Pain", "High_Pain"),
}
"""All labels that a data set uses, in order of pain."""

SCHEMES: Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "biovid": {
        "binary": {"no_pain": ("BL1",), "high_pain": ("PA4",)},
        "three": {"no_pain": ("BL1",), "low_pain": ("PA1",), "high_pain": ("PA4",)},
        "five": {
            "no_pain": ("BL1",),
            "mild_pain": ("PA1",),
            "moderate_pain": ("PA2",),
            "severe_pain": ("PA3",),
            "extreme_pain": ("PA4",),
        },
    },
    "ai4pain": {
        "binary": {"no_pain": ("No_Pain",), "high_pain": ("High_Pain",)},
        "three": {"no_pain": ("No_Pain",), "low_pain": ("Low_Pain",), "high_pain": ("High_Pain",)},
    },
}
"""data set -> scheme -> class -> native labels. Native labels that a scheme leaves out leave the experiment."""


@dataclass(frozen=True)
class LabelScheme:
    """The classes of an experiment on one data set.

    Args:
        dataset: whose native labels these are.
        name: e.g. "binary", "three", "five".
        classes: class name -> native labels, in order of pain.
    """

    dataset: str
    name: str
    classes: Mapping[str, tuple[str, ...]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order of pain; an index into them is a target."""
        return tuple(self.classes)

    def target(self, native: str | None) -> int | None:
        """Class index of a native label; `UNKNOWN` for a hidden one, None for one that the scheme leaves out."""
        if native is None:
            return UNKNOWN
        for index, natives in enumerate(self.classes.values()):
            if native in natives:
                return index
        return None

    def native(self, class_name: str) -> str:
        """The native label that a class name stands for in a submission."""
        return self.classes[class_name][0]

    def apply(self, manifest: Manifest) -> Manifest:
        """The clips that take part: those whose label the scheme maps, or hides.

        Raises:
            PainseqError: a label that the data set is not known to use, with all that were found.
        """
        found = Counter(clip.label for clip in manifest if clip.label is not None)
        unknown = sorted(set(found) - set(NATIVE[self.dataset]))
        if unknown:
            raise PainseqError(
                f"{manifest.name}: unknown label {unknown[0]!r}. Found: "
                f"{', '.join(f'{label} ({n} clips)' for label, n in sorted(found.items()))}; "
                f"known: {', '.join(NATIVE[self.dataset])}."
            )
        return manifest.only(clip for clip in manifest if self.target(clip.label) is not None)

    def counts(self, clips: Manifest | tuple[Clip, ...]) -> dict[str, int]:
        """Clips a class, for the classes in order; hidden labels are left out."""
        names = self.class_names
        targets = Counter(self.target(clip.label) for clip in clips)
        return {name: targets[index] for index, name in enumerate(names)}


def label_scheme(dataset: str, name: str) -> LabelScheme:
    """Look up a scheme.

    Raises:
        PainseqError: the data set has no scheme of that name; lists those it has.
    """
    schemes = SCHEMES.get(dataset)
    if schemes is None:
        raise PainseqError(f"No label schemes for data set {dataset!r}; there are some for: {', '.join(SCHEMES)}.")
    if name not in schemes:
        raise PainseqError(f"{dataset} has no label scheme {name!r}; it has: {', '.join(schemes)}.")
    return LabelScheme(dataset, name, schemes[name])


def check_same_classes(trained: tuple[str, ...], data: tuple[str, ...]) -> None:
    """Refuse to score a model on data with other classes.

    Raises:
        PainseqError: the class names differ; says how to choose a scheme.
    """
    if trained != data:
        raise PainseqError(
            f"The model tells {len(trained)} classes apart ({', '.join(trained)}), the data has {len(data)} "
            f"({', '.join(data)}). Choose a label scheme with the model's classes: --data.options.labels "
            "(binary, three, five; painseq/labels.py lists them), or train a model for these classes."
        )
