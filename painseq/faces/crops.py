"""Crops of one face, from a video."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from painseq.errors import PainseqError
from painseq.faces.locator import Locator
from painseq.faces.sightings import Sightings
from painseq.faces.track import FaceTrack, Smoother, Tracker, joined, smoothed
from painseq.faces.tracks import StoredTrack, TrackFolder
from painseq.spec import Spec, build, digest, spec_of
from painseq.video import Video, frame_indices, open_video, read_chunks

# Few, as a frame that waits for its box keeps the whole block in memory.
_BLOCK_FRAMES = 16


@dataclass(frozen=True)
class CropChunk:
    """Consecutive frames of a clip.

    Args:
        crops: (n, 3, S, S) uint8 RGB; zero where the face is not present. Its memory is channels-last.
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
    seconds: Mapping[str, float] = field(default_factory=dict)
    reused_track: bool = False

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
        backend: "auto", "decord", "pyav" or "images" (`painseq.video.open_video`).
        every_s: a locator that looks at pixels does so at most this far apart (`painseq.faces.sightings`); 0 is on
            every frame. At the default, YuNet's crops of 224 pixels lie within 5 pixels of those of every frame.
        tracks: folder of tracks, as `painseq faces` writes it. A clip whose track lies there is not searched again;
            the others are.

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
        every_s: float = 0.2,
        tracks: str | Path | None = None,
    ) -> None:
        if kind not in ("square", "landmark_box"):
            raise PainseqError(f"Face crops: kind is {kind!r}; it is square or landmark_box.")
        if size_px < 1:
            raise PainseqError(f"Face crops: size_px is {size_px}; it must be 1 or more.")
        amounts = {"margin": margin, "smooth_s": smooth_s, "max_gap_s": max_gap_s, "every_s": every_s}
        for name, value in amounts.items():
            if not (math.isfinite(value) and value >= 0):
                raise PainseqError(f"Face crops: {name} is {value}; it must be 0 or more.")
        if tracks is not None and not locator.needs_pixels:
            # A track would save nothing, and hide that the faces beside the videos were mended.
            raise PainseqError(
                f"{type(locator).__name__} needs no search in the pictures, so its crops use no tracks. Leave `tracks` "
                "out of the face crop, or choose another locator."
            )
        self.locator = locator
        self.kind = kind
        self.size_px = size_px
        self.margin = margin
        self.smooth_s = smooth_s
        self.max_gap_s = max_gap_s
        self.backend = backend
        self.every_s = every_s
        self.tracks = tracks

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
        """What a store or a checkpoint keeps: `spec()` to build it again, `identity()` to compare it.

        Not where tracks lie: other videos have none there.
        """
        bare = copy.copy(self)
        bare.tracks = None
        return {**bare.spec(), "identity": self.identity()}

    def with_locator(self, locator: Locator) -> FaceCrops:
        """The same crops, of faces found by another locator, not of tracks on disk."""
        again = copy.copy(self)
        again.locator = locator
        again.tracks = None
        return again

    def identity(self) -> Spec:
        """What decides the crops' pixels: `spec()` without whereabouts, device and decoder, which do not."""
        names = ["kind", "size_px"] + (["margin", "smooth_s"] if self.kind == "square" else [])
        return {name: getattr(self, name) for name in names} | self.tracking()

    def tracking(self) -> Spec:
        """The part of `identity()` that decides the track before it is smoothed."""
        names = ["max_gap_s"] + (["every_s"] if self.locator.needs_pixels else [])
        return {name: float(getattr(self, name)) for name in names} | {"locator": self.locator.identity()}

    def fingerprint(self) -> str:
        """Digest of `identity()`."""
        return digest(self.identity())

    def beside(self, video: Path) -> tuple[Path, ...]:
        """Files other than the video on which its crops depend."""
        return self.locator.beside(video)

    def follow(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
        image_fps: float | None = None,
    ) -> FaceTrack:
        """The face's track through a span of a video, smoothed, at times relative to `start_s`; see `clip`."""
        with open_video(video, self.backend, image_fps) as opened:
            span = _Span(opened, start_s, end_s, fps, image_fps)
            stored = self._stored(span) or self._sight(span)
        return smoothed(stored.face, self.smooth_s)

    def sight(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
        image_fps: float | None = None,
    ) -> StoredTrack:
        """The track as it is kept on disk: found by the locator, whatever tracks there are, and not smoothed."""
        with open_video(video, self.backend, image_fps) as opened:
            return self._sight(_Span(opened, start_s, end_s, fps, image_fps))

    def clip(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
        chunk_frames: int = 64,
        image_fps: float | None = None,
    ) -> Iterator[CropChunk]:
        """Crops of a span of a video, a chunk at a time; the video is decoded once.

        A frame waits for its box: for the next look of the locator and for `smooth_s` / 2, in a gap for `max_gap_s`
        more. Memory holds the pictures of this time and a chunk of crops, however long the video is.

        Args:
            video: the file, or a folder of images.
            start_s: first moment, in seconds since the first frame shown.
            end_s: exclusive; None is the end of the video.
            fps: samples a second by timestamps (`painseq.video.frame_indices`); None is every frame.
            chunk_frames: frames in each chunk but the last.
            image_fps: images a second, where the video is a folder of them.

        Raises:
            PainseqError: the file cannot be read, the locator fails, or it gives no landmarks for "landmark_box", or
                for some faces only; the folder of tracks is of another tracking, or the clip's track is damaged.
        """
        seconds = {"decode": 0.0, "locate": 0.0, "crop": 0.0}
        with _timed(seconds, "decode"):
            opened = open_video(video, self.backend, image_fps)
        with opened:
            span = _Span(opened, start_s, end_s, fps, image_fps)
            with _timed(seconds, "locate"):
                stored = self._stored(span)
                known = None if self.locator.needs_pixels and stored is None else (stored or self._sight(span)).face
            to_come = len(span.times_s)
            crops, filled = self._room(min(chunk_frames, to_come)), 0
            parts: list[FaceTrack] = []
            for images, face in self._settled(span, known, seconds):
                first = 0
                while first < len(images):
                    end = min(len(images), first + len(crops) - filled)
                    with _timed(seconds, "crop"):
                        part = self._placed(face[first:end], opened)
                        for frame in np.flatnonzero(part.present):
                            crops[filled + frame] = cut(images[first + frame], part.boxes[frame], self.size_px)
                    parts.append(part)
                    filled, first = filled + end - first, end
                    if filled == len(crops):
                        yield _chunk(crops, joined(parts), opened.backend, seconds, stored is not None)
                        to_come -= filled
                        crops, filled, parts = self._room(min(chunk_frames, to_come)), 0, []

    def _room(self, frames: int) -> NDArray[np.uint8]:
        return np.zeros((frames, self.size_px, self.size_px, 3), np.uint8)

    def _settled(
        self, span: _Span, known: FaceTrack | None, seconds: dict[str, float]
    ) -> Iterator[tuple[list[NDArray[np.uint8]], FaceTrack]]:
        """Pictures whose box is settled, with their track, smoothed."""
        search, smoother = self._search(span), Smoother(self.smooth_s)
        waiting: deque[NDArray[np.uint8]] = deque()
        read = 0
        blocks = span.blocks()
        while read < len(span.times_s):
            with _timed(seconds, "decode"):
                images = next(blocks)
            with _timed(seconds, "locate"):
                face = search.add(images) if known is None else known[read : read + len(images)]
                settled = smoother.add(face)
            read += len(images)
            waiting.extend(images)
            yield [waiting.popleft() for _ in range(len(settled))], settled
        yield list(waiting), joined([smoother.add(search.finish()), smoother.finish()])

    def _search(self, span: _Span) -> _Search:
        sightings = Sightings(self.locator, span.opened.path, span.moments_s, self.every_s)
        return _Search(sightings, Tracker(self.max_gap_s, span.opened.path), span.times_s)

    def _sight(self, span: _Span) -> StoredTrack:
        if self.locator.needs_pixels:
            search = self._search(span)
            parts = [search.add(images) for images in span.blocks()]
            return StoredTrack(joined([*parts, search.finish()]), search.sightings.located)
        tracker = Tracker(self.max_gap_s, span.opened.path)
        found = self.locator.locate(None, span.moments_s, span.opened.path)
        return StoredTrack(joined([tracker.add(span.times_s, found), tracker.finish()]), len(found))

    def _stored(self, span: _Span) -> StoredTrack | None:
        if self.tracks is None:
            return None
        folder = TrackFolder(Path(self.tracks), self.tracking())
        folder.check()
        place = folder.place(span.opened.path, span.start_s, span.end_s, span.fps, span.image_fps)
        return folder.read(place, span.times_s) if place.is_file() else None

    def _placed(self, face: FaceTrack, opened: Video) -> FaceTrack:
        """The track with the area to crop for a box, and without faces that cannot be cropped."""
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
        boxes = np.where(present[:, None], boxes, np.nan).astype(np.float32)
        landmarks = None if face.landmarks is None else np.where(present[:, None, None], face.landmarks, np.nan)
        return replace(face, boxes=boxes, present=present, landmarks=landmarks)


class _Span:
    """The frames asked for of an open video: (N,) times since `start_s`, (N,) moments since the video's first frame."""

    def __init__(
        self, opened: Video, start_s: float, end_s: float | None, fps: float | None, image_fps: float | None
    ) -> None:
        self.opened = opened
        self.start_s = start_s
        self.end_s = end_s
        self.fps = fps
        self.image_fps = image_fps
        indices, self.times_s = frame_indices(opened.times_s, start_s, end_s, fps)
        self.moments_s = opened.times_s[indices]

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """The pictures, (n, H, W, 3), a few at a time."""
        return (images for images, _ in read_chunks(self.opened, self.start_s, self.end_s, self.fps, _BLOCK_FRAMES))


class _Search:
    """Pictures in, the track of those frames out that are settled by then; boxes not smoothed."""

    def __init__(self, sightings: Sightings, tracker: Tracker, times_s: NDArray[np.float64]) -> None:
        self.sightings = sightings
        self._tracker = tracker
        self._to_come_s = times_s

    def add(self, images: NDArray[np.uint8]) -> FaceTrack:
        found = self.sightings.add(images)
        times_s, self._to_come_s = self._to_come_s[: len(found)], self._to_come_s[len(found) :]
        return self._tracker.add(times_s, found)

    def finish(self) -> FaceTrack:
        return self._tracker.finish()


def _chunk(
    crops: NDArray[np.uint8], face: FaceTrack, backend: str, seconds: dict[str, float], reused_track: bool
) -> CropChunk:
    """A full chunk; the time spent begins anew."""
    spent = dict(seconds)
    seconds.update(dict.fromkeys(seconds, 0.0))
    channels_first = crops.transpose(0, 3, 1, 2)
    return CropChunk(
        channels_first, face.times_s, face.present, face.boxes, backend, face.landmarks, spent, reused_track
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] += time.perf_counter() - began


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
