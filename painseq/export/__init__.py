"""Export of fitted models to ONNX, for `painseq.runtime` and other programs without torch."""

from painseq.export.exporting import export

__all__ = ["export"]
