"""Landmarks of a face over time, as a stream of numbers for a network."""

from __future__ import annotations

import torch
from torch import Tensor

from painseq.errors import PainseqError

# The 68 iBUG points, and for each the one on the other side of the face.
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
_SMALLEST_PX = 1e-3


def normalise(landmarks: Tensor, present: Tensor) -> Tensor:
    """Shape of the face in each frame, without its place and size in the picture.

    In each frame by itself the centroid moves to 0, and the root mean square distance of the points from it becomes 1.
    A turned head stays turned.

    Args:
        landmarks: (T, L, 2) x and y in pixels.
        present: (T,) bool, false for a frame without a face.

    Returns:
        (T, 2L) float32, [x0, y0, x1, y1, ...]; zero in a frame without a face, with a point that is not finite, or
        whose points lie all in one place.
    """
    points = landmarks.to(torch.float32)
    points = points - points.mean(dim=1, keepdim=True)
    radius = points.square().sum(dim=2).mean(dim=1).sqrt()
    known = present & torch.isfinite(radius) & (radius > _SMALLEST_PX)
    shape = points / radius[:, None, None]
    return torch.where(known[:, None, None], shape, torch.zeros_like(shape)).flatten(start_dim=1)


def mirror(stream: Tensor) -> Tensor:
    """What `normalise` would have given for the mirrored face: x negated, left and right points exchanged.

    Args:
        stream: (T, 2 * 68), of the 68 iBUG points.

    Raises:
        PainseqError: another number of points, whose left and right are not known.
    """
    points = stream.reshape(*stream.shape[:-1], -1, 2)
    if points.shape[-2] != len(_MIRRORED_68):
        raise PainseqError(
            f"A stream of {points.shape[-2]} landmarks cannot be mirrored: left and right are known for the "
            f"{len(_MIRRORED_68)} iBUG points only. Set the augmentation's flip to 0."
        )
    other_side = points[..., list(_MIRRORED_68), :]
    return torch.stack([-other_side[..., 0], other_side[..., 1]], dim=-1).flatten(start_dim=-2)
