"""`painseq synth`: write generated pain videos in the layout of a real data set."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

ABOUT = "Write generated pain videos, with known truth, in the layout of BioVid or AI4Pain."


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser("painseq synth")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `painseq synth`."""
    parser.description = f"{ABOUT} They prove the machinery; they say nothing about patients."
    sets = parser.add_subparsers(dest="data_set", required=True, metavar="{biovid,ai4pain}")
    biovid = sets.add_parser("biovid", help="heat pain: clips of 5.5 s in up to five classes")
    biovid.add_argument("--subjects", type=int, default=24, metavar="N", help="default: %(default)s")
    biovid.add_argument("--trials", type=int, default=4, help="clips a class and subject; default: %(default)s")
    biovid.add_argument(
        "--levels", nargs="+", default=["BL1", "PA1", "PA2", "PA3", "PA4"], help="default: all five", metavar="LEVEL"
    )
    biovid.add_argument("--fps", type=float, default=25.0, help="frames a second; default: %(default)s")
    ai4pain = sets.add_parser("ai4pain", help="electrical pain: clips of 10 s in three classes, test labels hidden")
    ai4pain.add_argument(
        "--subjects", type=int, nargs=3, default=[41, 12, 12], metavar=("TRAIN", "VALIDATION", "TEST"),
        help="subjects of each part; default: 41 12 12",
    )  # fmt: skip
    ai4pain.add_argument(
        "--trials", type=int, default=12, help="low, and as many high pain clips a subject; default: %(default)s"
    )
    ai4pain.add_argument(
        "--baseline-s", type=float, default=60.0, help="seconds of the no-pain recording; default: %(default)s"
    )
    ai4pain.add_argument("--fps", type=float, default=30.0, help="frames a second; default: %(default)s")
    for part in (biovid, ai4pain):
        part.add_argument("out", type=Path, metavar="OUT", help="folder to write; its truth goes to OUT_truth")
        part.add_argument("--size-px", type=int, default=192, help="height and width; default: %(default)s")
        part.add_argument("--seed", type=int, default=0, help="default: %(default)s")
        part.add_argument(
            "--workers", type=int, default=os.cpu_count() or 1, help="processes; default: one a core (%(default)s)"
        )


def run(args: argparse.Namespace) -> int:
    """Write the data set with a progress bar; run again, it goes on where it was stopped."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from painseq.synthetic import AI4PainPlan, BioVidPlan, write_ai4pain, write_biovid

    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,}/{task.total:,} frames"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{args.data_set} -> {args.out}", total=1, rate="")

        def on_progress(done: int, total: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=done, total=total, rate=f"{speed:,.0f} frames/s" if speed else "")

        if args.data_set == "biovid":
            heat = BioVidPlan(args.subjects, args.trials, tuple(args.levels), args.fps, args.size_px)
            truth = write_biovid(args.out, heat, args.seed, args.workers, on_progress)
        else:
            train, validation, test = args.subjects
            electrical = AI4PainPlan(train, validation, test, args.trials, args.baseline_s, args.fps, args.size_px)
            truth = write_ai4pain(args.out, electrical, args.seed, args.workers, on_progress)
    videos = sum(1 for _ in args.out.rglob("*.mp4"))
    console.print(f"{videos} generated videos in {args.out}; their truth in {truth}.", soft_wrap=True)
    return 0
