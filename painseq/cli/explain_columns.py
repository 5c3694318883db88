"""`painseq explain columns`: which columns of its input a checkpoint's score needs, over the clips of a data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from painseq.cli.arguments import Parser, add_explained, chosen_model, experiment
from painseq.cli.printing import tell_of_training, terminal

if TYPE_CHECKING:
    from painseq.studies.explain_columns import ColumnsExplanation

DESCRIPTION = (
    "Measure which columns (movements, action units, landmarks) a checkpoint's score needs: how much balanced accuracy "
    "falls when a column is exchanged between clips."
)
log = logging.getLogger("painseq")


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    add_explained(parser, "write table and picture to this folder")
    parser.add_argument("--repeats", type=int, default=5, help="number of random permutations; default: 5")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("explain columns", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import progress_bar
    from painseq.runs import pick_device
    from painseq.studies.explain_columns import ColumnOptions, explain_columns

    args = cli.config
    options = ColumnOptions(
        part=args.part,
        repeats=args.repeats,
        seed=int(args.seed_everything or 0),
        checkpoints=tuple(map(Path, args.checkpoint)),
    )
    data, model = cli.data(), chosen_model(args, pick_device(args.device))
    with progress_bar("explain columns", "repeats") as show:
        explanation = explain_columns(model, data, args.out, options, cli.experiment, show)
    _show(explanation)
    log.info("Results written to %s.", args.out)
    return 0


def _show(explanation: ColumnsExplanation) -> None:
    from painseq.explain.drawing import MOST_BARS

    found = explanation.permutation
    table = Table(
        caption=f"Fall of the balanced accuracy ({found.balanced_accuracy:.2f}; {found.clips} clips of "
        f"{found.subjects} subjects), with 95 % intervals over subjects. Research software, not a medical device."
    )
    table.add_column("column")
    table.add_column("fall", justify="right")
    table.add_column("interval", justify="right")
    shown = [row for row in found.drops[:MOST_BARS] if row.drop]
    for row in shown:
        low, high = row.interval.low, row.interval.high
        table.add_row(row.name, f"{row.drop:+.3f}", "" if low is None or high is None else f"{low:+.3f}..{high:+.3f}")
    terminal().print(table)
    if len(found.drops) > len(shown):
        idle = sum(not row.drop for row in found.drops)
        log.info(
            "%d more columns in columns.csv, %d without effect by themselves.", len(found.drops) - len(shown), idle
        )
    tell_of_training(explanation.details)
