"""Read a source in a thread of its own, so that the newest picture is always at hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self

from painseq.video.sources import Picture, SignalLost, Source

_POLL_S = 0.005
_JOIN_TIMEOUT_S = 10.0


class Reader:
    """Reads a source in a thread; iterate over it for its pictures and losses of signal.

    Of a live source one picture waits: a newer one takes its place, and the older is dropped and counted. A file that
    is not paced, or an iterator, waits for the one who takes its pictures. An error of the source is raised here.

    Args:
        source: read once.

    Attributes:
        read: pictures that the source gave.
        dropped: pictures that were replaced by newer ones before they were taken.
        losses: losses of signal.

    Example:
        >>> with Reader(open_source("rtsp://camera.local/stream")) as reader:
        ...     for event in reader:
        ...         print(event, reader.dropped)
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.read = 0
        self.dropped = 0
        self.losses = 0
        # `queue.Queue` can be left locked by an interrupt; this one cannot.
        self._waiting: SimpleQueue[Picture | SignalLost | BaseException | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="source", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the source and its thread; a thread that hangs in a driver is left behind."""
        self.source.stop()
        give_up_s = time.monotonic() + _JOIN_TIMEOUT_S
        while self._thread.is_alive() and time.monotonic() < give_up_s:
            time.sleep(_POLL_S)

    def __iter__(self) -> Iterator[Picture | SignalLost]:
        return (event for event in self.ticking(None) if event is not None)

    def ticking(self, every_s: float | None) -> Iterator[Picture | SignalLost | None]:
        """Yield the events as they come, and None after each `every_s` seconds without one, so that nothing freezes."""
        while True:
            try:
                item = self._waiting.get(timeout=every_s)
            except Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _work(self) -> None:
        last: BaseException | None = None
        try:
            for event in self.source:
                if isinstance(event, Picture):
                    self.read += 1
                else:
                    self.losses += 1
                if not self._put(event):
                    break
        except BaseException as error:
            last = error
        self._waiting.put(last)

    def _put(self, event: Picture | SignalLost) -> bool:
        """Let an event wait; return false if the source was stopped meanwhile."""
        if self.source.is_live:
            # This thread alone puts, so that what it takes out and puts back stays in order.
            before = [item for item in self._taken_back() if isinstance(item, Picture | SignalLost)]
            for item in self._kept([*before, event]):
                self._waiting.put(item)
            return True
        while self._waiting.qsize():
            if not self.source.clock.wait(_POLL_S):
                return False
        self._waiting.put(event)
        return True

    def _taken_back(self) -> Iterator[Picture | SignalLost | BaseException | None]:
        while True:
            try:
                yield self._waiting.get_nowait()
            except Empty:
                return

    def _kept(self, events: list[Picture | SignalLost]) -> list[Picture | SignalLost]:
        """Return the newest picture and the newest loss of signal, in order."""
        newest = {type(event): event for event in events}
        self.dropped += sum(isinstance(event, Picture) for event in events) - (Picture in newest)
        return [event for event in events if event is newest[type(event)]]
