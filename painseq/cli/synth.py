"""`painseq synth`: generate pain videos in the layout of a real data set."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from painseq.runs import OnProgress

DESCRIPTION = (
    "Generate pain videos, with known truth, in the layout of a data set. They serve to test the software, and say "
    "nothing about patients. Rerun the same command to resume."
)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser("painseq synth")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.description = DESCRIPTION
    sets = parser.add_subparsers(dest="data_set", required=True, metavar="NAME")
    biovid = sets.add_parser("biovid", help="heat pain: clips of 5.5 s in up to five classes")
    biovid_frames = sets.add_parser("biovid-frames", help="the same clips as folders of JPEG frames")
    for part in (biovid, biovid_frames):
        _add_numbers(part, subjects=24, trials=4, trials_are="clips per class and subject", fps=25.0)
        part.add_argument(
            "--levels", nargs="+", default=["BL1", "PA1", "PA2", "PA3", "PA4"], help="stimulus levels; default: all",
            metavar="LEVEL",
        )  # fmt: skip
    ai4pain = sets.add_parser("ai4pain", help="electrical pain: clips of 10 s in three classes, test labels hidden")
    ai4pain.add_argument(
        "--subjects", type=int, nargs=3, default=[41, 12, 12], metavar=("TRAIN", "VALIDATION", "TEST"),
        help="subjects of each part; default: 41 12 12",
    )  # fmt: skip
    _add_numbers(ai4pain, trials=12, trials_are="clips of low pain, and of high pain, per subject", fps=30.0)
    ai4pain.add_argument(
        "--baseline-s",
        type=float,
        default=60.0,
        help="duration of the no-pain recording in seconds; default: %(default)s",
    )
    unbc = sets.add_parser("unbc", help="clinical pain: PNG sequences with labels per frame and per sequence")
    _add_numbers(unbc, subjects=25, fps=25.0)
    unbc.add_argument(
        "--sequences", type=int, default=4, metavar="N", help="sequences per subject; default: %(default)s"
    )
    unbc.add_argument("--frames", type=int, default=60, metavar="N", help="frames per sequence; default: %(default)s")
    mintpain = sets.add_parser("mintpain", help="electrical pain: short sweeps in five classes; colour, depth, thermal")
    _add_numbers(mintpain, subjects=20, trials=2, trials_are="trials per subject", fps=25.0)
    mintpain.add_argument("--sweeps", type=int, default=8, metavar="N", help="sweeps per trial; default: %(default)s")
    xite = sets.add_parser("xite", help="heat and electrical pain, phasic and tonic; from the front and the side")
    _add_numbers(xite, subjects=12, trials=1, trials_are="segments per label and subject", fps=25.0)
    xite.add_argument(
        "--phasic-s", type=float, default=5.0, help="duration of a phasic segment in seconds; default: %(default)s"
    )
    xite.add_argument(
        "--tonic-s", type=float, default=20.0, help="duration of a tonic segment in seconds; default: %(default)s"
    )
    folder = sets.add_parser("folder", help="heat pain in class folders with a manifest")
    _add_numbers(folder, subjects=12, trials=4, trials_are="clips per class and subject", fps=25.0)
    for part, clip_s in ((mintpain, 0.8), (folder, 4.0)):
        part.add_argument(
            "--clip-s", type=float, default=clip_s, help="duration of a clip in seconds; default: %(default)s"
        )
    for part in sets.choices.values():
        part.add_argument("out", type=Path, metavar="OUT", help="write to this folder; the truth goes to OUT_truth")
        part.add_argument("--size-px", type=int, default=192, help="height and width in pixels; default: %(default)s")
        part.add_argument("--seed", type=int, default=0, help="random seed; default: %(default)s")
        part.add_argument(
            "--scars", action="store_true", help="add damage as in real copies, listed in OUT_truth/scars.json"
        )
        part.add_argument(
            "--workers",
            type=int,
            default=os.cpu_count() or 1,
            help="number of processes; default: one per core (%(default)s)",
        )


def _add_numbers(
    parser: argparse.ArgumentParser,
    *,
    fps: float,
    subjects: int | None = None,
    trials: int | None = None,
    trials_are: str = "",
) -> None:
    if subjects is not None:
        parser.add_argument(
            "--subjects", type=int, default=subjects, metavar="N", help="number of subjects; default: %(default)s"
        )
    if trials is not None:
        parser.add_argument(
            "--trials", type=int, default=trials, metavar="N", help=f"{trials_are}; default: %(default)s"
        )
    parser.add_argument("--fps", type=float, default=fps, help="frames per second; default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Write the data set, showing progress; resumes an interrupted run."""
    from painseq.cli.printing import terminal
    from painseq.cli.progress import progress_bar

    console, write = terminal(), _writer(args)
    with progress_bar(f"{args.data_set} -> {args.out}", "frames") as bar:
        truth = write(bar, args.scars)
    with (truth / "labels.csv").open(newline="", encoding="utf-8") as file:
        clips = sum(1 for _ in csv.DictReader(file))
    console.print(f"{clips} generated clips in {args.out}; the truth is in {truth}.", soft_wrap=True)
    if args.scars:
        scars = json.loads((truth / "scars.json").read_text(encoding="utf-8"))
        console.print(f"{len(scars)} kinds of scars, listed in {truth / 'scars.json'}.", soft_wrap=True)
    return 0


def _writer(args: argparse.Namespace) -> Callable[[OnProgress, bool], Path]:
    from painseq import synthetic

    fps, size_px, seed, workers = args.fps, args.size_px, args.seed, args.workers
    match args.data_set:
        case "biovid" | "biovid-frames":
            write = synthetic.write_biovid if args.data_set == "biovid" else synthetic.write_biovid_frames
            heat = synthetic.BioVidPlan(args.subjects, args.trials, tuple(args.levels), fps, size_px)
            return partial(write, args.out, heat, seed, workers)
        case "ai4pain":
            train, validation, test = args.subjects
            shock = synthetic.AI4PainPlan(train, validation, test, args.trials, args.baseline_s, fps, size_px)
            return partial(synthetic.write_ai4pain, args.out, shock, seed, workers)
        case "unbc":
            shoulder = synthetic.UNBCPlan(args.subjects, args.sequences, args.frames, fps, size_px)
            return partial(synthetic.write_unbc, args.out, shoulder, seed, workers)
        case "mintpain":
            sweeps = synthetic.MIntPAINPlan(args.subjects, args.trials, args.sweeps, args.clip_s, fps, size_px)
            return partial(synthetic.write_mintpain, args.out, sweeps, seed, workers)
        case "xite":
            both = synthetic.XITEPlan(args.subjects, args.trials, args.phasic_s, args.tonic_s, fps, size_px)
            return partial(synthetic.write_xite, args.out, both, seed, workers)
        case _:
            own = synthetic.FolderPlan(args.subjects, args.trials, args.clip_s, fps, size_px)
            return partial(synthetic.write_folder, args.out, own, seed, workers)
