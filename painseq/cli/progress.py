"""The one progress bar of the command line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from painseq.runs import OnProgress

if TYPE_CHECKING:
    from painseq.features import ExtractProgress

log = logging.getLogger("painseq")

LINE_EVERY_S = 10.0
"""Where output is no terminal, a line at most this often."""


@contextmanager
def progress_bar(title: str, unit: str, shown: bool = True) -> Iterator[OnProgress]:
    """A bar with count, rate, a note and the time left, on standard error; lines of a log where it is no terminal.

    Args:
        unit: what is counted, in the plural: "clips", "fits".
        shown: false for a process that is not the first, which shows nothing.

    Yields:
        What the library calls with the number done, the number of all, and a note.
    """
    console, begin = Console(stderr=True), time.perf_counter()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit + " {task.fields[note]}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    last = 0.0
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(title, total=None, note="")

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal last
            bar.update(task, completed=done, total=total, note=note)
            now = time.perf_counter() - begin
            if shown and not console.is_terminal and now - last >= LINE_EVERY_S:
                last = now
                left = f"; about {now / done * (total - done):.0f} s left" if done else ""
                log.info("%s: %d of %d %s%s%s", title, done, total, unit, f", {note}" if note else "", left)

        yield show


@contextmanager
def extract_bar(title: str, shown: bool = True) -> Iterator[Callable[[ExtractProgress], None]]:
    """A bar over clips, with frames a second and what went wrong."""
    with progress_bar(title, "clips", shown) as bar:

        def show(now: ExtractProgress) -> None:
            note = f"{now.frames} frames, {now.frames_per_s:.0f} a second, {now.faceless} faceless, {now.failed} failed"
            bar(now.done, now.total, note)

        yield show
