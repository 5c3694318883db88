"""One file a data set: where its videos lie, whose they are, and which labels they carry."""

from data_modules.ai4pain import AI4Pain
from data_modules.biovid import BioVid
from data_modules.folder import Folder
from data_modules.mintpain import MIntPAIN
from data_modules.unbc import UNBC
from data_modules.xite import XITE

__all__ = ["UNBC", "XITE", "AI4Pain", "BioVid", "Folder", "MIntPAIN"]
