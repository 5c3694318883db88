"""painseq recognises pain, and its level, from face video."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from painseq.errors import LeakError, PainseqError

if TYPE_CHECKING:
    from painseq.faces.movements import movements
    from painseq.model.checkpoint import load
    from painseq.model.pain_model import PainModel
    from painseq.model.prediction import VideoPrediction

# Some packages send notes of what is run to their makers: onnxruntime from 1.32 on, unless the variable is set;
# OpenVINO and nncf, unless the package by which they do cannot be imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"
__all__ = ["LeakError", "PainModel", "PainseqError", "VideoPrediction", "__version__", "load", "movements"]


def __getattr__(name: str) -> Any:
    """`painseq.load`, `painseq.movements`, ..., imported when they are first asked for: they need torch or OpenCV."""
    if name == "load":
        from painseq.model.checkpoint import load

        return load
    if name == "movements":
        from painseq.faces.movements import movements

        return movements
    if name in ("PainModel", "VideoPrediction"):
        from painseq import model

        return getattr(model, name)
    raise AttributeError(f"module 'painseq' has no attribute {name!r}")
