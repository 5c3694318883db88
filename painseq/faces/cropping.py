"""Which area of a frame is cropped around a face, and how it is resampled."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from painseq.faces.track import FaceTrack

SQUARES = ("square", "aligned")
"""Kinds of crops whose area is a square around the box."""


def with_crop_areas(face: FaceTrack, kind: str, margin: float, frame_px: tuple[int, int]) -> FaceTrack:
    """Return a smoothed track with cropped areas as boxes, without faces that cannot be cropped.

    Args:
        face: has landmarks, unless `kind` is "square" or no frame has a face.
        kind: see `painseq.faces.FaceCrops`.
        margin: added to the side of a square, as a fraction of it.
        frame_px: (width, height) of the frames.
    """
    if kind in SQUARES:
        centre = (face.boxes[:, :2] + face.boxes[:, 2:]) / 2
        side = (face.boxes[:, 2:] - face.boxes[:, :2]).max(axis=1, keepdims=True) * (1 + margin)
        boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    elif face.landmarks is not None:
        boxes = np.concatenate([face.landmarks.min(axis=1)[:, :2], face.landmarks.max(axis=1)[:, :2]], axis=1)
    else:
        boxes = face.boxes
    width, height = frame_px
    inside = (boxes[:, 0] < width) & (boxes[:, 1] < height) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    sizeable = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    present = face.present & inside & sizeable
    angles_rad = face.angles_rad
    if angles_rad is not None:
        present &= np.isfinite(angles_rad)
        angles_rad = np.where(present, angles_rad, np.float32(np.nan))
    boxes = np.where(present[:, None], boxes, np.nan).astype(np.float32)
    landmarks = None if face.landmarks is None else np.where(present[:, None, None], face.landmarks, np.nan)
    return replace(face, boxes=boxes, present=present, landmarks=landmarks, angles_rad=angles_rad)


def crop_of(image: NDArray[np.uint8], face: FaceTrack, frame: int, size_px: int) -> NDArray[np.uint8]:
    """Cut the area of one frame of a track out of its picture, turned if the track has angles; see `cut`."""
    if face.angles_rad is None:
        return cut(image, face.boxes[frame], size_px)
    return cut_turned(image, face.boxes[frame], float(face.angles_rad[frame]), size_px)


def cut(image: NDArray[np.uint8], box: NDArray[np.float32], size_px: int) -> NDArray[np.uint8]:
    """Resample the area `box` (left, top, right, bottom in pixels, may extend outside) to a square.

    Returns:
        (size_px, size_px, 3) uint8, black outside the image.
    """
    left, top, right, bottom = (float(value) for value in box)
    picture, (x0, y0) = _part(image, (left, top, right, bottom), size_px)
    area = (left - x0, top - y0, right - x0, bottom - y0)
    return np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR, box=area))


def cut_turned(image: NDArray[np.uint8], box: NDArray[np.float32], angle_rad: float, size_px: int) -> NDArray[np.uint8]:
    """Resample the area `box`, turned clockwise about its centre, to a square; see `cut`.

    Where the area is larger than the crop, the picture is interpolated at several points of each pixel of the crop,
    and these are averaged.
    """
    left, top, right, bottom = (float(value) for value in box)
    x, y, wide, high = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    half_x, half_y = (abs(cos) * wide + abs(sin) * high) / 2, (abs(sin) * wide + abs(cos) * high) / 2
    picture, (x0, y0) = _part(image, (x - half_x, y - half_y, x + half_x, y + half_y), size_px)
    points = max(1, math.ceil(max(wide, high) / size_px))
    fine_px = points * size_px
    # From a place in the fine crop to one in the picture, both counted from the corner of the first pixel.
    across, down = wide / fine_px, high / fine_px
    corner = (x - x0 - (cos * wide - sin * high) / 2, y - y0 - (sin * wide + cos * high) / 2)
    to_picture = (cos * across, -sin * down, corner[0], sin * across, cos * down, corner[1])
    crop = np.empty((size_px, size_px, 3), np.uint8)
    for channel, colour in enumerate(picture.split()):
        # In floats, as Pillow would cut off the decimals, which darkens the crop.
        fine = colour.convert("F").transform(
            (fine_px, fine_px), Image.Transform.AFFINE, to_picture, Image.Resampling.BILINEAR
        )
        crop[..., channel] = np.rint(np.asarray(fine.reduce(points)))
    return crop


def _part(
    image: NDArray[np.uint8], area: tuple[float, float, float, float], size_px: int
) -> tuple[Image.Image, tuple[int, int]]:
    """Return the part of the frame that a filter reaches, black outside the frame, and its upper left corner."""
    height, width = image.shape[:2]
    left, top, right, bottom = area
    reach_x = math.ceil(max(1.0, (right - left) / size_px)) + 1
    reach_y = math.ceil(max(1.0, (bottom - top) / size_px)) + 1
    x0, y0 = max(0, math.floor(left) - reach_x), max(0, math.floor(top) - reach_y)
    x1, y1 = min(width, math.ceil(right) + reach_x), min(height, math.ceil(bottom) + reach_y)
    part = image[y0:y1, x0:x1]
    before = (max(0, math.ceil(-top)), max(0, math.ceil(-left)))
    after = (max(0, math.ceil(bottom) - height), max(0, math.ceil(right) - width))
    if any(before) or any(after):
        part = np.pad(part, [(before[0], after[0]), (before[1], after[1]), (0, 0)])
        x0, y0 = x0 - before[1], y0 - before[0]
    return Image.fromarray(np.ascontiguousarray(part)), (x0, y0)
