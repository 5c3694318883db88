"""Points of a face mesh as whole numbers: half the size of float32, and exact to 1/64 pixel.

Landmarks with x, y and z, those of a mesh, are stored so; the few points with x and y alone stay float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP_PX = 1 / 64
_LARGEST = np.iinfo(np.uint16).max


def to_fixed_point(
    points: NDArray[np.float32],
) -> tuple[NDArray[np.uint16], NDArray[np.float32], NDArray[np.float32]]:
    """Encode points, (N, L, D) in pixels, NaN where there is no face.

    Returns:
        (N, L, D) uint16 in steps from the frame's lowest value in each direction; (N, D) float32, these lowest values,
        NaN in a frame with a value that is not finite; (N,) float32, the step in pixels: 1/64, or 1/65535 of the face
        where it is larger than 1,023 pixels.
    """
    low = points.min(axis=1).astype(np.float32)
    extent = (points.max(axis=1) - low).max(axis=1)
    known = np.isfinite(extent)
    low[~known] = np.nan
    step = np.maximum(np.where(known, extent, 0) / _LARGEST, _STEP_PX).astype(np.float32)
    steps = np.rint((points.astype(np.float64) - low[:, None]) / step[:, None, None])
    return np.where(known[:, None, None], steps, 0).clip(0, _LARGEST).astype(np.uint16), low, step


def from_fixed_point(
    steps: NDArray[np.uint16], low: NDArray[np.float32], step: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Decode what `to_fixed_point` encoded: (N, L, D) float32, NaN in frames without points."""
    return (steps * step[:, None, None].astype(np.float64) + low[:, None]).astype(np.float32)
