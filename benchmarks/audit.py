"""How much do leaky folds flatter a model that memorises faces? On generated data, preset seeds, all reported.

    python benchmarks/audit.py            # seeds 0, 1, 2; about 2 minutes each on two cores
    python benchmarks/audit.py --write    # and record the table in benchmarks/RESULTS.md

For each seed other people are generated (electrical pain in AI4Pain's layout), and their frames go through a network
with random weights, which knows nothing of pain. A frame ANN without dropout is then fitted for a fixed number of
epochs, so that it memorises, and audited: `painseq audit model`. Each cell is the balanced accuracy over frames, or
over clips by the vote of their frames, with its 95 % interval over subjects. Network and epochs were chosen on seed 0.
"""

import argparse
import os
import shutil
from pathlib import Path

from results import RESULTS, machine, write_between

from painseq.cli.extract import main as extract
from painseq.evaluation.audit import Audit, FoldProtocol, Unit
from painseq.studies.audit import AuditOptions, audit_model
from painseq.studies.experiment import read_experiment
from painseq.studies.fold_fits import candidate_of
from painseq.synthetic import AI4PainPlan, write_ai4pain

SEEDS = (0, 1, 2)
PLAN = AI4PainPlan(train=20, validation=2, test=1, trials=2, baseline_s=40, fps=2)
"""22 people with known labels; a class has 2 clips a person, no pain has 4."""
DATA = [
    "--config",
    "configs/demo/electrical.yaml",
    "--data.options.fps",
    "2",
    "--model.extractor.model",
    "test_convnext",
]
MODEL = {
    "model": {
        "head": {"init_args": {"dropout": 0.0, "hidden": [256, 64]}},
        "optimizer": {"init_args": {"lr": 1e-3}},
        "extractor": {"init_args": {"model": "test_convnext"}},
    },
    "trainer": {"accelerator": "cpu"},
}


def audited(seed: int, out: Path) -> Audit:
    """The audit of one seed; videos and features that are there already are kept."""
    data, store, audit = out / "electrical", out / "features", out / "audit"
    write_ai4pain(data, PLAN, seed, workers=os.cpu_count() or 1)
    on_data = [*DATA, "--data.root", str(data)]
    extract([*on_data, "--out", str(store), "--dtype", "float32", "--precision", "fp32"])
    if (audit / "audit.json").is_file():
        shutil.rmtree(audit)
    options = {"fps": 2, "batch_size": 64, "store": str(store)}
    chosen = {"seed_everything": seed, "data": {"init_args": {"root": str(data), "options": options}}}
    experiment = read_experiment("configs/demo/electrical.yaml", "configs/head/frame_ann.yaml", MODEL, chosen)
    return audit_model(
        candidate_of(experiment),
        experiment.data(),
        audit,
        AuditOptions(epochs=60, frames_per_clip=8),
        experiment.config,
    )


def row(seed: int, audit: Audit, unit: Unit) -> str:
    scores = []
    for result in audit.results:
        evaluation = result.evaluations[unit]
        interval = evaluation.intervals["balanced_accuracy"]
        scores.append(f"{evaluation.scores.balanced_accuracy:.3f} ({interval.low:.3f} to {interval.high:.3f})")
    inflations = [inflation(audit, result.protocol, unit) for result in audit.results[:-1]]
    return f"| {seed} | {unit} | {' | '.join((*scores, *inflations))} |"


def inflation(audit: Audit, protocol: FoldProtocol, unit: Unit) -> str:
    found = audit.inflation(protocol, unit, "balanced_accuracy")
    assert found is not None
    interval = found.difference.interval
    return f"{found.difference.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/audit_benchmark"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument(
        "--write", action="store_true", help="record the table in benchmarks/RESULTS.md; all seeds only"
    )
    args = parser.parse_args()
    if args.write and tuple(args.seeds) != SEEDS:
        parser.error(f"--write records the preset seeds {SEEDS}, all of them.")
    audits = {seed: audited(seed, args.out / f"seed{seed}") for seed in args.seeds}
    titles = [result.protocol.title for result in audits[args.seeds[0]].results]
    heads = ["seed", "score of", *titles, *(f"inflation by {title}" for title in titles[:-1])]
    table = "\n".join(
        [
            machine(),
            "",
            f"| {' | '.join(heads)} |",
            "|---" * len(heads) + "|",
            *(row(seed, audit, unit) for seed, audit in audits.items() for unit in ("frames", "clips")),
        ]
    )
    print(table)
    if args.write:
        write_between(RESULTS, "audit", table)


if __name__ == "__main__":
    main()
