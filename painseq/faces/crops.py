"""Crop one face out of a video."""

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

from painseq.errors import PainseqError
from painseq.faces.alignment import eye_angles
from painseq.faces.cropping import SQUARES, crop_of, with_crop_areas
from painseq.faces.locator import Locator
from painseq.faces.sightings import LiveSightings, Sightings
from painseq.faces.track import FaceTrack, Smoother, Tracker, joined, smoothed
from painseq.faces.tracks import StoredTrack, TrackFolder
from painseq.spec import Spec, build, digest, spec_of
from painseq.video import Video, frame_indices, open_video, read_chunks

# Small: a frame that waits for its box keeps its whole block in memory.
_BLOCK_FRAMES = 16


@dataclass(frozen=True)
class CropChunk:
    """Consecutive frames of a clip.

    Args:
        crops: (n, 3, S, S) uint8 RGB, channels-last in memory; zero where the face is not present.
        times_s: (n,) float64, seconds since the clip's start.
        present: (n,) bool.
        boxes: (n, 4) float32, the cropped area, in pixels of the frame; NaN where not present. For "aligned" before it
            is turned about its centre.
        backend: the library that decoded the video.
        landmarks: (n, L, 2 or 3) float32, x, y (and z) in pixels of the frame, not of the crop, and not smoothed; NaN
            where not present. None if the locator gives none, or the clip has no face.
        seconds: time spent per stage ("decode", "locate", "crop").
        reused_track: whether the face track came from disk.
        switched_s: times in seconds since the clip's start from which on another person may be followed
            (`painseq.faces.track.Tracker`).
        angles_rad: (n,) float32, by which the cropped area is turned clockwise in the frame, in radians; NaN where not
            present. None for crops that are not turned.
    """

    crops: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    present: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    backend: str
    landmarks: NDArray[np.float32] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    reused_track: bool = False
    switched_s: tuple[float, ...] = ()
    angles_rad: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.times_s)


class FaceCrops:
    """Locate one face, follow it, and crop it out of each frame.

    Args:
        locator: finds the faces.
        kind: "square": a square around the smoothed box, with its longer side times 1 + margin. "landmark_box": the
            bounding box of the frame's landmarks, without margin or smoothing; the aspect ratio is not kept. "aligned":
            the square, turned about its centre so that the eyes are level, by an angle that is smoothed like the box;
            needs 68, 468 or 478 landmarks.
        size_px: side of the crops, S.
        margin: added to the side of a square crop, as a fraction of it.
        smooth_s: width of the moving average over the boxes, in seconds.
        max_gap_s: longest gap without a face that is bridged by interpolation, in seconds.
        backend: "auto", "decord", "pyav" or "images" (`painseq.video.open_video`).
        every_s: largest time between two frames that a locator of pixels looks at, in seconds
            (`painseq.faces.sightings`); 0 is every frame, at which FaceMesh always looks. At the default, YuNet's
            crops of 224 pixels are within 5 pixels of those located on every frame.
        tracks: folder of tracks, as written by `painseq faces`. Faces are located only in clips without a track there.
        same_person: after a gap or a cut, follow only a face that continues the one before in position and size
            (`painseq.faces.track.Tracker`); as long as there is none, frames have no face. False follows the largest
            face, and warns.
        causal: look at no frame later than the one that is cropped, as for a camera (`painseq.faces.FaceFollower`). The
            locator runs at least every `every_s`, after a cut, and on every frame of fast motion; between, the last
            faces are held. A gap of up to `max_gap_s` holds the last face, and smoothing uses the last `smooth_s` / 2.

    Areas outside the frame are black; a box that lies completely outside, or is smaller than a pixel, counts as no
    face. Crops are resampled with an antialiased triangle filter.

    Raises:
        PainseqError: an unknown `kind`, a number out of range, or `tracks` with a locator that needs no pixels.
    """

    def __init__(
        self,
        locator: Locator,
        kind: Literal["square", "landmark_box", "aligned"] = "square",
        size_px: int = 224,
        margin: float = 0.2,
        smooth_s: float = 0.2,
        max_gap_s: float = 0.5,
        backend: str = "auto",
        every_s: float = 0.2,
        tracks: str | Path | None = None,
        same_person: bool = False,
        causal: bool = False,
    ) -> None:
        if kind not in (*SQUARES, "landmark_box"):
            raise PainseqError(f"FaceCrops: kind is {kind!r}; use square, aligned or landmark_box.")
        if size_px < 1:
            raise PainseqError(f"FaceCrops: size_px is {size_px}; it must be 1 or more.")
        amounts = {"margin": margin, "smooth_s": smooth_s, "max_gap_s": max_gap_s, "every_s": every_s}
        for name, value in amounts.items():
            if not (math.isfinite(value) and value >= 0):
                raise PainseqError(f"FaceCrops: {name} is {value}; it must be 0 or more.")
        if tracks is not None and not locator.needs_pixels:
            # A track would save no time, and would hide corrections of the stored faces.
            raise PainseqError(
                f"{type(locator).__name__} does not search the frames, so its crops cannot use tracks. Leave out "
                "`tracks`, or choose another locator."
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
        self.same_person = same_person
        self.causal = causal

    def spec(self) -> Spec:
        """Describe how to rebuild this object, in plain values; see `from_spec`."""
        return spec_of(self)

    @classmethod
    def from_spec(cls, spec: Mapping[str, object], trust: Sequence[str] = ()) -> FaceCrops:
        """Build from `spec()`; the locator's class must be from painseq or a package in `trust`."""
        init_args = spec.get("init_args")
        if not isinstance(init_args, Mapping) or not isinstance(init_args.get("locator"), Mapping):
            raise PainseqError(f"Not a specification of face crops: {dict(spec)!r}.")
        locator = build(init_args["locator"], Locator, trust)  # type: ignore[type-abstract]
        return build({**spec, "init_args": {**init_args, "locator": locator}}, cls)

    def record(self) -> Spec:
        """Return what a store or a checkpoint records: `spec()` to rebuild it, `identity()` to compare it.

        The folder of tracks is left out: it has no tracks of other videos.
        """
        bare = copy.copy(self)
        bare.tracks = None
        return {**bare.spec(), "identity": self.identity()}

    def with_locator(self, locator: Locator) -> FaceCrops:
        """Return the same crops with another locator, and without tracks from disk."""
        copied = copy.copy(self)
        copied.locator = locator
        copied.tracks = None
        return copied

    def as_causal(self) -> FaceCrops:
        """Return the same crops without look-ahead, and without tracks from disk: what a live source gives."""
        copied = self.with_locator(self.locator)
        copied.causal = True
        return copied

    def identity(self) -> Spec:
        """Return the settings that decide the crops' pixels: `spec()` without paths, device and decoder."""
        names = ["kind", "size_px"] + (["margin", "smooth_s"] if self.kind in SQUARES else [])
        return {name: getattr(self, name) for name in names} | self.tracking()

    def tracking(self) -> Spec:
        """Return the part of `identity()` that decides the track before smoothing."""
        names = ["max_gap_s"] + (["every_s"] if self.locator.needs_pixels and not self.locator.every_frame else [])
        # Only where they are set: stores and tracks of earlier versions do not have them.
        switches: Spec = {name: True for name in ("same_person", "causal") if getattr(self, name)}
        numbers: Spec = {name: float(getattr(self, name)) for name in names}
        return numbers | switches | {"locator": self.locator.identity()}

    def fingerprint(self) -> str:
        """Digest of `identity()`."""
        return digest(self.identity())

    def extra_files(self, video: Path) -> tuple[Path, ...]:
        """Return the files, other than the video, that its crops depend on."""
        return self.locator.extra_files(video)

    def follow(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
        image_fps: float | None = None,
    ) -> FaceTrack:
        """Track the face through a span of a video, smoothed, at times relative to `start_s`; see `clip`."""
        with open_video(video, self.backend, image_fps) as opened:
            span = _Span(opened, start_s, end_s, fps, image_fps)
            stored = self._stored(span) or self._find_track(span)
        return smoothed(self.with_angles(stored.face), self.smooth_s, self.causal)

    def find_track(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
        image_fps: float | None = None,
    ) -> StoredTrack:
        """Track the face with the locator, ignoring tracks on disk, without smoothing; see `clip`."""
        with open_video(video, self.backend, image_fps) as opened:
            return self._find_track(_Span(opened, start_s, end_s, fps, image_fps))

    def clip(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
        chunk_frames: int = 64,
        image_fps: float | None = None,
    ) -> Iterator[CropChunk]:
        """Yield the crops of a span of a video in chunks; the video is decoded once.

        A frame waits for its box: until the next located frame and for `smooth_s` / 2, in a gap for `max_gap_s` more.
        Memory holds the frames of this time and a chunk of crops, independent of the video's length.

        Args:
            video: the file, or a folder of images.
            start_s: start of the span, in seconds since the first frame shown.
            end_s: end of the span, exclusive; None is the end of the video.
            fps: samples per second by timestamps (`painseq.video.frame_indices`); None is every frame.
            chunk_frames: frames per chunk, except the last.
            image_fps: images per second, if the video is a folder of images.

        Raises:
            PainseqError: the file cannot be read; the locator fails, or gives landmarks for some faces only, or none
                for "landmark_box"; the tracks were found with other settings, or the clip's track is damaged.
        """
        seconds = {"decode": 0.0, "locate": 0.0, "crop": 0.0}
        with _timed(seconds, "decode"):
            opened = open_video(video, self.backend, image_fps)
        with opened:
            span = _Span(opened, start_s, end_s, fps, image_fps)
            with _timed(seconds, "locate"):
                known, reused = self._known(span)
            remaining = len(span.times_s)
            crops, filled = self._empty_crops(min(chunk_frames, remaining)), 0
            parts: list[FaceTrack] = []
            for images, face in self._frames_with_boxes(span, known, seconds):
                first = 0
                while first < len(images):
                    end = min(len(images), first + len(crops) - filled)
                    with _timed(seconds, "crop"):
                        part = self.with_crop_areas(face[first:end], opened.size, str(opened.path))
                        for frame in np.flatnonzero(part.present):
                            crops[filled + frame] = crop_of(images[first + frame], part, int(frame), self.size_px)
                    parts.append(part)
                    filled, first = filled + end - first, end
                    if filled == len(crops):
                        yield _chunk(crops, joined(parts), opened.backend, seconds, reused)
                        remaining -= filled
                        crops, filled, parts = self._empty_crops(min(chunk_frames, remaining)), 0, []

    def frames(
        self, video: Path, start_s: float = 0.0, end_s: float | None = None, image_fps: float | None = None
    ) -> Iterator[tuple[list[NDArray[np.uint8]], FaceTrack]]:
        """Yield the frames of a span of a video with their smoothed track, a few at a time; see `clip`."""
        with open_video(video, self.backend, image_fps) as opened:
            span = _Span(opened, start_s, end_s, None, image_fps)
            yield from self._frames_with_boxes(span, self._known(span)[0], {"decode": 0.0, "locate": 0.0})

    def _known(self, span: _Span) -> tuple[FaceTrack | None, bool]:
        """Return the track, unless the frames must be searched one after the other, and whether it was on disk."""
        stored = self._stored(span)
        if stored is None and self.locator.needs_pixels:
            return None, False
        return (stored or self._find_track(span)).face, stored is not None

    def _empty_crops(self, frames: int) -> NDArray[np.uint8]:
        return np.zeros((frames, self.size_px, self.size_px, 3), np.uint8)

    def _frames_with_boxes(
        self, span: _Span, known: FaceTrack | None, seconds: dict[str, float]
    ) -> Iterator[tuple[list[NDArray[np.uint8]], FaceTrack]]:
        """Yield the frames whose boxes are final, with their smoothed track."""
        search, smoother = self._search(span), Smoother(self.smooth_s, self.causal)
        waiting: deque[NDArray[np.uint8]] = deque()
        read = 0
        blocks = span.blocks()
        while read < len(span.times_s):
            with _timed(seconds, "decode"):
                images = next(blocks)
            with _timed(seconds, "locate"):
                face = search.add(images) if known is None else known[read : read + len(images)]
                settled = smoother.add(self.with_angles(face))
            read += len(images)
            waiting.extend(images)
            yield [waiting.popleft() for _ in range(len(settled))], settled
        yield list(waiting), joined([smoother.add(search.finish()), smoother.finish()])

    def _search(self, span: _Span) -> _Search | _LiveSearch:
        if self.causal:
            live = LiveSightings(self.locator, span.opened.path, self.every_s)
            return _LiveSearch(live, self.tracker(str(span.opened.path)), span.times_s)
        sightings = Sightings(self.locator, span.opened.path, span.video_times_s, self.every_s)
        return _Search(sightings, self.tracker(str(span.opened.path)), span.times_s)

    def tracker(self, source: str) -> Tracker:
        """Return a new tracker with these settings; `source` names the video in its errors."""
        return Tracker(self.max_gap_s, source, self.same_person, self.causal)

    def _find_track(self, span: _Span) -> StoredTrack:
        if self.locator.needs_pixels:
            search = self._search(span)
            parts = [search.add(images) for images in span.blocks()]
            return StoredTrack(joined([*parts, search.finish()]), search.sightings.located)
        tracker = self.tracker(str(span.opened.path))
        found = self.locator.locate(None, span.video_times_s, span.opened.path)
        return StoredTrack(joined([tracker.add(span.times_s, found), tracker.finish()]), len(found))

    def _stored(self, span: _Span) -> StoredTrack | None:
        if self.tracks is None:
            return None
        folder = TrackFolder(Path(self.tracks), self.tracking())
        folder.check()
        place = folder.place(span.opened.path, span.start_s, span.end_s, span.fps, span.image_fps)
        return folder.read(place, span.times_s) if place.is_file() else None

    def with_crop_areas(self, face: FaceTrack, frame_px: tuple[int, int], source: str) -> FaceTrack:
        """Return a smoothed track with cropped areas as boxes, without faces that cannot be cropped.

        Args:
            frame_px: (width, height) of the frames.
            source: name of the video, for the error.

        Raises:
            PainseqError: the crops need landmarks, and the locator finds none.
        """
        if self.kind != "square" and face.landmarks is None and face.present.any():
            raise PainseqError(
                f"{source}: {type(self.locator).__name__} finds no landmarks, which crops of kind {self.kind} "
                "need. Use kind square, or the locator FaceMesh, FaceAlignment or Sidecar."
            )
        return with_crop_areas(face, self.kind, self.margin, frame_px)

    def with_angles(self, face: FaceTrack) -> FaceTrack:
        """Return an unsmoothed track with the angles of the eyes, if crops are turned by them."""
        if self.kind != "aligned" or face.landmarks is None:
            return face
        return replace(face, angles_rad=eye_angles(face.landmarks))


class _Span:
    """The requested frames of an open video: (N,) times since `start_s`, (N,) times since the video's first frame."""

    def __init__(
        self, opened: Video, start_s: float, end_s: float | None, fps: float | None, image_fps: float | None
    ) -> None:
        self.opened = opened
        self.start_s = start_s
        self.end_s = end_s
        self.fps = fps
        self.image_fps = image_fps
        indices, self.times_s = frame_indices(opened.times_s, start_s, end_s, fps)
        self.video_times_s = opened.times_s[indices]

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames, (n, H, W, 3), a few at a time."""
        return (images for images, _ in read_chunks(self.opened, self.start_s, self.end_s, self.fps, _BLOCK_FRAMES))


class _Search:
    """Takes frames, and returns the unsmoothed track of the frames that are final by then."""

    def __init__(self, sightings: Sightings, tracker: Tracker, times_s: NDArray[np.float64]) -> None:
        self.sightings = sightings
        self._tracker = tracker
        self._times_s = times_s
        self._done = 0

    def add(self, images: NDArray[np.uint8]) -> FaceTrack:
        found = self.sightings.add(images)
        first, self._done = self._done, self._done + len(found)
        cuts = {cut - first for cut in self.sightings.cuts}
        return self._tracker.add(self._times_s[first : self._done], found, cuts)

    def finish(self) -> FaceTrack:
        return self._tracker.finish()


class _LiveSearch:
    """Takes frames, and returns the unsmoothed track of all of them, each found without the later ones."""

    def __init__(self, sightings: LiveSightings, tracker: Tracker, times_s: NDArray[np.float64]) -> None:
        self.sightings = sightings
        self._tracker = tracker
        self._times_s = times_s
        self._done = 0

    def add(self, images: NDArray[np.uint8]) -> FaceTrack:
        frames = slice(self._done, self._done + len(images))
        self._done += len(images)
        looks = [
            self.sightings.look(image, time_s)
            for image, time_s in zip(images, self._times_s[frames].tolist(), strict=True)
        ]
        cuts = {frame for frame, (_, is_cut) in enumerate(looks) if is_cut}
        return self._tracker.add(self._times_s[frames], [faces for faces, _ in looks], cuts)

    def finish(self) -> FaceTrack:
        return self._tracker.finish()


def _chunk(
    crops: NDArray[np.uint8], face: FaceTrack, backend: str, seconds: dict[str, float], reused_track: bool
) -> CropChunk:
    """Return a full chunk, and reset the measured times."""
    spent = dict(seconds)
    seconds.update(dict.fromkeys(seconds, 0.0))
    channels_first = crops.transpose(0, 3, 1, 2)
    return CropChunk(
        channels_first,
        face.times_s,
        face.present,
        face.boxes,
        backend,
        face.landmarks,
        spent,
        reused_track,
        face.switched_s,
        face.angles_rad,
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] += time.perf_counter() - start
