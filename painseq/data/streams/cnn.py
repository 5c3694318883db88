"""The stream of the extractor's features."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from painseq.data.streams.clip_rows import ClipRows
from painseq.data.streams.stream import VideoStream
from painseq.errors import PainseqError
from painseq.records import Clip
from painseq.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from painseq.features import ClipFeatures, FeatureStore, NpzFolder


class CnnStream(VideoStream):
    """Features of the data's feature store; or crops, as input of the model's extractor.

    Args:
        shape: shape of one frame; None before a store is known.
    """

    name = "cnn"

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        self.shape = None if shape is None else tuple(shape)

    @property
    def columns(self) -> tuple[str, ...]:
        """Numbered columns."""
        if self.shape is None:
            raise PainseqError(
                "The number of the extractor's features is not known without a feature store. Set --data.options.store."
            )
        return tuple(f"cnn {number}" for number in range(math.prod(self.shape)))

    @property
    def identity(self) -> Spec:
        """Empty: extractor and crop are recorded and compared separately."""
        return {}

    def seen(self, store: FeatureStore | NpzFolder | None) -> CnnStream:
        """Return the stream with this store's shape."""
        return self if store is None else CnnStream(store.out_shape)

    def rows(self, frames: ClipRows, clip: Clip, root: Path) -> NDArray[Any]:
        """Return (T, *F) as they are."""
        return frames.features

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """Return (T, *F) as stored."""
        return stored.features

    def mirror(self, rows: Tensor) -> Tensor:
        """Mirror crops (T, C, H, W).

        Raises:
            PainseqError: the rows are features, whose values for mirrored crops are unknown.
        """
        if rows.ndim != 4:
            raise PainseqError(
                f"Features of shape {tuple(rows.shape)} cannot be mirrored; only crops can. Set the augmentation's "
                "flip to 0."
            )
        return rows.flip(-1)
