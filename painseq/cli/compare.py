"""`painseq compare`: which of several predictions files is better on the same people."""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from painseq.errors import PainseqError
from painseq.evaluation.comparison import ERRORS, WORDS, AnyPredictions, Pair, Tested, compare
from painseq.evaluation.leaky import LEAKY, is_leaky, marked
from painseq.evaluation.metrics import STATISTICS
from painseq.evaluation.predictions import FILE, Predictions, named, read_predictions
from painseq.evaluation.value_predictions import holds_values, read_value_predictions
from painseq.files import write_json
from painseq.runs import make_run_folder

if TYPE_CHECKING:
    from painseq.report import Block

log = logging.getLogger("painseq")

COLUMNS = ("pair", "first", "second", "difference", "95 % interval", "permutation p", "Wilcoxon p", "people", "clips")
CAUTION = (
    "Better takes two things: a permutation p of at most 0.05 after Holm's correction for all pairs, and an interval "
    "without 0. Both are about other people, not about training again: for that, compare several seeds of each model."
)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq compare",
        description="Compare models on the same clips, paired by subject: the difference with its interval, two tests "
        "corrected for all pairs, and a sentence each. No model is loaded.",
    )
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]PATH", help=f"{FILE}, or a folder that holds one; two or more"
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

    models, paths = read_models(args.models, args.allow_leaky)
    against = args.against
    if against is not None and against not in models and marked(against) in models:
        against = marked(against)
    statistic = args.statistic or (
        "balanced_accuracy" if isinstance(next(iter(models.values())), Predictions) else next(iter(ERRORS))
    )
    pairs = compare(models, statistic, against, args.seed)
    show(pairs)
    if args.out is not None:
        write(make_run_folder(args.out), pairs, args.seed, paths)
        log.info("Written to %s: comparison.json, comparison.csv, report.html.", args.out)
    return 0


def read_models(given: Sequence[str], allow_leaky: bool = False) -> tuple[dict[str, AnyPredictions], dict[str, Path]]:
    """Predictions by name, and their files, from texts like `runs/lstm_test` or `LSTM=runs/lstm_test/predictions.csv`.

    The classes of a file without prob_<class> columns have no order of their own: they are given that of the others.

    Raises:
        PainseqError: no such file, a name twice, a leaky file that is not allowed; see `is_leaky`, `read_predictions`.
    """
    models: dict[str, AnyPredictions] = {}
    paths: dict[str, Path] = {}
    for text in given:
        name, path = _named(text)
        if is_leaky(path):
            if not allow_leaky:
                raise PainseqError(
                    f"{path} is marked {LEAKY}: people who were trained on are scored in it, so it says nothing of "
                    f"new ones, and no honest model can be compared with it. If that is what you want to show: "
                    "--allow-leaky."
                )
            name = marked(name)
            log.warning("%s: people who were trained on are scored in %s.", name, path)
        if name in models:
            raise PainseqError(f"Two models are called {name!r}. Name them: NAME={path}.")
        models[name] = read_value_predictions(path) if holds_values(path) else read_predictions(path)
        paths[name] = path
    classes = [each for each in models.values() if isinstance(each, Predictions)]
    ordered = next((each.class_names for each in classes if each.order_known), ())
    for name, each in models.items():
        if isinstance(each, Predictions) and not each.order_known and set(each.class_names) <= set(ordered):
            models[name] = read_predictions(paths[name], ordered)
    return models, paths


def _named(text: str) -> tuple[str, Path]:
    name, equals, path_text = text.partition("=")
    path = Path(path_text) if equals and not Path(text).exists() else Path(text)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        inside = f" (`painseq evaluate` writes {FILE} into its --out folder)" if path.is_dir() else ""
        raise PainseqError(f"No predictions at {file}{inside}.")
    if str(path) == path_text and equals:
        return name, file
    return named(file), file


def show(pairs: Sequence[Pair]) -> None:
    """Print the table, what is to be known of it, and a sentence for each pair."""
    console = Console()
    title = WORDS[pairs[0].statistic]
    table = Table(title=f"Difference in {title}, paired by subject", caption="p: after Holm's correction")
    table.add_column("", overflow="fold")
    for column in (*COLUMNS[3:7], "people"):
        table.add_column(column, justify="right")
    for pair in pairs:
        cells = _cells(pair)
        table.add_row(escape(cells[0]), *cells[3:8])
    console.print(table)
    for pair in pairs:
        console.print(pair.sentence, style="bold" if pair.better else "", markup=False, highlight=False)
        for caution in cautions(pair):
            console.print(f"  {caution}", style="yellow", markup=False, highlight=False)


def cautions(pair: Pair) -> list[str]:
    """What to know before believing the figures of a pair."""
    lines = []
    if pair.left_out:
        reasons = ", ".join(f"{clips} {why}" for why, clips in pair.left_out.items())
        lines.append(f"{pair.clips} clips compared; left out: {reasons}.")
    for what, note in (
        ("Interval", pair.difference.interval.note),
        ("Permutation test", pair.permutation.note),
        ("Wilcoxon", pair.wilcoxon.note),
    ):
        if note:
            lines.append(f"{what}: {note}.")
    if any(LEAKY in name for name in (pair.first, pair.second)):
        lines.append(f"{LEAKY}: people who were trained on are scored; this says nothing of new ones.")
    return lines


def _cells(pair: Pair) -> list[str]:
    difference, interval = pair.difference, pair.difference.interval
    span = "none" if interval.low is None else f"{interval.low:+.3f} to {interval.high:+.3f}"
    return [
        f"{pair.first} minus {pair.second}",
        _number(difference.first),
        _number(difference.second),
        "not defined" if difference.value is None else f"{difference.value:+.3f}",
        span,
        _p(pair.permutation),
        _p(pair.wilcoxon),
        str(len(pair.by_subject)),
        str(pair.clips),
    ]


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _p(tested: Tested) -> str:
    if tested.corrected is None:
        return "none"
    return "< 0.001" if tested.corrected < 0.001 else f"{tested.corrected:.3f}"


def write(out: Path, pairs: Sequence[Pair], seed: int, paths: Mapping[str, Path]) -> None:
    """Write comparison.json (everything), comparison.csv (a row a pair) and report.html into a folder.

    Args:
        paths: the file of each model.
    """
    from painseq.report import Report, write_report

    files = {name: str(path) for name, path in paths.items()}
    write_json(
        out / "comparison.json",
        {
            "statistic": pairs[0].statistic,
            "files": files,
            "seed": seed,
            "rule": CAUTION,
            "pairs": [pair.to_dict() for pair in pairs],
        },
    )
    write_csv(out / "comparison.csv", pairs)
    models = dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second))
    write_report(
        out / "report.html",
        Report(
            title="Comparison of models",
            subtitle=f"{len(models)} models, {WORDS[pairs[0].statistic]}, paired by subject",
            dataset="the clips of the predictions files",
            notes=[pair.sentence for pair in pairs],
            warnings=[f"{name}: people who were trained on are scored." for name in models if LEAKY in name],
            facts={**files, "seed of the draws": str(seed)},
            blocks=blocks(pairs),
        ),
    )


def write_csv(path: Path, pairs: Sequence[Pair]) -> None:
    """One row a pair, with figures to the last digit; an empty cell is one that is not defined."""
    rows = [_row(pair) for pair in pairs]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _row(pair: Pair) -> dict[str, object]:
    difference = pair.difference
    return {
        "first": pair.first,
        "second": pair.second,
        "statistic": pair.statistic,
        "of_first": difference.first,
        "of_second": difference.second,
        "difference": difference.value,
        "low": difference.interval.low,
        "high": difference.interval.high,
        "permutation_p": pair.permutation.p,
        "permutation_p_holm": pair.permutation.corrected,
        "wilcoxon_p": pair.wilcoxon.p,
        "wilcoxon_p_holm": pair.wilcoxon.corrected,
        "subjects": len(pair.by_subject),
        "clips": pair.clips,
        "left_out": sum(pair.left_out.values()),
        "better": pair.better,
    }


def _methods(pair: Pair) -> str:
    return (
        f"Interval: {pair.difference.interval.method}. Permutation test: {pair.permutation.method}. Wilcoxon: "
        f"{pair.wilcoxon.method}."
    )


def blocks(pairs: Sequence[Pair]) -> list[Block]:
    """The sections of the report's page: the pairs with their tests, what was left out, and people one by one."""
    from painseq.report import Block

    words = WORDS[pairs[0].statistic]
    by_subject = [
        Block(
            title=f"{pair.first} and {pair.second}, subject by subject",
            text="\n\n".join([pair.sentence, *cautions(pair), _methods(pair)]),
            columns=("subject", pair.first, pair.second, "difference"),
            rows=[
                (subject, *(_number(None if value != value else value) for value in (a, b, a - b)))
                for subject, (a, b) in pair.by_subject.items()
            ],
        )
        for pair in pairs
    ]
    return [
        Block(
            title=f"Difference in {words}",
            text=f"{CAUTION} Intervals are not corrected for the number of pairs.",
            columns=COLUMNS,
            rows=[_cells(pair) for pair in pairs],
        ),
        *by_subject,
    ]
