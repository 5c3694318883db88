"""Mean and spread of columns, added up over portions. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and spread of columns, in float64; those of several portions are added up with `+`.

    Args:
        count: number of rows.
        mean: (D,).
        squares: (D,), the sum of squared differences from the mean.
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Moments:
        """Measure (N, D) rows."""
        exact = np.asarray(rows, np.float64)
        mean = exact.mean(axis=0) if len(exact) else np.zeros(exact.shape[1:])
        return cls(len(exact), mean, np.square(exact - mean).sum(axis=0))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share, apart = other.count / max(1, count), other.mean - self.mean
        return Moments(
            count, self.mean + share * apart, self.squares + other.squares + share * self.count * np.square(apart)
        )

    @property
    def sd(self) -> NDArray[np.float64]:
        """(D,) standard deviation; 1 for a column that is constant up to rounding, so that it can be divided by."""
        sd = np.sqrt(self.squares / max(1, self.count))
        return np.where(sd > np.maximum(1e-6 * np.abs(self.mean), 1e-12), sd, 1.0)
