"""What the features of one person are normalised by. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from painseq.moments import Moments


@dataclass(frozen=True, eq=False)
class PersonScale:
    """What one person's features are normalised by.

    Args:
        mean: (D,) float32, subtracted.
        sd: (D,) float32, divided by.
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    @classmethod
    def pain_free(cls, rows: NDArray[Any]) -> PersonScale:
        """Relative to the mean of (N, D) frames without pain; the scale of the columns stays."""
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(mean, np.ones_like(mean))

    @classmethod
    def of(cls, moments: Moments) -> PersonScale:
        """Mean 0 and standard deviation 1 of each column over all frames of the person."""
        return cls(moments.mean.astype(np.float32), moments.sd.astype(np.float32))

    def apply(self, rows: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Normalise (..., D) rows; those that are not `present` (...) become 0."""
        scaled = (rows.astype(np.float32) - self.mean) / self.sd
        return np.where(present[..., None], scaled, np.float32(0))
