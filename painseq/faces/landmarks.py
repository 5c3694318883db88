"""Facial landmarks over time, as an input stream for a network."""

from __future__ import annotations

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.faces import mesh_points

# For each of the 68 iBUG points the one on the other side of the face.
_MIRRORED_68 = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # nostrils
    *(45, 44, 43, 42, 47, 46),  # eyes
    *(39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),  # outer lips
    *range(59, 54, -1),
    *range(64, 59, -1),  # inner lips
    *(67, 66, 65),
)
_MIRRORED = {
    len(_MIRRORED_68): list(_MIRRORED_68),
    mesh_points.BARE_POINTS: mesh_points.MIRRORED[: mesh_points.BARE_POINTS].tolist(),
    mesh_points.POINTS: mesh_points.MIRRORED.tolist(),
}
_MIN_RADIUS_PX = 1e-3


def normalise(landmarks: Tensor, present: Tensor) -> Tensor:
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
    points = landmarks[..., :2].to(torch.float32)
    points = points - points.mean(dim=1, keepdim=True)
    radius = points.square().sum(dim=2).mean(dim=1).sqrt()
    known = present & torch.isfinite(radius) & (radius > _MIN_RADIUS_PX)
    shape = points / radius[:, None, None]
    return torch.where(known[:, None, None], shape, torch.zeros_like(shape)).flatten(start_dim=1)


def mirror(stream: Tensor) -> Tensor:
    """Mirror a stream of `normalise`: negate x, and exchange left and right points.

    Args:
        stream: (T, 2 L), of the 68 iBUG points, or of the 468 or 478 points of the face mesh.

    Raises:
        PainseqError: another number of points, for which left and right are unknown.
    """
    points = stream.reshape(*stream.shape[:-1], -1, 2)
    if points.shape[-2] not in _MIRRORED:
        raise PainseqError(
            f"A stream of {points.shape[-2]} landmarks cannot be mirrored: left and right are only known for the 68 "
            "iBUG points and the 468 or 478 points of the face mesh. Set the augmentation's flip to 0."
        )
    other_side = points[..., _MIRRORED[points.shape[-2]], :]
    return torch.stack([-other_side[..., 0], other_side[..., 1]], dim=-1).flatten(start_dim=-2)
