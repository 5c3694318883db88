"""How far a face is turned in the picture, by the line between its eyes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces import mesh_points

# Outer and inner corner of the right and of the left eye, which stay where they are in a blink.
_EYES = {
    68: ((36, 39), (42, 45)),
    mesh_points.BARE_POINTS: mesh_points.EYE_CORNERS,
    mesh_points.POINTS: mesh_points.EYE_CORNERS,
}


def eye_angles(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the angle of the line from the right to the left eye, in radians, clockwise in the picture; 0 is level.

    Args:
        landmarks: (N, L, 2 or 3), of the 68 iBUG points, or of the 468 or 478 points of the face mesh.

    Returns:
        (N,) float32; NaN where the eyes are not known.

    Raises:
        PainseqError: another number of points, whose eyes are unknown.
    """
    if landmarks.shape[1] not in _EYES:
        raise PainseqError(
            f"Crops of kind aligned need landmarks whose eyes are known, {', '.join(map(str, _EYES))} of them; the "
            f"locator finds {landmarks.shape[1]}. Use kind square, or the locator FaceMesh or FaceAlignment."
        )
    right, left = (landmarks[:, eye, :2].astype(np.float64).mean(axis=1) for eye in _EYES[landmarks.shape[1]])
    across = left - right
    angles_rad: NDArray[np.float32] = np.arctan2(across[:, 1], across[:, 0]).astype(np.float32)
    return angles_rad


def mean_angle(angles_rad: NDArray[np.float32]) -> float:
    """Return the mean direction of (n,) angles, leaving out those that are NaN; NaN if all are."""
    known = angles_rad[np.isfinite(angles_rad)].astype(np.float64)
    return float(np.arctan2(np.sin(known).sum(), np.cos(known).sum())) if len(known) else float("nan")
