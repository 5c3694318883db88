"""Exported models without torch: what a folder of `painseq export` holds, and the model that predicts from it."""

from painseq.runtime.folder import ExportedRecord, read_folder
from painseq.runtime.model import ExportedModel, load

__all__ = ["ExportedModel", "ExportedRecord", "load", "read_folder"]
