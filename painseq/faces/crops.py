"""Crops of one face, from a video file."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from painseq.errors import PainseqError
from painseq.faces.locator import Face, Locator
from painseq.faces.track import FaceTrack, track
from painseq.spec import Spec, build, digest, spec_of
from painseq.video import Video, frame_indices, open_video, read_chunks


@dataclass(frozen=True)
class CropChunk:
    """Consecutive frames of a clip.

    Args:
        crops: (n, 3, S, S) uint8 RGB; zero where the face is not present.
        times_s: (n,) float64, seconds since the clip's start.
        present: (n,) bool.
        boxes: (n, 4) float32, the area cropped, in pixels of the frame; NaN where not present.
        backend: which library decoded the video.
        landmarks: (n, L, 2) float32, x and y in pixels of the frame, not of the crop, and not smoothed; NaN where not
            present. None where the locator gives none, as for a clip without any face.
    """

    crops: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    present: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    backend: str
    landmarks: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.times_s)


class FaceCrops:
    """Locates one face, follows it, and cuts it out of each frame.

    Args:
        locator: where the faces are.
        kind: "square": around the smoothed box, its longer side times 1 + margin. "landmark_box": the bounding box
            of that frame's landmarks, as in the papers: no margin, no smoothing, no aspect ratio kept.
        size_px: side of the crops, S.
        margin: added to the side of a square crop, as a share of it.
        smooth_s: width of the moving average over the box, in seconds.
        max_gap_s: longest time without a face that is bridged by interpolation.
        backend: "auto", "decord" or "pyav".

    What lies outside the picture is black; a box that lies outside altogether, or is smaller than a pixel, is no
    face. Crops are resampled with an antialiased triangle filter.
    """

    def __init__(
        self,
        locator: Locator,
        kind: Literal["square", "landmark_box"] = "square",
        size_px: int = 224,
        margin: float = 0.2,
        smooth_s: float = 0.2,
        max_gap_s: float = 0.5,
        backend: str = "auto",
    ) -> None:
        if kind not in ("square", "landmark_box"):
            raise PainseqError(f"Face crops: kind is {kind!r}; it is square or landmark_box.")
        if size_px < 1:
            raise PainseqError(f"Face crops: size_px is {size_px}; it must be 1 or more.")
        for name, value in {"margin": margin, "smooth_s": smooth_s, "max_gap_s": max_gap_s}.items():
            if not (math.isfinite(value) and value >= 0):
                raise PainseqError(f"Face crops: {name} is {value}; it must be 0 or more.")
        self.locator = locator
        self.kind = kind
        self.size_px = size_px
        self.margin = margin
        self.smooth_s = smooth_s
        self.max_gap_s = max_gap_s
        self.backend = backend

    def spec(self) -> Spec:
        """How to build this again, in plain values; `from_spec` reads it."""
        return spec_of(self)

    @classmethod
    def from_spec(cls, spec: Mapping[str, object], trust: Sequence[str] = ()) -> FaceCrops:
        """Build from `spec()`; the locator's class must be painseq's or of a package in `trust`."""
        init_args = spec.get("init_args")
        if not isinstance(init_args, Mapping) or not isinstance(init_args.get("locator"), Mapping):
            raise PainseqError(f"Not a specification of face crops: {dict(spec)!r}.")
        locator = build(init_args["locator"], Locator, trust)  # type: ignore[type-abstract]
        return build({**spec, "init_args": {**init_args, "locator": locator}}, cls)

    def record(self) -> Spec:
        """What a store or a checkpoint keeps: `spec()` to build it again, `identity()` to compare it."""
        return {**self.spec(), "identity": self.identity()}

    def with_locator(self, locator: Locator) -> FaceCrops:
        """The same crops, of faces found by another locator."""
        again = copy.copy(self)
        again.locator = locator
        return again

    def identity(self) -> Spec:
        """What decides the crops' pixels: `spec()` without whereabouts, device and decoder, which do not."""
        names = ["kind", "size_px", "max_gap_s"] + (["margin", "smooth_s"] if self.kind == "square" else [])
        return {name: getattr(self, name) for name in names} | {"locator": self.locator.identity()}

    def fingerprint(self) -> str:
        """Digest of `identity()`."""
        return digest(self.identity())

    def follow(
        self, video: Path, start_s: float = 0.0, end_s: float | None = None, fps: float | None = None
    ) -> FaceTrack:
        """The face's track through a span of a video, at times relative to `start_s`."""
        with open_video(video, self.backend) as opened:
            return self._follow(opened, start_s, end_s, fps)

    def clip(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
        chunk_frames: int = 64,
    ) -> Iterator[CropChunk]:
        """Crops of a span of a video, a chunk at a time: memory does not grow with the video's length.

        The video is decoded twice where the locator looks at pixels (locate and follow, then crop), else once.

        Args:
            video: the file.
            start_s: first moment, in seconds since the first frame shown.
            end_s: exclusive; None is the end of the video.
            fps: samples a second by timestamps (`painseq.video.frame_indices`); None is every frame.
            chunk_frames: the most frames in a chunk.

        Raises:
            PainseqError: the file cannot be read, the locator fails, or it gives no landmarks for "landmark_box".
        """
        with open_video(video, self.backend) as opened:
            face = self._follow(opened, start_s, end_s, fps)
            boxes, present = self._areas(face, opened)
            if face.landmarks is not None:
                face.landmarks[~present] = np.nan
            first = 0
            for images, times_s in read_chunks(opened, start_s, end_s, fps, chunk_frames):
                here = slice(first, first + len(images))
                crops = np.zeros((len(images), 3, self.size_px, self.size_px), np.uint8)
                for crop, image, box, seen in zip(crops, images, boxes[here], present[here], strict=True):
                    if seen:
                        crop[:] = cut(image, box, self.size_px).transpose(2, 0, 1)
                landmarks = None if face.landmarks is None else face.landmarks[here]
                yield CropChunk(crops, times_s, present[here], boxes[here], opened.backend, landmarks)
                first += len(images)

    def _follow(self, opened: Video, start_s: float, end_s: float | None, fps: float | None) -> FaceTrack:
        indices, times_s = frame_indices(opened.times_s, start_s, end_s, fps)
        moments = opened.times_s[indices]
        detections: list[list[Face]] = []
        if not self.locator.needs_pixels:
            detections = self.locator.locate(None, moments, opened.path)
        else:
            for images, _ in read_chunks(opened, start_s, end_s, fps):
                here = slice(len(detections), len(detections) + len(images))
                detections += self.locator.locate(images, moments[here], opened.path)
        return track(detections, times_s, self.smooth_s, self.max_gap_s)

    def _areas(self, face: FaceTrack, opened: Video) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        if self.kind == "square":
            centre = (face.boxes[:, :2] + face.boxes[:, 2:]) / 2
            side = (face.boxes[:, 2:] - face.boxes[:, :2]).max(axis=1, keepdims=True) * (1 + self.margin)
            boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
        elif face.landmarks is not None:
            boxes = np.concatenate([face.landmarks.min(axis=1), face.landmarks.max(axis=1)], axis=1)
        elif face.present.any():
            raise PainseqError(
                f"{opened.path}: {type(self.locator).__name__} finds no landmarks, so it cannot give crops of kind "
                "landmark_box. Choose kind square, or the locator FaceAlignment or Sidecar."
            )
        else:
            boxes = face.boxes
        width, height = opened.size
        inside = (boxes[:, 0] < width) & (boxes[:, 1] < height) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
        sizeable = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
        present = face.present & inside & sizeable
        boxes[~present] = np.nan
        return boxes.astype(np.float32), present


def cut(image: NDArray[np.uint8], box: NDArray[np.float32], size_px: int) -> NDArray[np.uint8]:
    """Resample the area `box` (left, top, right, bottom in pixels, may reach outside) to a square.

    Returns:
        (size_px, size_px, 3) uint8, black outside the image.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = (float(value) for value in box)
    # Pillow gets no more of the frame than its filter reaches.
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
    area = (left - x0, top - y0, right - x0, bottom - y0)
    picture = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR, box=area))
