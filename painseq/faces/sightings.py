"""The faces in every frame of a clip, though the locator looks at few of the frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.faces.locator import Face, Locator

# Measured on real faces (docs/faces.md): half of it costs half as many looks again, twice of it doubles the error.
_BARELY = 0.05
# Grey levels, mean of the picture: faces that move stay below 11, cuts lie above 30.
_CUT = 20.0
_THUMBNAIL_PX = 32
_LOOK_FRAMES = 16
_SAME_MOMENT_S = 1e-6


class Sightings:
    """Runs a locator on as few frames as will do; frames come in order, a few at a time.

    It looks at the first and the last frame, at frames at most `every_s` apart, and at both sides of a cut. Where each
    face in one of these has its counterpart in the next, and no edge of its box and no landmark has moved by more than
    5 % of its longer side, the frames between get box, score and landmarks by linear interpolation. Where there is no
    face in either, there is none between. Elsewhere (a loss, a new face, fast motion) it looks at every frame between.

    Args:
        locator: one that looks at pixels.
        video: the file.
        moments_s: (N,) of all frames to come, seconds since the video's first one, not decreasing.
        every_s: 0 looks at every frame.

    `located` counts the frames looked at so far.
    """

    def __init__(self, locator: Locator, video: Path, moments_s: NDArray[np.float64], every_s: float) -> None:
        self.located = 0
        self._locator = locator
        self._video = video
        self._moments = moments_s
        self._due = _due(moments_s, every_s)
        # Frames not yet settled, behind the last one looked at, which is settled already.
        self._first = 0
        self._images: list[NDArray[np.uint8] | None] = []
        self._faces: list[list[Face] | None] = []
        self._thumbnail: NDArray[np.int16] | None = None

    def add(self, images: NDArray[np.uint8]) -> list[list[Face]]:
        """Take the next frames, (n, H, W, 3); give the faces of those settled now, in order.

        The last frame settles all of them.
        """
        settled = bool(self._faces)
        at = len(self._faces)
        self._images += list(images)
        self._faces += [None] * len(images)
        due = set((at + np.flatnonzero(self._due[self._first + at :][: len(images)])).tolist())
        for frame in self._cuts(images, at):
            due |= {frame - 1, frame}
        self._look(sorted(frame for frame in due if self._faces[frame] is None))
        looked = [frame for frame, faces in enumerate(self._faces) if faces is not None]
        if not looked:
            return []
        rest: list[int] = []
        for a, b in itertools.pairwise(looked):
            pairs = _counterparts(self._faces[a] or [], self._faces[b] or []) if b - a > 1 else []
            if pairs is None:
                rest += range(a + 1, b)
                continue
            for frame in range(a + 1, b):
                share = self._share(a, frame, b)
                self._faces[frame] = [one.towards(other, share) for one, other in pairs]
        self._look(rest)
        last = looked[-1]
        given = [faces for faces in self._faces[int(settled) : last + 1] if faces is not None]
        self._first += last
        self._images = [None, *self._images[last + 1 :]]
        self._faces = self._faces[last:]
        return given

    def _look(self, frames: Sequence[int]) -> None:
        for first in range(0, len(frames), _LOOK_FRAMES):
            some = frames[first : first + _LOOK_FRAMES]
            images = np.stack([image for image in (self._images[frame] for frame in some) if image is not None])
            moments = self._moments[self._first + np.asarray(some)]
            for frame, faces in zip(some, self._locator.locate(images, moments, self._video), strict=True):
                self._faces[frame] = faces
        self.located += len(frames)

    def _share(self, a: int, frame: int, b: int) -> float:
        start, here, end = (self._moments[self._first + i] for i in (a, frame, b))
        return float((here - start) / max(end - start, _SAME_MOMENT_S))

    def _cuts(self, images: NDArray[np.uint8], at: int) -> list[int]:
        cuts = []
        for frame, image in enumerate(images, start=at):
            step = max(1, min(image.shape[:2]) // _THUMBNAIL_PX)
            thumbnail = image[::step, ::step].astype(np.int16)
            if self._thumbnail is not None and np.abs(thumbnail - self._thumbnail).mean() > _CUT:
                cuts.append(frame)
            self._thumbnail = thumbnail
        return cuts


def _due(moments_s: NDArray[np.float64], every_s: float) -> NDArray[np.bool_]:
    """(N,) first and last frame, and between them as few as leave no two more than `every_s` apart."""
    count = len(moments_s)
    due = np.full(count, every_s == 0)
    frame = 0
    while frame < count - 1:
        due[frame] = True
        furthest = np.searchsorted(moments_s, moments_s[frame] + every_s + _SAME_MOMENT_S, side="right") - 1
        frame = max(frame + 1, int(furthest))
    due[-1:] = True
    return due


def _counterparts(here: Sequence[Face], there: Sequence[Face]) -> list[tuple[Face, Face]] | None:
    """Each face with what it became, or None unless each has one, nearly in its place."""
    if len(here) != len(there):
        return None
    left = list(there)
    pairs = []
    for face in here:
        other = min(left, key=lambda candidate: float(np.abs(candidate.box - face.box).max()))
        side = float((face.box[2:] - face.box[:2]).max())
        if _moved(face, other) > _BARELY * side:
            return None
        left = [candidate for candidate in left if candidate is not other]
        pairs.append((face, other))
    return pairs


def _moved(a: Face, b: Face) -> float:
    """The longest way of an edge or a landmark, in pixels; infinite where landmarks have no counterpart."""
    moved = float(np.abs(a.box - b.box).max())
    if a.landmarks is None and b.landmarks is None:
        return moved
    if a.landmarks is None or b.landmarks is None or a.landmarks.shape != b.landmarks.shape:
        return float("inf")
    return max(moved, float(np.abs(a.landmarks - b.landmarks).max()))
