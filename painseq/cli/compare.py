"""`painseq compare`: which of several predictions files is better on the same people."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from painseq.errors import PainseqError
from painseq.evaluation.comparison import ERRORS, STATISTIC_NAMES
from painseq.evaluation.leaky import LEAKY
from painseq.evaluation.metrics import STATISTICS
from painseq.evaluation.predictions import PREDICTIONS_FILE, model_name
from painseq.studies.compare import (
    COLUMNS,
    CompareOptions,
    Comparison,
    cautions,
    compare_runs,
    pair_cells,
    predictions_file,
)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq compare",
        description="Compare models on the same clips, paired by subject: the difference with its interval, two tests "
        "corrected for all pairs, and a sentence each. No model is loaded.",
    )
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]PATH", help=f"{PREDICTIONS_FILE}, or a folder that holds one; two or more"
    )
    parser.add_argument(
        "--statistic",
        choices=[*STATISTICS, *ERRORS],
        help="what to compare by; default: balanced_accuracy, and mae of values on a scale",
    )
    parser.add_argument("--against", metavar="NAME", help="compare all others with this one, not each with each")
    parser.add_argument("--seed", type=int, default=0, help="of the draws; default: %(default)s")
    parser.add_argument("--allow-leaky", action="store_true", help=f"take files marked {LEAKY}, and say so everywhere")
    parser.add_argument("--out", type=Path, help="folder for comparison.json, comparison.csv and report.html")
    args = parser.parse_args(argv)
    options = CompareOptions(args.statistic, args.against, args.seed, args.allow_leaky)
    show(compare_runs(named_runs(args.models), args.out, options))
    return 0


def named_runs(texts: Sequence[str]) -> dict[str, Path]:
    """Files by name, from texts like `runs/lstm_test` or `LSTM=runs/lstm_test/predictions.csv`.

    Raises:
        PainseqError: no such file, a name twice.
    """
    runs: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            path = text
            name = model_name(predictions_file(Path(path)))
        if name in runs:
            raise PainseqError(f"Two models are called {name!r}. Name them: NAME={path}.")
        runs[name] = predictions_file(Path(path))
    return runs


def show(comparison: Comparison) -> None:
    """Print the table, what is to be known of it, and a sentence for each pair."""
    console = Console()
    title = STATISTIC_NAMES[comparison.statistic]
    table = Table(title=f"Difference in {title}, paired by subject", caption="p: after Holm's correction")
    table.add_column("", overflow="fold")
    for column in (*COLUMNS[3:7], "people"):
        table.add_column(column, justify="right")
    for pair in comparison.pairs:
        cells = pair_cells(pair)
        table.add_row(escape(cells[0]), *cells[3:8])
    console.print(table)
    for pair in comparison.pairs:
        console.print(pair.sentence, style="bold" if pair.better else "", markup=False, highlight=False)
        for caution in cautions(pair):
            console.print(f"  {caution}", style="yellow", markup=False, highlight=False)
