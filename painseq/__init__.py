"""painseq recognises pain, and its level, from face video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from painseq.errors import LeakError, PainseqError

if TYPE_CHECKING:
    from painseq.checkpoint import PainModel, VideoPrediction, load

__version__ = "0.1.0"
__all__ = ["LeakError", "PainModel", "PainseqError", "VideoPrediction", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """`painseq.load` and its types, imported when they are first asked for: they need torch, `--help` does not."""
    if name in ("PainModel", "VideoPrediction", "load"):
        from painseq import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module 'painseq' has no attribute {name!r}")
