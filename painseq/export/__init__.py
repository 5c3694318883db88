"""Export of fitted models to ONNX, for `painseq.runtime` and other programs without torch."""

from painseq.export.exporting import export
from painseq.export.int8 import Int8, OpenVino

__all__ = ["Int8", "OpenVino", "export"]
