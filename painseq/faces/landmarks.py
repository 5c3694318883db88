"""Facial landmarks over time, as an input stream for a network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_RADIUS_PX = 1e-3


def normalise(landmarks: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Normalise the landmarks of each frame by their position and size.

    Per frame, the centroid moves to 0 and the root mean square distance of the points from it becomes 1. Rotation is
    kept.

    Args:
        landmarks: (T, L, 2) x and y in pixels, or (T, L, 3), whose z is ignored.
        present: (T,) bool, false for a frame without a face.

    Returns:
        (T, 2L) float32, [x0, y0, x1, y1, ...]; zero in a frame without a face, with a non-finite point, or whose
        points all coincide.
    """
    frames, points, _ = landmarks.shape
    finite = np.isfinite(landmarks[..., :2]).all(axis=(1, 2)) & present
    shape = np.where(finite[:, None, None], landmarks[..., :2], 0).astype(np.float64)
    shape -= shape.mean(axis=1, keepdims=True)
    radius = np.sqrt(np.square(shape).sum(axis=2).mean(axis=1))
    known = radius > _MIN_RADIUS_PX
    shape = np.where(known[:, None, None], shape / np.where(known, radius, 1)[:, None, None], 0)
    return shape.astype(np.float32).reshape(frames, 2 * points)
