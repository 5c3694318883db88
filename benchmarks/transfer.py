"""Does pain learned on one kind of it carry over to another? On generated data, preset seeds, all reported.

    python benchmarks/transfer.py                  # seeds 0, 1, 2
    python benchmarks/transfer.py --write          # and record the table in benchmarks/RESULTS.md

For each seed: heat, electrical and clinical pain of other people are generated; a small network is trained on single
frames of the training subjects of each; and `painseq transfer` fills the table of configs/demo/transfer.yaml. The
faces are generated: the figures prove the machinery, and say nothing about patients.
"""

import argparse
import os
import shutil
from pathlib import Path

import torch
from results import RESULTS, machine, write_between

from painseq.cli.extract import main as extract
from painseq.cli.fit import fit
from painseq.evaluation import Difference
from painseq.evaluation.transfer import MEANING, QUESTIONS, CellResult, Question
from painseq.studies.experiment import shipped_config
from painseq.studies.transfer import transfer
from painseq.studies.transfer_plan import read_plan
from painseq.studies.transfer_report import note_on_controls
from painseq.synthetic import AI4PainPlan, BioVidPlan, UNBCPlan, write_ai4pain, write_biovid, write_unbc
from painseq.training.fitting import LAST

SEEDS = (0, 1, 2)
PLAN = Path("configs/demo/transfer.yaml")
CONTROL = "untrained"
PLACE = "runs/transfer_demo"
"""Stands in the plan where the folder of a seed is to stand."""
FRAMES = {"heat": (2.5, 5.6), "electrical": (2.0, 8.0), "clinical": (0.0, 1.0)}
"""The part of a clip, in seconds, on whose single frames the network is trained; a clinical frame is a clip."""


def generate(out: Path, seed: int) -> None:
    workers = os.cpu_count() or 1
    write_biovid(out / "heat", BioVidPlan(subjects=48, trials=2, levels=("BL1", "PA4"), fps=4), seed, workers)
    plan = AI4PainPlan(train=26, validation=0, test=20, trials=1, baseline_s=20, fps=4)
    write_ai4pain(out / "electrical", plan, seed, workers)
    write_unbc(out / "clinical", UNBCPlan(subjects=48, sequences=3, frames=32, fps=4), seed, workers)


def train_network(out: Path, name: str, seed: int) -> None:
    """The analogue of the heat-pain CNN: no pain against high pain, on frames of training subjects."""
    run = out / f"{name}_cnn"
    if (run / "run.json").is_file():
        return
    if run.exists() and not (run / LAST).is_file():
        shutil.rmtree(run)  # Interrupted before its first epoch was over.
    data = [f"--config=configs/demo/transfer_{name}.yaml", f"--data.root={out / name}"]
    if name == "clinical":
        # Each with its own PSPI: most frames of a window with pain show less than the worst one, or nothing.
        data.append("--data.target=frame")
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
            "--data.options.batch_size=32",
            f"--model.extractor={network}weights: null, trainable: [all]}}}}",
            "--trainer.max_epochs=8",
            "--trainer.enable_model_summary=false",
            "--early_stopping.patience=3",
            f"--seed_everything={seed}",
            f"--out={run}",
            *(["--resume"] if run.exists() else []),
        ]
    )


def one_seed(out: Path, seed: int) -> list[CellResult]:
    generate(out, seed)
    for name in FRAMES:
        train_network(out, name, seed)
    plan = out / "plan.yaml"
    text = shipped_config(PLAN).read_text(encoding="utf-8").replace(PLACE, str(out))
    plan.write_text(text.replace("seeds: [0]", f"seeds: [{seed}]"), encoding="utf-8")
    return list(transfer(read_plan(plan), out / "transfer").cells)


def table(results: dict[int, list[CellResult]], question: Question) -> list[str]:
    """A row a seed, source and target: the score beside the target's own, the gap, and the untrained network."""
    lines = [
        "| seed | from | to | balanced accuracy | the target's own | gap | untrained network |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, cells in results.items():
        of = {
            (cell.cell.source, cell.cell.target, cell.cell.extractor): cell for cell in cells if asked(cell, question)
        }
        own = {cell.cell.target: cell for cell in cells if asked(cell, "features") and cell.gap is None}
        for (source, target, extractor), found in of.items():
            if extractor == CONTROL:
                continue
            control = of[source if question == "model" else "nothing", target, CONTROL]
            gap = "" if found.gap is None else signed(found.gap)
            words = ("this is it", "") if found.gap is None else (f"{own[target].value:.3f}", gap)
            lines.append(
                f"| {seed} | {source} | {target} | {scored(found)} | {' | '.join(words)} | {control.value:.3f} |"
            )
    return lines


def curves(results: dict[int, list[CellResult]]) -> list[str]:
    """A row a seed, source and target: the score by the number of the target's subjects that were added."""
    lines, heads = [], []
    for seed, cells in results.items():
        of: dict[tuple[str, str], list[CellResult]] = {}
        for cell in cells:
            if asked(cell, "subjects"):
                of.setdefault((cell.cell.source, cell.cell.target), []).append(cell)
        for (source, target), curve in of.items():
            heads = [f"k = {cell.cell.k}" for cell in curve[:-1]]
            last = f"{scored(curve[-1])}; k = {curve[-1].cell.k}"
            lines.append(f"| {seed} | {source} | {target} | {' | '.join([*map(scored, curve[:-1]), last])} |")
    heads = ["seed", "from", "to", *heads, "all"]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]


def asked(result: CellResult, question: Question) -> bool:
    return result.cell.question == question


def scored(result: CellResult) -> str:
    return f"{result.value:.3f} ({result.interval.low:.3f} to {result.interval.high:.3f})"


def signed(gap: Difference) -> str:
    return f"{gap.value:+.3f} ({gap.interval.low:+.3f} to {gap.interval.high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_transfer"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--write", action="store_true", help="record the table in benchmarks/RESULTS.md; all seeds only"
    )
    args = parser.parse_args()
    if args.write and tuple(args.seeds) != SEEDS:
        parser.error(f"--write records the preset seeds {SEEDS}, all of them.")
    # Sums differ with the number of threads, and training makes other networks of it.
    torch.set_num_threads(1)
    results = {seed: one_seed(args.out / f"seed{seed}", seed) for seed in args.seeds}
    tested = {cell.cell.target: cell.subjects for cell in results[args.seeds[0]]}
    text = "\n".join(
        [
            f"{machine()} One thread.",
            f"Test subjects: {', '.join(f'{n} of {target}' for target, n in tested.items())}. Chance is 0.500. "
            f"{note_on_controls(read_plan(PLAN))}",
            *("", f"{QUESTIONS['model']} {MEANING['model']}", "", *table(results, "model")),
            *("", f"{QUESTIONS['features']} {MEANING['features']}", "", *table(results, "features")),
            *("", f"{QUESTIONS['subjects']} {MEANING['subjects']}", "", *curves(results)),
        ]
    )
    print(text)
    if args.write:
        write_between(RESULTS, "transfer", text)


if __name__ == "__main__":
    main()
