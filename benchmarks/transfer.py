"""Does pain learned on one kind of it carry over to another? On generated data, preset seeds, all reported.

    python benchmarks/transfer.py                  # seeds 0, 1, 2
    python benchmarks/transfer.py --write          # and record the table in benchmarks/RESULTS.md

For each seed: heat, electrical and clinical pain of other people are generated; a small network is trained on single
frames of the training subjects of each; and `painseq transfer` fills the table of configs/demo/transfer.yaml. The
faces are generated: the figures prove the machinery, and say nothing about patients.
"""

import argparse
import os
import platform
import re
import shutil
import time
from pathlib import Path

import torch

from painseq.cli.experiment import shipped
from painseq.cli.extract import extract
from painseq.cli.fit import fit
from painseq.cli.transfer import transfer
from painseq.evaluation.transfer import QUESTIONS, CellResult
from painseq.fitting import LAST
from painseq.synthetic import AI4PainPlan, BioVidPlan, UNBCPlan, write_ai4pain, write_biovid, write_unbc

SEEDS = (0, 1, 2)
PLAN = Path("configs/demo/transfer.yaml")
PLACE = "runs/transfer_demo"
"""Stands in the plan where the folder of a seed is to stand."""
FRAMES = {"heat": (2.5, 5.6), "electrical": (0.0, 10.0), "clinical": (0.0, 2.0)}
"""The part of a clip, in seconds, on whose single frames the network is trained."""
RESULTS = Path(__file__).with_name("RESULTS.md")
BEGIN, END = "<!-- transfer -->", "<!-- /transfer -->"


def generate(out: Path, seed: int) -> None:
    workers = os.cpu_count() or 1
    write_biovid(out / "heat", BioVidPlan(subjects=48, trials=3, levels=("BL1", "PA4"), fps=4), seed, workers)
    plan = AI4PainPlan(train=30, validation=0, test=20, trials=2, baseline_s=20, fps=4)
    write_ai4pain(out / "electrical", plan, seed, workers)
    write_unbc(out / "clinical", UNBCPlan(subjects=48, sequences=4, frames=32, fps=4), seed, workers)


def train_network(out: Path, name: str, seed: int) -> None:
    """The analogue of the heat-pain CNN: no pain against high pain, on frames of training subjects."""
    run = out / f"{name}_cnn"
    if (run / "run.json").is_file():
        return
    if run.exists() and not (run / LAST).is_file():
        shutil.rmtree(run)  # Interrupted before its first epoch was over.
    data = [f"--config=configs/demo/transfer_{name}.yaml", f"--data.root={out / name}"]
    pixels = "{class_path: painseq.extractors.Pixels, init_args: {input_size_px: 80}}"
    crops = out / f"{name}_crops"
    extract([*data, f"--model.extractor={pixels}", f"--out={crops}"])
    from_s, to_s = FRAMES[name]
    network = "{class_path: painseq.extractors.TimmBackbone, init_args: {model: test_resnet, input_size_px: 80, "
    fit(
        [
            *data,
            "--config=configs/head/linear_frames.yaml",
            "--data.options.view=pixels",
            f"--data.options.store={crops}",
            f"--data.options.frames={{from_s: {from_s}, to_s: {to_s}}}",
            "--data.options.balance=true",
            "--data.options.batch_size=64",
            f"--model.extractor={network}weights: null, trainable: [all]}}}}",
            "--trainer.max_epochs=8",
            "--trainer.enable_model_summary=false",
            "--early_stopping.patience=3",
            f"--seed_everything={seed}",
            f"--out={run}",
            *(["--resume=true"] if run.exists() else []),
        ]
    )


def one_seed(out: Path, seed: int) -> list[CellResult]:
    generate(out, seed)
    for name in FRAMES:
        train_network(out, name, seed)
    plan = out / "plan.yaml"
    text = shipped(PLAN).read_text(encoding="utf-8").replace(PLACE, str(out))
    plan.write_text(text.replace("seeds: [0]", f"seeds: [{seed}]"), encoding="utf-8")
    return transfer(plan, out / "transfer")


def row(seed: int, result: CellResult) -> str:
    cell, gap, interval = result.cell, result.gap, result.interval
    assert result.value is not None
    own = "its own" if gap is None else f"{gap.value:+.3f} ({gap.interval.low:+.3f} to {gap.interval.high:+.3f})"
    k = "" if cell.k is None else str(cell.k)
    return (
        f"| {seed} | {cell.question} | {cell.source} | {cell.target} | {cell.extractor} | {k} "
        f"| {result.value:.3f} ({interval.low:.3f} to {interval.high:.3f}) "
        f"| {own} | {result.subjects} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_transfer"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--write", action="store_true", help="record the table in benchmarks/RESULTS.md")
    args = parser.parse_args()
    # Sums differ with the number of threads, and training makes other networks of it.
    torch.set_num_threads(1)
    rows, minutes = [], []
    for seed in args.seeds:
        start = time.perf_counter()
        rows += [row(seed, result) for result in one_seed(args.out / f"seed{seed}", seed)]
        minutes.append((time.perf_counter() - start) / 60)
    table = "\n".join(
        [
            f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
            f"{', '.join(f'{m:.1f}' for m in minutes)} minutes.",
            "",
            *(f"- {name}: {question}" for name, question in QUESTIONS.items()),
            "",
            "| seed | question | source | target | extractor | k | balanced accuracy | gap | test subjects |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(table)
    if args.write:
        text = RESULTS.read_text(encoding="utf-8")
        new = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL)
        if new == text:
            raise SystemExit(f"{RESULTS} has no {BEGIN} ... {END} to write into.")
        RESULTS.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
