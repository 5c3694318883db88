"""One file a data set: where its videos lie, whose they are, and which labels they carry."""

from data_modules.ai4pain import AI4Pain
from data_modules.biovid import BioVid

__all__ = ["AI4Pain", "BioVid"]
