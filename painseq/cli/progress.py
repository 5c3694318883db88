"""The progress bar of the command line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from painseq.runs import OnProgress

if TYPE_CHECKING:
    from painseq.features import ExtractProgress

log = logging.getLogger("painseq")

LINE_EVERY_S = 10.0
"""If standard error is not a terminal, a line is logged at most this often."""
SPEED_OVER_S = 600.0
"""The time left is estimated by the steps of this long: a single fit can take minutes."""


@contextmanager
def progress_bar(title: str, unit: str, shown: bool = True) -> Iterator[OnProgress]:
    """Show a bar with count, rate, a note and the time left on standard error; without a terminal, log lines.

    Args:
        title: of the bar; "" for none.
        unit: what is counted, in the plural, such as "clips" or "fits".
        shown: False shows nothing, for all processes but the first.

    Yields:
        A function to call with the number done, the total and a note.
    """
    console, started = Console(stderr=True), time.perf_counter()
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[note]}", markup=False),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    last_line_s = 0.0
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden, speed_estimate_period=SPEED_OVER_S) as bar:
        task = bar.add_task(title, total=None, note="")

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal last_line_s
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, note=f"{_rate(speed)} {note}" if speed else note)
            elapsed_s = time.perf_counter() - started
            if shown and not console.is_terminal and elapsed_s - last_line_s >= LINE_EVERY_S:
                last_line_s = elapsed_s
                speed = done / elapsed_s
                left = f", {_rate(speed)}; about {(total - done) / speed:.0f} s left" if done else ""
                beginning = f"{title}: " if title else ""
                log.info("%s%d of %d %s%s%s", beginning, done, total, unit, f", {note}" if note else "", left)

        yield show


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Show one bar after the other, for work in stages.

    Yields:
        A function to call with the number done, the total, and a note that names what is counted; another note, or a
        count that is complete, ends a bar.
    """
    with ExitStack() as bars:
        current: dict[str, OnProgress] = {}

        def show(done: int, total: int, note: str = "") -> None:
            if note not in current:
                bars.close()
                current.clear()
                current[note] = bars.enter_context(progress_bar("", note))
            current[note](done, total)
            if done >= total:
                bars.close()
                current.clear()

        yield show


def _rate(speed: float) -> str:
    return f"{speed:,.0f} per second" if speed >= 1 else f"{60 * speed:.1f} per minute"


@contextmanager
def extract_bar(title: str, shown: bool = True) -> Iterator[Callable[[ExtractProgress], None]]:
    """Show a bar over clips, with frames per second, frames without a face and failed clips."""
    with progress_bar(title, "clips", shown) as bar:

        def show(progress: ExtractProgress) -> None:
            frames = f"{progress.frames} frames, {progress.frames_per_s:.0f} per second"
            bar(progress.done, progress.total, f"{frames}, {progress.faceless} faceless, {progress.failed} failed")

        yield show
