"""Exported models without torch: what a folder of `painseq export` holds, and the model that predicts from it."""

from painseq.runtime.folder import ExportedRecord, read_folder

__all__ = ["ExportedRecord", "read_folder"]
