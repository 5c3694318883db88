"""Every data set from generated files to a score, by one loop: synth, faces, data check, extract, fit, evaluate.

    python benchmarks/data_sets.py                  # all data sets: about a minute on one core
    python benchmarks/data_sets.py --quick          # the fewest people and frames that still train: half of it
    python benchmarks/data_sets.py --only unbc-frame mintpain-T

Each row of `ROWS` takes the data set's YAML in configs/data as it is, and one small YAML that all of them share. What
the commands say goes to OUT/<name>/log.txt. The exit code is 1 if any step of any data set fails.

The scores mean nothing: so few generated people show that the machinery runs, and no more.
"""

import argparse
import json
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import painseq.cli.experiment
from painseq.cli import main as painseq

SMALL = """\
# The smallest network of timm on crops of 32 pixels; boxes from the generator's sidecars, so no detector is needed.
data:
  init_args:
    options:
      fps: 4
      face:
        class_path: painseq.faces.FaceCrops
        init_args: {locator: {class_path: painseq.faces.Sidecar}, size_px: 32}
model:
  extractor:
    class_path: painseq.extractors.TimmBackbone
    init_args: {model: test_resnet, weights: null, input_size_px: 32}
  head: {class_path: painseq.heads.LinearProbe}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-2, weight_decay: 0.01}}
  class_weights: inverse_frequency
trainer: {max_epochs: 20, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
early_stopping: {patience: 5}
"""
WIDTHS = (14, 16, 16, 6, 9, 8, 9, 7)


@dataclass(frozen=True)
class Row:
    """One way through one data set.

    Args:
        name: of the row.
        synth: the layout that `painseq synth` writes; rows of the same one share its files.
        config: of configs/data, without suffix.
        amount: options of `painseq synth`; quick: those that --quick puts in their place.
        labels: label scheme.
        protocol: of the split.
        data: further options of the data set.
        tracks: follow the faces first, so that `data check` can tell where they are missing.
        hidden: the labels of the test part are; score with those of the generator's truth.
    """

    name: str
    synth: str
    config: str
    amount: str
    quick: str
    labels: str
    protocol: str
    data: str = ""
    tracks: bool = False
    hidden: bool = False


HEAT = ("--subjects 12 --trials 2 --fps 4", "--subjects 5 --trials 1 --fps 4")
SHOCK = (
    "--subjects 8 3 3 --trials 3 --baseline-s 30 --fps 4",
    "--subjects 3 1 1 --trials 1 --baseline-s 20 --fps 4",
)
SHOULDER = ("--subjects 12 --sequences 4 --frames 24 --fps 4", "--subjects 5 --sequences 2 --frames 8 --fps 4")
SWEEPS = (
    "--subjects 8 --trials 2 --sweeps 4 --clip-s 2 --fps 4",
    "--subjects 3 --trials 1 --sweeps 4 --clip-s 1 --fps 4",
)
BOTH = (
    "--subjects 8 --trials 2 --phasic-s 4 --tonic-s 6 --fps 4",
    "--subjects 4 --trials 1 --phasic-s 1 --tonic-s 1 --fps 4",
)
OWN = ("--subjects 12 --trials 2 --clip-s 4 --fps 4", "--subjects 5 --trials 1 --clip-s 1 --fps 4")
IMAGES = "--data.fps 4"
"""Images do not tell their frame rate, so the modules are told what `painseq synth` was."""

ROWS = (
    Row("biovid", "biovid", "biovid", *HEAT, "binary", "subject_holdout", tracks=True),
    Row("biovid-frames", "biovid-frames", "biovid", *HEAT, "five", "subject_kfold", IMAGES),
    Row("ai4pain", "ai4pain", "ai4pain", *SHOCK, "three", "official_inner", hidden=True),
    Row("unbc-frame", "unbc", "unbc", *SHOULDER, "binary", "subject_kfold", f"{IMAGES} --data.target frame"),
    Row(
        "unbc-window", "unbc", "unbc", *SHOULDER, "three", "subject_kfold",
        f"{IMAGES} --data.target window --data.window_s 1 --data.stride_s 0.5",
    ),
    Row(
        "unbc-sequence", "unbc", "unbc", *SHOULDER, "vas_binary", "subject_kfold",
        f"{IMAGES} --data.target sequence --data.label vas",
    ),
    Row("mintpain-RGB", "mintpain", "mintpain", *SWEEPS, "five", "loso", IMAGES),
    Row("mintpain-T", "mintpain", "mintpain", *SWEEPS, "binary", "loso", f"{IMAGES} --data.modality T"),
    Row("xite", "xite", "xite", *BOTH, "heat_four", "subject_holdout", "--data.view frontal"),
    Row("folder", "folder", "folder", *OWN, "native", "subject_holdout", "--data.classes [no_pain,low_pain,high_pain]"),
)  # fmt: skip


def steps(row: Row, out: Path, small: Path, quick: bool) -> list[list[str]]:
    """The commands of a row, in their order."""
    root, here = out / "data" / row.synth, out / row.name
    amount = f"{row.quick} --size-px 64" if quick else f"{row.amount} --size-px 96"
    options = f"--data.options.labels {row.labels} --data.options.split.protocol {row.protocol} {row.data}".split()
    data = ["--config", f"configs/data/{row.config}.yaml", "--config", str(small), "--data.root", str(root), *options]
    tracks = ["--tracks", str(here / "tracks")] if row.tracks else []
    truth = ["--truth", str(out / "data" / f"{row.synth}_truth" / "labels.csv")] if row.hidden else []
    store = ["--data.options.store", str(here / "store")]
    best = ["--checkpoint", str(here / "run" / "best.ckpt")]
    return [
        ["synth", row.synth, str(root), *amount.split(), "--workers", "1"],
        *([["faces", *data, "--out", str(here / "tracks")]] if row.tracks else []),
        ["data", "check", *data, *tracks, "--json", str(here / "check.json")],
        ["extract", *data, "--out", str(here / "store")],
        ["fit", *data, *store, "--out", str(here / "run")],
        ["evaluate", *data, *store, *best, *truth, "--out", str(here / "test")],
    ]


def call(command: list[str]) -> bool:
    """Whether a command succeeds; whatever it says, a traceback included, goes to stdout and stderr."""
    print(f"\n$ painseq {' '.join(command)}", flush=True)
    try:
        return painseq(command) == 0
    except SystemExit as stop:  # argparse, of a wrong option
        return stop.code in (0, None)
    except Exception:
        traceback.print_exc()
        return False


def failed_step(row: Row, out: Path, small: Path, quick: bool) -> str:
    """Run the commands of a row up to the first that fails, and name it; nothing if none does."""
    (out / row.name).mkdir(parents=True)
    with (out / row.name / "log.txt").open("w", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        logging.root.addHandler(handler)
        try:
            with redirect_stdout(file), redirect_stderr(file):
                for command in steps(row, out, small, quick):
                    if not call(command):
                        return command[0]
        finally:
            logging.root.removeHandler(handler)
    return ""


def cells_of(row: Row, out: Path, seconds: float) -> list[str]:
    """What the commands wrote of a row, as cells of the table."""
    check = json.loads((out / row.name / "check.json").read_text(encoding="utf-8"))
    metrics = json.loads((out / row.name / "test" / "metrics.json").read_text(encoding="utf-8"))
    (model,) = metrics["models"].values()
    # Clips whose label the scheme leaves out take no part; those with a hidden one do.
    clips = sum(label["clips"] for label in check["labels"] if label["class_name"] or label["label"] is None)
    score, chance = model["scores"]["balanced_accuracy"], 1 / len(model["class_names"])
    return [
        row.name, row.labels, row.protocol, f"{clips}", f"{check['subjects']}", f"{seconds:.1f}", f"{score:.3f}",
        f"{chance:.3f}",
    ]  # fmt: skip


def line(cells: Sequence[str]) -> str:
    """A line of the table; names to the left, numbers to the right."""
    return "  ".join(
        f"{cell:<{width}}" if column < 3 else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    ).rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows; 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder to make; default: runs/data_sets-<time>")
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="the fewest people and frames that still train")
    args = parser.parse_args(argv)
    out = args.out or Path("runs") / f"data_sets-{time.strftime('%Y%m%d-%H%M%S')}"
    if out.exists():
        parser.error(f"{out} is there already; give another folder.")
    out.mkdir(parents=True)
    small = out / "small.yaml"
    small.write_text(SMALL, encoding="utf-8")
    logging.root.setLevel(logging.INFO)
    print(line(["data set", "labels", "split", "clips", "subjects", "seconds", "balanced", "chance"]))
    failed = 0
    for row in (row for row in ROWS if row.name in args.only):
        began = time.perf_counter()
        step = failed_step(row, out, small, args.quick)
        if step:
            failed += 1
            print(f"{row.name}: `painseq {step}` FAILED; {out / row.name / 'log.txt'} says why", flush=True)
        else:
            print(line(cells_of(row, out, time.perf_counter() - began)), flush=True)
    print("\nBalanced accuracy on people held out. On so few generated people it means nothing; that it is there does.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
