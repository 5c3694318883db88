"""PSPI: pain intensity from facial action units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pspi(au: Mapping[int, ArrayLike]) -> NDArray[np.float64]:
    """Compute the Prkachin and Solomon pain intensity: AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43, 0 to 16.

    Args:
        au: action unit number -> intensities, numbers or arrays of one shape: 0 to 5, AU43 0 or 1. A missing unit
            counts as 0.

    Returns:
        An array of the same shape; NaN where any of these units is NaN.
    """
    i = {unit: np.asarray(au.get(unit, 0.0), dtype=np.float64) for unit in (4, 6, 7, 9, 10, 43)}
    score: NDArray[np.float64] = np.asarray(i[4] + np.maximum(i[6], i[7]) + np.maximum(i[9], i[10]) + i[43])
    return score
