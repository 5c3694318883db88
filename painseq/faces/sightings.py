"""Find the faces in every frame of a clip while running the locator on few of its frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.faces.locator import Face, Locator
from painseq.faces.track import motion_px

# Measured on real faces (docs/faces.md): half of it needs 1.5 times as many frames, twice of it doubles the error.
_MAX_MOTION = 0.05
# Held instead of interpolated, boxes lag: 0.05 nearly doubles the error, 0.01 needs twice the frames.
_MAX_MOTION_HELD = 0.02
# Mean difference in grey levels: moving faces stay below 11, cuts lie above 30.
_CUT_DIFFERENCE = 20.0
_THUMBNAIL_PX = 32
_BATCH_FRAMES = 16
_TIME_TOLERANCE_S = 1e-6


class Sightings:
    """Run a locator on as few frames as possible; frames are added in order, a few at a time.

    The locator runs on the first and the last frame, on frames at most `every_s` apart, and on both sides of a cut. If
    each face in one of these frames has a counterpart in the next, and no edge of its box and no landmark has moved by
    more than 5 % of its longer side, box, score and landmarks are interpolated linearly in between. If neither has a
    face, the frames between have none. Otherwise (a lost face, a new face, fast motion) the locator runs on every frame
    in between.

    Args:
        locator: a locator that needs pixels.
        video: path of the video.
        video_times_s: (N,) times of all frames to be added, in seconds since the video's first frame, non-decreasing.
        every_s: largest time between two located frames, in seconds; 0 locates every frame, as some locators need.

    `located` is the number of frames located so far; `cuts` are the frames that come after a cut, counted from the
    first frame added.
    """

    def __init__(self, locator: Locator, video: Path, video_times_s: NDArray[np.float64], every_s: float) -> None:
        self.located = 0
        self.cuts: set[int] = set()
        self._follow = locator.follow(video)
        self._times_s = video_times_s
        self._due = _due(video_times_s, 0 if locator.every_frame else every_s)
        # The last located frame, which is complete, and the incomplete frames after it.
        self._first = 0
        self._images: list[NDArray[np.uint8] | None] = []
        self._faces: list[list[Face] | None] = []
        self._cut = _Cuts()

    def add(self, images: NDArray[np.uint8]) -> list[list[Face]]:
        """Add the next frames, (n, H, W, 3); return the faces of the frames that are now complete, in order.

        With the last frame, all frames are complete.
        """
        settled = bool(self._faces)
        start = len(self._faces)
        self._images += list(images)
        self._faces += [None] * len(images)
        due = set((start + np.flatnonzero(self._due[self._first + start :][: len(images)])).tolist())
        for frame in self._cuts(images, start):
            due |= {frame - 1, frame}
            self.cuts.add(self._first + frame)
        self._locate(sorted(frame for frame in due if self._faces[frame] is None))
        located = [frame for frame, faces in enumerate(self._faces) if faces is not None]
        if not located:
            return []
        in_motion: list[int] = []
        for a, b in itertools.pairwise(located):
            pairs = _counterparts(self._faces[a] or [], self._faces[b] or []) if b - a > 1 else []
            if pairs is None:
                in_motion += range(a + 1, b)
                continue
            for frame in range(a + 1, b):
                share = self._share(a, frame, b)
                self._faces[frame] = [face.towards(other, share) for face, other in pairs]
        self._locate(in_motion)
        last = located[-1]
        ready = [faces for faces in self._faces[int(settled) : last + 1] if faces is not None]
        self._first += last
        self._images = [None, *self._images[last + 1 :]]
        self._faces = self._faces[last:]
        return ready

    def _locate(self, frames: Sequence[int]) -> None:
        for first in range(0, len(frames), _BATCH_FRAMES):
            batch = frames[first : first + _BATCH_FRAMES]
            images = np.stack([image for image in (self._images[frame] for frame in batch) if image is not None])
            times_s = self._times_s[self._first + np.asarray(batch)]
            for frame, faces in zip(batch, self._follow(images, times_s), strict=True):
                self._faces[frame] = faces
        self.located += len(frames)

    def _share(self, a: int, frame: int, b: int) -> float:
        start_s, time_s, end_s = (self._times_s[self._first + i] for i in (a, frame, b))
        return float((time_s - start_s) / max(end_s - start_s, _TIME_TOLERANCE_S))

    def _cuts(self, images: NDArray[np.uint8], start: int) -> list[int]:
        return [frame for frame, image in enumerate(images, start=start) if self._cut.comes_before(image)]


class LiveSightings:
    """Run a locator on as few frames as possible, without knowing the next ones.

    The locator runs on the first frame, at least every `every_s`, after a cut, and on every frame while a face comes,
    goes, or moves by more than 2 % of its longer side in `every_s`. In between, the last faces are held.

    Args:
        locator: a locator that needs pixels.
        video: name of the video or source.
        every_s: largest time between two located frames, in seconds; 0 locates every frame, as some locators need.
    """

    def __init__(self, locator: Locator, video: Path, every_s: float) -> None:
        self.located = 0
        self._locator = locator
        self._video = video
        self._follow = locator.follow(video)
        self._every_s = 0 if locator.every_frame else every_s
        self._cut = _Cuts()
        self._faces: list[Face] | None = None
        self._located_s = 0.0
        self._in_motion = False

    def look(self, image: NDArray[np.uint8], time_s: float) -> tuple[list[Face], bool]:
        """Return the faces in the next frame, (H, W, 3) at `time_s` seconds, and whether it comes after a cut."""
        is_cut = self._cut.comes_before(image)
        since_s = time_s - self._located_s
        if not (self._faces is None or is_cut or self._in_motion or since_s >= self._every_s - _TIME_TOLERANCE_S):
            return self._faces, False
        (found,) = self._follow(image[None], np.array([time_s]))
        share = 1.0 if self._every_s == 0 else min(1.0, since_s / self._every_s)
        self._in_motion = (
            self._faces is not None and _counterparts(self._faces, found, share * _MAX_MOTION_HELD) is None
        )
        self._faces, self._located_s = found, time_s
        self.located += 1
        return found, is_cut

    def interrupt(self) -> None:
        """Tell that frames are missing before the next one: it is looked at, as if it were the first."""
        self._follow = self._locator.follow(self._video)
        self._cut, self._faces, self._in_motion = _Cuts(), None, False


class _Cuts:
    """Tells of each frame whether the video is cut before it: the picture changes at once."""

    def __init__(self) -> None:
        self._thumbnail: NDArray[np.int16] | None = None

    def comes_before(self, image: NDArray[np.uint8]) -> bool:
        step = max(1, min(image.shape[:2]) // _THUMBNAIL_PX)
        thumbnail, before = image[::step, ::step].astype(np.int16), self._thumbnail
        self._thumbnail = thumbnail
        if before is None:
            return False
        return before.shape != thumbnail.shape or bool(np.abs(thumbnail - before).mean() > _CUT_DIFFERENCE)


def _due(video_times_s: NDArray[np.float64], every_s: float) -> NDArray[np.bool_]:
    """Select (N,) the first and the last frame, and as few as possible between them, at most `every_s` apart."""
    count = len(video_times_s)
    due = np.full(count, every_s == 0)
    frame = 0
    while frame < count - 1:
        due[frame] = True
        furthest = np.searchsorted(video_times_s, video_times_s[frame] + every_s + _TIME_TOLERANCE_S, side="right") - 1
        frame = max(frame + 1, int(furthest))
    due[-1:] = True
    return due


def _counterparts(
    before: Sequence[Face], after: Sequence[Face], most: float = _MAX_MOTION
) -> list[tuple[Face, Face]] | None:
    """Match each face before with one after that moved by at most `most` sides; None unless every face has a match."""
    if len(before) != len(after):
        return None
    remaining = list(after)
    pairs = []
    for face in before:
        other = min(remaining, key=lambda candidate: float(np.abs(candidate.box - face.box).max()))
        side = float((face.box[2:] - face.box[:2]).max())
        if motion_px(face, other) > most * side:
            return None
        remaining = [candidate for candidate in remaining if candidate is not other]
        pairs.append((face, other))
    return pairs
