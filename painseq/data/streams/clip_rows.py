"""`ClipRows`: the frames of one clip as numpy arrays. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ClipRows:
    """The frames of one clip.

    Args:
        features: (T, *F) float16, float32, or uint8 (crops); zero in frames without a face.
        present: (T,) bool, false for a frame without a face.
        times_s: (T,) float64, seconds from the clip's start.
        landmarks: (T, L, 2 or 3) float32, x, y (and z) in pixels of the video's frame; NaN in frames without a face.
            None where unknown.
        backend: the library that decoded the video; "" if the clip was not read from one.
        switched_s: times in seconds from which on another person may be followed.
    """

    features: NDArray[Any]
    present: NDArray[np.bool_]
    times_s: NDArray[np.float64]
    landmarks: NDArray[np.float32] | None = None
    backend: str = ""
    switched_s: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.present)
