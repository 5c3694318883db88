"""Labels, splits, streams, and the data module that brings them together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from painseq.data.augment import Augment
    from painseq.data.datamodule import PainDataModule
    from painseq.data.datasets import FrameWindow
    from painseq.data.facts import DataSetFacts, Expected
    from painseq.data.labels import LabelScheme, Scale
    from painseq.data.options import DataOptions
    from painseq.data.protocols import SplitOptions
    from painseq.data.splits import Split

_MODULES = {
    "Augment": "augment",
    "DataOptions": "options",
    "DataSetFacts": "facts",
    "Expected": "facts",
    "FrameWindow": "datasets",
    "LabelScheme": "labels",
    "PainDataModule": "datamodule",
    "Scale": "labels",
    "Split": "splits",
    "SplitOptions": "protocols",
}
__all__ = [
    "Augment",
    "DataOptions",
    "DataSetFacts",
    "Expected",
    "FrameWindow",
    "LabelScheme",
    "PainDataModule",
    "Scale",
    "Split",
    "SplitOptions",
]


def __getattr__(name: str) -> Any:
    """Imported when first asked for: some of these need torch, labels and splits do not."""
    if name not in _MODULES:
        raise AttributeError(f"module 'painseq.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"painseq.data.{_MODULES[name]}"), name)
