"""The regions of the face: their places in a crop, and their action units."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from painseq.errors import PainseqError
from painseq.explain.frames import Frames
from painseq.faces import mesh_points

POINTS = 68
"""Number of landmarks in iBUG order."""
MESH = (mesh_points.BARE_POINTS, mesh_points.POINTS)
"""Numbers of points of a face mesh, without and with the irises."""
REGIONS = ("brows", "eyes", "nose", "cheeks", "mouth", "rest of the face", "outside the face")
"""The first five are the regions in the truth of generated faces. "rest of the face" is forehead, chin and gaps."""
ACTION_UNITS = {
    "brows": ("AU1", "AU2", "AU4"),
    "eyes": ("AU5", "AU7", "AU43", "AU45"),
    "nose": ("AU9",),
    "cheeks": ("AU6",),
    "mouth": ("AU10", "AU12", "AU14", "AU15", "AU20", "AU23", "AU25", "AU26", "AU27"),
    "rest of the face": ("AU17",),
    "outside the face": (),
}
"""Region -> the action units whose muscles move the skin most there."""
UNKNOWN = -1
"""Value in place of a region in frames without known landmarks."""

_FOREHEAD = 0.4
"""Height of the forehead, where there are no landmarks, as a share of the distance from nose root to chin."""
_RIGHT_CHEEK = (0, 1, 2, 3, 4, 48, 31, 39, 40, 41, 36)
_LEFT_CHEEK = (16, 15, 14, 13, 12, 54, 35, 42, 47, 46, 45)
_SHAPES: tuple[tuple[str, tuple[int, ...], bool, float], ...] = (
    ("cheeks", _RIGHT_CHEEK, True, 0.0),
    ("cheeks", _LEFT_CHEEK, True, 0.0),
    ("nose", (27, 39, 31, 33, 35, 42), True, 0.1),
    ("mouth", tuple(range(48, 60)), True, 0.25),
    ("brows", tuple(range(17, 27)), False, 0.25),
    # From corner to corner, not along the lids, so that closed eyes are as large as open ones.
    ("eyes", (36, 39), False, 0.4),
    ("eyes", (42, 45), False, 0.4),
)
"""Region, landmarks, whether they enclose an area, and margin in eye widths. Later shapes cover earlier ones."""
_FINE_PX = 224
"""Small crops use a grid of at least this size, so that edges of regions are not rounded to pixels."""


def region_map(landmarks: Tensor, size_px: int) -> NDArray[np.int8]:
    """Assign each pixel of a crop to a region.

    Args:
        landmarks: (T, L, 2) x and y in pixels of the crop, which may be outside of it: the 68 iBUG points, or the 468
            or 478 points of a face mesh, whose own oval is then the outline of the face.
        size_px: side of the crop, S.

    Returns:
        (T, S, S) indices of `REGIONS`; `UNKNOWN` in frames with a landmark that is not finite.
    """
    inside = ibug_points(landmarks)
    ovals = landmarks[:, list(mesh_points.OVAL)].double().numpy() if landmarks.shape[1] in MESH else None
    scale = math.ceil(_FINE_PX / size_px)
    out = np.full((len(landmarks), size_px, size_px), UNKNOWN, np.int8)
    for frame, points in enumerate(inside * scale):
        if landmarks[frame].isfinite().all():
            fine = _regions(points, None if ovals is None else ovals[frame] * scale, size_px * scale)
            out[frame] = fine[scale // 2 :: scale, scale // 2 :: scale]
    return out


def ibug_points(landmarks: Tensor) -> NDArray[np.float64]:
    """Return the 68 iBUG points, (T, 68, 2), of (T, L, 2) landmarks: those themselves, or the nearest of a mesh."""
    count = landmarks.shape[1] if landmarks.ndim == 3 and landmarks.shape[2] == 2 else 0
    if count not in (POINTS, *MESH):
        raise ValueError(f"landmarks must be (T, L, 2), L one of {POINTS, *MESH}, not {tuple(landmarks.shape)}.")
    points: NDArray[np.float64] = landmarks.double().numpy()
    return points if count == POINTS else mesh_points.ibug_68(points)


def region_masks(landmarks: Tensor, size_px: int) -> NDArray[np.bool_]:
    """Return `region_map` as masks, (T, R, S, S); each pixel of a frame with landmarks is in exactly one region."""
    numbers = np.arange(len(REGIONS), dtype=np.int8)
    masks: NDArray[np.bool_] = region_map(landmarks, size_px)[:, None] == numbers[:, None, None]
    return masks


def _oval(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the outline of a face, (21, 2), from the 68 iBUG points, which have no forehead."""
    up = _FOREHEAD * (points[27] - points[8])
    # The hairline is an arch that is lower at the temples.
    hairline = points[[26, 24, 19, 17]] + np.outer([0.7, 1.0, 1.0, 0.7], up)
    return np.concatenate([points[:17], hairline])


def _regions(points: NDArray[np.float64], oval: NDArray[np.float64] | None, size_px: int) -> NDArray[np.uint8]:
    """Return the indices of `REGIONS`, (S, S), by drawing shapes over each other; `oval` outlines the face."""
    image = Image.new("L", (size_px, size_px), REGIONS.index("outside the face"))
    draw = ImageDraw.Draw(image)
    # Pillow's coordinates refer to pixel centres, landmarks to pixel corners.
    points = points - 0.5
    eye = (np.hypot(*(points[39] - points[36])) + np.hypot(*(points[45] - points[42]))) / 2
    _draw(draw, _oval(points) if oval is None else oval - 0.5, True, 0.0, REGIONS.index("rest of the face"))
    for region, indices, encloses, margin in _SHAPES:
        _draw(draw, points[list(indices)], encloses, margin * eye, REGIONS.index(region))
    return np.asarray(image)


def _draw(draw: ImageDraw.ImageDraw, points: NDArray[np.float64], encloses: bool, margin_px: float, value: int) -> None:
    """Draw an area or a line, with a margin around it."""
    path = [(float(x), float(y)) for x, y in points]
    if encloses:
        draw.polygon(path, fill=value)
    if margin_px:
        draw.line(path + path[:1] * encloses, fill=value, width=round(2 * margin_px))
        for x, y in path:
            draw.ellipse((x - margin_px, y - margin_px, x + margin_px, y + margin_px), fill=value)


def has_regions(clip: Frames) -> bool:
    """Whether a clip has landmarks that define the regions: the 68 iBUG points, or those of a face mesh."""
    return clip.landmarks is not None and clip.landmarks.shape[1] in (POINTS, *MESH)


def check_landmarks(clip: Frames) -> Tensor:
    """Return the landmarks of a clip, (T, 68, 468 or 478, 2), in pixels of its crops.

    Raises:
        PainseqError: the clip has no landmarks, or others than the iBUG landmarks and a face mesh.
    """
    if clip.landmarks is None or not has_regions(clip):
        found = "no landmarks" if clip.landmarks is None else f"{clip.landmarks.shape[1]} landmarks"
        raise PainseqError(
            f"Regions of the face need the {POINTS} iBUG landmarks or a face mesh; this clip has {found}. YuNet gives "
            "neither. Use the locator FaceMesh, FaceAlignment, or Sidecar (also for OpenFace's tables). On the command "
            "line: --landmarks face_mesh, face_alignment or sidecar, which keep the crops of the model."
        )
    return clip.landmarks
