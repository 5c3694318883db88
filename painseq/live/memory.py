"""What a model remembers of a stream, and what it says of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from painseq.model.prediction import Answer
from painseq.model.predictor import Predictor, State

_TIME_TOLERANCE_S = 1e-6


@dataclass(frozen=True, eq=False)
class Said:
    """An answer of one clip, the time that it covers, in seconds, and whether it is an earlier one."""

    answer: Answer
    window_s: float
    held: bool


class Memory(ABC):
    """The recent frames of a stream, as a head takes them."""

    @abstractmethod
    def add(self, row: NDArray[Any], present: bool, time_s: float) -> Said | None:
        """Add a frame, and return what the model says of the recent ones; None if there is no face among them.

        Args:
            row: (*F), normalised by person.
            present: whether the frame has a face.
            time_s: its time, increasing.
        """

    @abstractmethod
    def forget(self) -> None:
        """Start anew."""


def memory_of(model: Predictor, window_s: float, hop_s: float | None) -> Memory:
    """Return the memory that fits a model's head; see `painseq.live.LiveSettings`."""
    if model.steps:
        return Steps(model, window_s)
    frame_head = model.level == "frame"
    return Window(model, window_s, (0.0 if frame_head else 0.5) if hop_s is None else hop_s)


@dataclass(eq=False)
class _Run:
    begun_s: float
    state: State
    answer: Answer | None = None


class Steps(Memory):
    """A head that goes frame by frame, begun anew every half clip, so that none goes on for longer than a clip.

    The run that has seen more is heard: from half a clip to a clip, but for the beginning.
    """

    def __init__(self, model: Predictor, clip_s: float) -> None:
        self._model = model
        self._clip_s = clip_s
        self._runs: list[_Run] = []

    def add(self, row: NDArray[Any], present: bool, time_s: float) -> Said | None:
        """See `Memory.add`."""
        runs = self._runs
        if not runs or time_s - runs[-1].begun_s >= self._clip_s / 2 - _TIME_TOLERANCE_S:
            runs.append(_Run(time_s, self._model.first_state(1)))
        if time_s - runs[0].begun_s >= self._clip_s - _TIME_TOLERANCE_S and len(runs) > 1:
            runs.pop(0)
        if present:
            for run in runs:
                run.answer, run.state = self._model.step(row[None].astype(np.float32, copy=False), run.state)
        heard = runs[0]
        return None if heard.answer is None else Said(heard.answer, time_s - heard.begun_s, held=not present)

    def forget(self) -> None:
        """See `Memory.forget`."""
        self._runs = []


class Window(Memory):
    """The frames of the last seconds, which the head reads as one clip, every `hop_s` seconds (0: at each frame)."""

    def __init__(self, model: Predictor, window_s: float, hop_s: float) -> None:
        self._model = model
        self._window_s = window_s
        self._hop_s = hop_s
        self._frames: deque[tuple[float, bool, NDArray[Any]]] = deque(maxlen=model.max_frames)
        self._last: Said | None = None
        self._said_s = -np.inf

    def add(self, row: NDArray[Any], present: bool, time_s: float) -> Said | None:
        """See `Memory.add`."""
        self._frames.append((time_s, present, row))
        while self._frames[0][0] <= time_s - self._window_s + _TIME_TOLERANCE_S:
            self._frames.popleft()
        mask = np.array([[present for _, present, _ in self._frames]])
        if not mask.any():
            self._last = None
        elif self._last is None or time_s - self._said_s >= self._hop_s - _TIME_TOLERANCE_S:
            rows = np.stack([row for _, _, row in self._frames])[None]
            self._last = Said(self._model.answer(rows, mask), time_s - self._frames[0][0], held=False)
            self._said_s = time_s
            return self._last
        return None if self._last is None else Said(self._last.answer, self._last.window_s, held=True)

    def forget(self) -> None:
        """See `Memory.forget`."""
        self._frames.clear()
        self._last, self._said_s = None, -np.inf
