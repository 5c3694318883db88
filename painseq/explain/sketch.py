"""Faces drawn from landmarks only, to show the places of a map without showing the subject."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from painseq.faces import mesh_points

LINES = (
    tuple(range(17)),  # jaw
    tuple(range(17, 22)),
    tuple(range(22, 27)),
    tuple(range(27, 31)),  # nose
    tuple(range(31, 36)),
    (*range(36, 42), 36),  # eyes
    (*range(42, 48), 42),
    (*range(48, 60), 48),  # lips
    (*range(60, 68), 60),
)
"""Lines between the 68 iBUG landmarks."""
_LINES = {
    68: LINES,
    mesh_points.BARE_POINTS: tuple(line for line in mesh_points.OUTLINES if max(line) < mesh_points.BARE_POINTS),
    mesh_points.POINTS: mesh_points.OUTLINES,
}
LIGHT, DARK = 0.85, 0.1
"""Brightness of the lines on dark and on light places of the map."""
STRONGEST = 0.75
"""Opacity of a line."""
_FINE = 3


def sketch(landmarks: Tensor | None, size_px: int, picture_px: int) -> NDArray[np.float64]:
    """Draw the lines of a face from the iBUG landmarks or a face mesh; others are drawn as dots in an ellipse.

    Args:
        landmarks: (L, 2) x and y in pixels of a crop; None, or values that are not finite, draw nothing.
        size_px: side of the crop.
        picture_px: side of the picture, P.

    Returns:
        (P, P) in 0..1, the coverage of each pixel by lines.
    """
    image = Image.new("L", (picture_px * _FINE, picture_px * _FINE), 0)
    points = np.empty((0, 2)) if landmarks is None else landmarks.double().numpy()
    if len(points) and np.isfinite(points).all():
        draw = ImageDraw.Draw(image)
        points = points * (image.width / size_px)
        width = max(_FINE, round(image.width / 130))
        if len(points) in _LINES:
            for line in _LINES[len(points)]:
                draw.line([(float(x), float(y)) for x, y in points[list(line)]], fill=255, width=width, joint="curve")
        else:
            _dots(draw, points, width)
    fine = np.asarray(image, np.float64).reshape(picture_px, _FINE, picture_px, _FINE)
    lines: NDArray[np.float64] = fine.mean(axis=(1, 3)) / 255
    return lines


def _dots(draw: ImageDraw.ImageDraw, points: NDArray[np.float64], width: int) -> None:
    middle, reach = points.mean(axis=0), np.ptp(points, axis=0).max() * np.array([0.9, 1.15])
    (x0, y0), (x1, y1) = middle - reach, middle + reach
    draw.ellipse((float(x0), float(y0), float(x1), float(y1)), outline=255, width=width)
    for x, y in points:
        draw.ellipse((float(x) - 2 * width, float(y) - 2 * width, float(x) + 2 * width, float(y) + 2 * width), fill=255)


def drawn_face(colours: NDArray[np.float64], lines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw the lines of a face, (P, P), over the colours of a map, (P, P, 3) in 0..1."""
    cover = STRONGEST * lines[..., None]
    ink = np.where(colours @ [0.2126, 0.7152, 0.0722] > 0.5, DARK, LIGHT)[..., None]
    mixed: NDArray[np.float64] = (1 - cover) * colours + cover * ink
    return mixed
