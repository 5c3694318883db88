"""Does a network trained on heat pain help to recognise electrical pain? On generated data, preset seeds, all reported.

    python benchmarks/transfer_claim.py            # seeds 1, 2, 3; about 7 minutes each on two cores
    python benchmarks/transfer_claim.py --write    # and record the table in benchmarks/RESULTS.md

For each seed the whole demo is run, on larger and longer videos than `make demo` generates: other people, other
starting weights of the heads, other order; the network starts from the same random weights. Printed are the balanced
accuracy of the LSTM on heat-trained features, and what it has above always saying the majority class and above the same
LSTM on the same network untrained; each with a 95 % interval from resampling the test subjects, both models on the same
draws.
The generator's difficulty was set on seed 0, which is therefore not among them.
"""

import argparse
import os
from pathlib import Path

from results import RESULTS, machine, write_between

from painseq.evaluation import Difference, always_majority, paired_difference, read_predictions, score
from painseq.studies.demo import Size, demo

SEEDS = (1, 2, 3)
SIZE = Size(baseline_s=60.0, heat_fps=8.0, size_px=192)


def cell(difference: Difference) -> str:
    interval = difference.interval
    return f"{difference.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def row(seed: int, out: Path) -> str:
    demo(out, seed, workers=os.cpu_count() or 1, size=SIZE)
    folders = ("lstm", "lstm_untrained", "ann")
    lstm, untrained, ann = (read_predictions(out / f"{folder}_test" / "predictions.csv") for folder in folders)
    heat = score(lstm)
    interval = heat.intervals["balanced_accuracy"]
    above_majority = paired_difference(lstm, always_majority(lstm))["balanced_accuracy"]
    above_untrained = paired_difference(lstm, untrained)["balanced_accuracy"]
    return (
        f"| {seed} | {heat.scores.balanced_accuracy:.3f} ({interval.low:.3f} to {interval.high:.3f}) "
        f"| {cell(above_majority)} | {cell(above_untrained)} | {score(ann).scores.balanced_accuracy:.3f} "
        f"| {heat.counts.subjects} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/transfer_claim"))
    parser.add_argument("--write", action="store_true", help="record the table in benchmarks/RESULTS.md")
    args = parser.parse_args()
    rows = [row(seed, args.out / f"seed{seed}") for seed in SEEDS]
    table = "\n".join(
        [
            machine(),
            "",
            "| seed | LSTM on heat features, balanced accuracy | minus majority | minus untrained extractor "
            "| frame ANN, balanced accuracy | test subjects |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(table)
    if args.write:
        write_between(RESULTS, "transfer_claim", table)


if __name__ == "__main__":
    main()
