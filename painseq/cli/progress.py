"""The progress bar of commands that go through a data set's clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from painseq.features import ExtractProgress


@contextmanager
def progress_of_clips(title: str, shown: bool = True) -> Iterator[Callable[[ExtractProgress], None]]:
    """A bar over clips, with frames a second and what went wrong, on standard error.

    Args:
        shown: false for a process that is not the first, which shows none.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips, {task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    ) as bar:
        task = bar.add_task(title, total=None, note="")

        def show(now: ExtractProgress) -> None:
            note = f"{now.frames} frames, {now.frames_per_s:.0f} a second, {now.faceless} faceless, {now.failed} failed"
            bar.update(task, total=now.total, completed=now.done, note=note)

        yield show
