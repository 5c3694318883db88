"""`painseq demo`: the whole pipeline on generated data, from videos to a report."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from painseq.cli.printing import terminal
from painseq.cli.progress import progress_bars


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq demo",
        description="Run the whole pipeline on generated data: heat-pain CNN, features of electrical pain, heads, "
        "scores "
        "on held-out subjects, Grad-CAM, report. Rerun the same command to resume.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="write to this folder; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of data, heads and order; default: %(default)s")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="draw faces in this many processes; default: one per core",
    )
    args = parser.parse_args(argv)
    from painseq.cli.evaluate import show
    from painseq.studies.demo import demo, in_words

    console = terminal()

    def begin_step(title: str) -> None:
        console.rule(Text(title, style="bold"), align="left")

    with progress_bars() as on_progress:
        result = demo(args.out, args.seed, args.workers, on_step=begin_step, on_progress=on_progress)
    console.rule()
    show(result.evaluations)
    console.print(in_words(result.difference))
    console.print("Generated faces: these scores show that the software works; they say nothing about patients.")
    console.print(f"{result.facts['time']}; {result.facts['peak memory']}.", style="dim")
    console.print(f"Report: {result.page}", soft_wrap=True)
    return 0
