"""One file a data set: where its videos lie, whose they are, and which labels they carry."""

from .ai4pain import AI4Pain
from .biovid import BioVid
from .folder import Folder
from .mintpain import MIntPAIN
from .unbc import UNBC
from .xite import XITE

__all__ = ["UNBC", "XITE", "AI4Pain", "BioVid", "Folder", "MIntPAIN"]
