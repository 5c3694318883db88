"""The threads of an extraction end, at whatever moment it is interrupted."""

import contextlib
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from painseq.features.pipeline import ClipEnd, Job, Writing
from painseq.records import Clip
from painseq.video.ahead import read_ahead

ENDS_WITHIN_S = 60.0
START = threading.Thread.start.__code__


class Interrupt:
    """Raises KeyboardInterrupt in this thread at the n-th line, call or return of Python code: a Ctrl-C then and there.

    `reached` tells whether there were so many.
    """

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.reached = False

    def __enter__(self) -> "Interrupt":
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame, event, argument):
        # What the test itself does is not interrupted; nor is the code by which Python 3.13 starts a thread, where an
        # interrupt just before the end of a `with` leaves Python's own lock of all threads locked.
        if frame.f_code.co_filename != __file__ and frame.f_code is not START and event != "exception":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self.reached = True
                raise KeyboardInterrupt
        return self._trace


def ends(work) -> bool:
    """Whether this ends; a thread that hangs is left behind."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(ENDS_WITHIN_S)
    return not thread.is_alive()


class NoStore:
    """Stands for a store to which nothing is written."""

    def fail(self, clip_id: str, reason: str, changed: bool = False) -> None:
        """Forget it."""


def write(interrupt: Interrupt) -> None:
    job = Job(Clip("clip", "subject", "video.mp4"), Path("video.mp4"))
    with interrupt:
        writing = Writing(NoStore())
    try:
        with interrupt:
            for _ in range(40):
                writing.put(ClipEnd(job, "failed", "unreadable"))
    finally:
        writing.close()


def read(interrupt: Interrupt) -> None:
    items = read_ahead(range(30), lambda job: [job], 2, 4)
    try:
        with interrupt:
            for _ in items:
                pass
    finally:
        items.close()


def interrupted(work, interrupt: Interrupt) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        work(interrupt)


@pytest.mark.parametrize("work", [write, read])
def test_threads_end_whenever_they_are_interrupted(work):
    moment, interrupt = 0, Interrupt(0)
    while moment == 0 or interrupt.reached:
        moment += 1 if moment < 60 else 17
        interrupt = Interrupt(moment)
        assert ends(partial(interrupted, work, interrupt)), moment
    assert moment > 100
