"""Threads that predict, and models that several of them share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces import Locator
from painseq.model.prediction import Answer
from painseq.model.predictor import Predictor, State

T = TypeVar("T")


class QueueFull(PainseqError):
    """So much waits already that nothing more is taken."""


class Workers:
    """A few threads with a queue that does not grow beyond `waiting`.

    Args:
        threads: number of threads.
        waiting: jobs that may wait.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "painseq-serve")
        self._free = threading.BoundedSemaphore(threads + waiting)

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run a job as soon as a thread is free.

        Raises:
            QueueFull: as many jobs wait already as may.
        """
        if not self._free.acquire(blocking=False):
            raise QueueFull("The service is busy. Try again in a few seconds.")
        try:
            future = self._pool.submit(job)
        except RuntimeError as error:
            self._free.release()
            raise QueueFull("The service is stopping.") from error
        future.add_done_callback(lambda _: self._free.release())
        return future

    def stop(self) -> None:
        """Take no more jobs, and leave those out that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class SharedModel(Predictor):
    """A model that several threads use, whose networks run in one thread at a time.

    Following faces, decoding and the streams stand outside of the lock, so a long video holds nobody up for longer than
    a few frames take.

    Args:
        model: any.
        locator: finds faces instead of the model's own locator.
    """

    def __init__(self, model: Predictor, locator: Locator | None = None) -> None:
        super().__init__(model.record, model.face_crops(locator))
        # The record does not tell what was set on the model since it was read.
        self.fps, self.prior = model.fps, model.prior
        self.threshold, self.same_person = model.threshold, model.same_person
        self._model = model
        self._lock = threading.Lock()
        self._is_stopped = False

    def stop(self) -> None:
        """End every prediction at its next network, with `QueueFull`; can be called from any thread."""
        self._is_stopped = True

    def _running(self) -> Predictor:
        if self._is_stopped:
            raise QueueFull("The service is stopping.")
        return self._model

    @property
    def level(self) -> Literal["frame", "video"]:
        """See `Predictor.level`."""
        return self._model.level

    @property
    def engines(self) -> Mapping[str, str]:
        """See `Predictor.engines`."""
        return self._model.engines

    @property
    def max_frames(self) -> int | None:
        """See `Predictor.max_frames`."""
        return self._model.max_frames

    @property
    def steps(self) -> bool:
        """See `Predictor.steps`."""
        return self._model.steps

    @property
    def in_shape(self) -> tuple[int, ...]:
        """See `Predictor.in_shape`."""
        return self._model.in_shape

    def features(self, crops: NDArray[np.uint8]) -> NDArray[Any]:
        """See `Predictor.features`."""
        with self._lock:
            return self._running().features(crops)

    def answer(self, rows: NDArray[Any], mask: NDArray[np.bool_]) -> Answer:
        """See `Predictor.answer`."""
        with self._lock:
            return self._running().answer(rows, mask)

    def first_state(self, batch: int = 1) -> State:
        """See `Predictor.first_state`."""
        with self._lock:
            return self._model.first_state(batch)

    def step(self, rows: NDArray[np.float32], state: State) -> tuple[Answer, State]:
        """See `Predictor.step`."""
        with self._lock:
            return self._running().step(rows, state)
