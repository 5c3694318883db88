"""Fitted models: their records, checkpoints and predictions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from painseq.model.averaging import load_averaged
    from painseq.model.checkpoint import load, read_checkpoint
    from painseq.model.pain_model import PainModel
    from painseq.model.prediction import Answer, VideoPrediction
    from painseq.model.predictor import Predictor

_MODULES = {
    "Answer": "prediction",
    "PainModel": "pain_model",
    "Predictor": "predictor",
    "VideoPrediction": "prediction",
    "load": "checkpoint",
    "load_averaged": "averaging",
    "read_checkpoint": "checkpoint",
}
__all__ = ["Answer", "PainModel", "Predictor", "VideoPrediction", "load", "load_averaged", "read_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: most of these modules need torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'painseq.model' has no attribute {name!r}")
    return getattr(importlib.import_module(f"painseq.model.{_MODULES[name]}"), name)
