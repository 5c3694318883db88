"""What `painseq explain --score` shows and writes: progress, rows, curves, and the tables with the verdict."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from painseq.files import write_csv

if TYPE_CHECKING:
    from painseq.explain.randomisation import Kind
    from painseq.explain.ranking import MethodScores, Rank
    from painseq.records import Clip

log = logging.getLogger("painseq")

TITLES: Mapping[Kind, str] = {"space": "places in the face", "time": "frames"}
SHOWN = {
    "gain": "gain",
    "infidelity": "infid.",
    "sensitivity": "sens.",
    "truth_mass": "mass",
    "truth_area": "area",
    "truth_pointing": "point.",
}
"""What fits on a terminal, and its heading there; the files have all."""


@dataclass(frozen=True)
class ScoredClip:
    """What is known of one clip.

    Args:
        truth: its class, or number; empty where it is hidden.
        explained: the class whose score is explained.
        scores: space or time -> what `score_methods` gave.
    """

    clip: Clip
    truth: str
    explained: str
    scores: Mapping[Kind, Sequence[MethodScores]]


@contextmanager
def bar_of(title: str, total: int) -> Iterator[tuple[Callable[[str, float], None], Callable[[bool], None]]]:
    """A bar with rate and time left, or a line each where there is no terminal.

    Yields:
        What tells the method at work and its share that is done; and what tells that one more is done, and whether it
        was work.
    """
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    console, begin, worked, done = Console(stderr=True), time.perf_counter(), 0, 0
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, note="")

        def rate() -> str:
            return f"{(time.perf_counter() - begin) / worked:.0f} s each, " if worked else ""

        def show(method: str, share: float) -> None:
            bar.update(task, note=f"{rate()}{method} {100 * share:.0f} %")

        def step(work: bool) -> None:
            nonlocal worked, done
            worked, done = worked + work, done + 1
            bar.update(task, completed=done)
            if work and not console.is_terminal:
                left = (time.perf_counter() - begin) / worked * (total - done)
                log.info("%s: %d of %d, %sabout %.0f s left", title, done, total, rate(), left)

        yield show, step


def write_rows(out: Path, done: Sequence[ScoredClip]) -> None:
    """scores.csv, a row a clip and method."""
    from painseq.explain.ranking import NUMBERS

    rows: list[list[object]] = [["clip_id", "subject_id", "truth", "explained", "of", "method", *NUMBERS]]
    for one in done:
        for kind, scores in one.scores.items():
            for score in scores:
                numbers = [getattr(score, name) for name in NUMBERS]
                shown = ["" if number is None else f"{number:.6f}" for number in numbers]
                about = [one.clip.clip_id, one.clip.subject_id, one.truth, one.explained]
                rows.append([*about, kind, score.method, *shown])
    write_csv(out / "scores.csv", rows, line_end="\n")


def draw(out: Path, done: Sequence[ScoredClip], ranks: Mapping[Kind, Sequence[Rank]]) -> None:
    """The curves of deletion and insertion, scores.svg and scores.png."""
    from painseq.explain.perturbation_picture import perturbation_picture

    tables = {TITLES[kind]: [one.scores[kind] for one in done] for kind in ranks}
    order = {TITLES[kind]: of for kind, of in ranks.items()}
    subjects = [one.clip.subject_id for one in done]
    (out / "scores.svg").write_bytes(perturbation_picture(tables, subjects, order, "svg"))
    (out / "scores.png").write_bytes(perturbation_picture(tables, subjects, order, "png"))


def tell(done: Sequence[ScoredClip], ranks: Mapping[Kind, Sequence[Rank]], details: Mapping[str, Any]) -> None:
    """The tables, and which method to use; `details` is what scores.json holds."""
    console = Console()
    people = len({one.clip.subject_id for one in done})
    for kind, of in ranks.items():
        names = [name for name in SHOWN if any(one.means[name].value is not None for one in of)]
        title = f"{TITLES[kind].capitalize()}: {len(done)} clips of {people} people"
        table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=0)
        table.add_column("method", no_wrap=True)
        for name in (*names, "shuffled"):
            table.add_column(SHOWN.get(name, name), justify="right", no_wrap=True)
        for one in of:
            check = details["randomisation"][kind].get(one.method)
            table.add_row(one.method, *(_cell(one, name) for name in names), _said(check))
        console.print(table)
        console.print(details["verdict"][kind], highlight=False)
    for clip_id, reason in details["skipped"].items():
        log.warning("Skipped %s: %s", clip_id, reason)
    if details["seen_in_training"]["seen"]:
        log.warning("The model was fitted on %(seen)d of these %(subjects)d people.", details["seen_in_training"])


def _cell(one: Rank, name: str) -> str:
    mean = one.means[name]
    if mean.value is None:
        return "-"
    low, high = mean.interval.low, mean.interval.high
    ends = f"\n{low:.2f}..{high:.2f}" if name == "gain" and low is not None and high is not None else ""
    return f"{mean.value:.2f}{ends}"


def _said(check: Mapping[str, Any] | None) -> str:
    """The mean rank correlations with the maps of random models, of the values and of their sizes."""
    if check is None:
        return ""
    means = [check["similarity"]["everything"][key]["value"] for key in ("signed", "absolute")]
    alike = "\n".join("-" if value is None else f"{value:.2f}" for value in means)
    return f"{alike}\nFLAGGED" if check["survives"] else alike
