"""One file a data set: where its videos lie, whose they are, which labels they carry, and what is published of them."""

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
"""What is known of a data set, by its name."""


def facts_of(dataset: str) -> DataSetFacts:
    """What is known of a data set, where only its name stands in a file or was typed.

    Raises:
        PainseqError: no data set of that name; lists those there are.
    """
    if dataset not in FACTS:
        raise PainseqError(f"No data set {dataset!r} is known; there are: {', '.join(sorted(FACTS))}.")
    return FACTS[dataset]
