"""`painseq compare`: models on the same clips, from their predictions files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from painseq.cli.printing import terminal
from painseq.errors import PainseqError
from painseq.evaluation.comparison import ERRORS, STATISTIC_NAMES
from painseq.evaluation.leaky import LEAKY
from painseq.evaluation.metrics import STATISTICS
from painseq.evaluation.predictions import PREDICTIONS_FILE, model_name
from painseq.studies.compare import (
    COLUMNS,
    POINT_COLUMNS,
    POINT_TEXT,
    CompareOptions,
    Comparison,
    cautions,
    compare_runs,
    pair_cells,
    point_rows,
    predictions_file,
)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq compare",
        description="Compare models on the same clips, paired by subject. Prints each difference with its interval "
        "and two "
        "tests, corrected for all pairs. No model is loaded.",
    )
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]PATH", help=f"two or more {PREDICTIONS_FILE}, or folders that hold one"
    )
    parser.add_argument(
        "--statistic",
        choices=[*STATISTICS, *ERRORS],
        help="compare by this statistic; default: balanced_accuracy, or mae for values on a scale",
    )
    parser.add_argument(
        "--against", metavar="NAME", help="compare all other models with this one, instead of all pairs"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random draws; default: %(default)s")
    parser.add_argument("--allow-leaky", action="store_true", help=f"accept files marked {LEAKY}, and mark the results")
    parser.add_argument("--out", type=Path, help="write comparison.json, comparison.csv and report.html to this folder")
    args = parser.parse_args(argv)
    options = CompareOptions(args.statistic, args.against, args.seed, args.allow_leaky)
    show(compare_runs(named_runs(args.models), args.out, options))
    return 0


def named_runs(texts: Sequence[str]) -> dict[str, Path]:
    """Parse texts such as `runs/lstm_test` or `LSTM=runs/lstm_test/predictions.csv` into name -> file.

    Raises:
        PainseqError: no such file, the same name twice.
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
    """Print the table, and a sentence and cautions for each pair."""
    console = terminal()
    title = STATISTIC_NAMES[comparison.statistic]
    table = Table(title=f"Difference in {title}, paired by subject", caption="p: after Holm's correction")
    table.add_column("", overflow="fold")
    for column in (*COLUMNS[3:7], "people"):
        table.add_column(column, justify="right")
    for pair in comparison.pairs:
        cells = pair_cells(pair)
        table.add_row(cells[0], *cells[3:8])
    console.print(table)
    if comparison.side_by_side is not None:
        points = Table(title=f"On the {comparison.side_by_side.clips} clips of all models", caption=POINT_TEXT)
        for number, column in enumerate(POINT_COLUMNS):
            points.add_column(column, justify="left" if number < 2 else "right", overflow="fold")
        for row in point_rows(comparison.side_by_side):
            points.add_row(*row)
        console.print(points)
    for pair in comparison.pairs:
        console.print(pair.sentence, style="bold" if pair.better else "", markup=False, highlight=False)
        for caution in cautions(pair):
            console.print(f"  {caution}", style="yellow", markup=False, highlight=False)
