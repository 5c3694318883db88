"""Sample a stream by time, picture by picture."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError

_TIME_TOLERANCE_S = 1e-6
_STEPS_KEPT = 1000


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture that stands for a moment.

    Args:
        image: (H, W, 3) uint8 RGB.
        time_s: the moment, in seconds since the first picture.
        repeated: whether the sample before is the same picture, since pictures come more slowly than samples.
    """

    image: NDArray[np.uint8]
    time_s: float
    repeated: bool


@dataclass(eq=False)
class _Picture:
    image: NDArray[np.uint8]
    time_s: float
    is_used: bool = False


class Sampler:
    """Choose the pictures of a stream that are the samples of a rate, as `painseq.video.frame_indices` does in a file.

    A sample is the picture nearest to its moment. It is known once a picture at or after the moment has come.

    Args:
        fps: samples per second; None takes every picture.
        source: name of the camera or file, for the error.
    """

    def __init__(self, fps: float | None, source: str = "The source") -> None:
        self.start_s: float | None = None
        """Time of the first picture on the source's clock."""
        self._fps = fps
        self._source = source
        self._base_s = 0.0
        self._count = 0
        self._last: _Picture | None = None
        self._last_s = -np.inf
        self._steps_s: deque[float] = deque(maxlen=_STEPS_KEPT)

    def push(self, image: NDArray[np.uint8], time_s: float) -> list[Sample]:
        """Take the next picture, which must not change later, and return the samples that are known by now.

        Raises:
            PainseqError: the time goes back.
        """
        if self.start_s is None:
            self.start_s = time_s
        now_s = time_s - self.start_s
        if not now_s >= self._last_s:
            raise PainseqError(
                f"{self._source}: a picture at {time_s:.3f} s comes after one at {self.start_s + self._last_s:.3f} s."
            )
        self._last_s = now_s
        if self._fps is None:
            return [Sample(image, now_s, False)]
        before, picture = self._last, _Picture(image, now_s)
        self._last = picture
        if before is None:
            self._base_s, self._count, before = now_s, 0, picture
        else:
            self._steps_s.append(now_s - before.time_s)
        samples = []
        while (due_s := self._due_s()) <= now_s + _TIME_TOLERANCE_S:
            is_nearer = now_s - due_s < due_s - before.time_s - _TIME_TOLERANCE_S
            samples.append(self._take(picture if is_nearer else before, due_s))
        return samples

    def finish(self) -> list[Sample]:
        """Return the samples after the last picture: up to half the usual time between two pictures."""
        if self._last is None:
            return []
        end_s = self._last.time_s + (median(self._steps_s) / 2 if self._steps_s else 0.0)
        samples = []
        while (due_s := self._due_s()) <= end_s + _TIME_TOLERANCE_S:
            samples.append(self._take(self._last, due_s))
        return samples

    def interrupt(self) -> None:
        """Tell that pictures were lost before the next one, which is the next sample."""
        self._last = None

    def _due_s(self) -> float:
        assert self._fps is not None
        return self._base_s + self._count / self._fps

    def _take(self, picture: _Picture, due_s: float) -> Sample:
        repeated, picture.is_used = picture.is_used, True
        self._count += 1
        return Sample(picture.image, due_s, repeated)
