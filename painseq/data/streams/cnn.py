"""The extractor's features."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from painseq.data.streams.stream import Stream
from painseq.errors import PainseqError
from painseq.features import ClipFeatures, FeatureStore, NpzFolder
from painseq.records import Clip
from painseq.spec import Spec


class CnnStream(Stream):
    """The extractor's features, as the data's own store has them; or crops, for the extractor of the model.

    Args:
        shape: of one frame; None before a store is seen.
    """

    name = "cnn"

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        self.shape = None if shape is None else tuple(shape)

    @property
    def columns(self) -> tuple[str, ...]:
        """Numbered."""
        if self.shape is None:
            raise PainseqError("How many features the extractor gives is not known: no feature store has been seen.")
        return tuple(f"cnn {number}" for number in range(math.prod(self.shape)))

    @property
    def identity(self) -> Spec:
        """Nothing: extractor and crop are recorded, and compared, by themselves."""
        return {}

    def seen(self, store: FeatureStore | NpzFolder | None) -> CnnStream:
        """The features of this store."""
        return self if store is None else CnnStream(store.out_shape)

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """(T, *F) as they are stored."""
        return stored.features

    def mirror(self, rows: Tensor) -> Tensor:
        """Crops (T, C, H, W) with left and right exchanged.

        Raises:
            PainseqError: features, which do not tell what the extractor makes of other crops.
        """
        if rows.ndim != 4:
            raise PainseqError(f"Features of shape {tuple(rows.shape)} cannot be mirrored; crops can.")
        return rows.flip(-1)
