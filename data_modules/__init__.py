"""One file per data set: its folder layout, subjects, labels, label schemes and published facts."""

from painseq.data.facts import DataSetFacts
from painseq.errors import PainseqError

from .ai4pain import AI4Pain
from .biovid import BioVid
from .folder import Folder
from .mintpain import MIntPAIN
from .unbc import UNBC
from .xite import XITE

__all__ = ["UNBC", "XITE", "AI4Pain", "BioVid", "Folder", "MIntPAIN"]

FACTS: dict[str, DataSetFacts] = {module.name: module.facts for module in (UNBC, XITE, AI4Pain, BioVid, MIntPAIN)}
"""Known facts of each data set, by its name."""


def facts_of(dataset: str) -> DataSetFacts:
    """Return the known facts of a data set, by its name.

    Raises:
        PainseqError: an unknown name; lists the known ones.
    """
    if dataset not in FACTS:
        raise PainseqError(f"Unknown data set {dataset!r}; known data sets: {', '.join(sorted(FACTS))}.")
    return FACTS[dataset]
