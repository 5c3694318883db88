"""PSPI: pain intensity from the action units of a face."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pspi(au: Mapping[int, ArrayLike]) -> NDArray[np.float64]:
    """Prkachin and Solomon's pain intensity: AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43, 0 to 16.

    Args:
        au: intensities by the number of the unit, all of one shape or numbers: 0 to 5, AU43 0 or 1. One that is not
            there counts 0.

    Returns:
        An array of that shape, NaN where a unit that counts is NaN.
    """
    of = {unit: np.asarray(au.get(unit, 0.0), dtype=np.float64) for unit in (4, 6, 7, 9, 10, 43)}
    score: NDArray[np.float64] = np.asarray(of[4] + np.maximum(of[6], of[7]) + np.maximum(of[9], of[10]) + of[43])
    return score
