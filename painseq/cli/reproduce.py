"""`painseq reproduce`: run a paper's recipe on your copy of the data, and compare with the published scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from painseq.cli.printing import terminal
from painseq.evaluation import read_truth
from painseq.evaluation.published import REMARKS, Published
from painseq.studies.recipe import read_recipe, shipped_recipes

if TYPE_CHECKING:
    from painseq.records import Part
    from painseq.studies.reproduce import Reproduction

GENERATED = (
    "The faces are generated: these scores show that the recipe runs, and are not comparable with published scores."
)
COMPARABLE = "Scores are comparable only if data set, part and protocol are the same."


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq reproduce",
        description="Run a recipe of configs/reproduce on your copy of the data: extract, fit, evaluate. Shows its "
        "scores next to the published ones, and its deviations. Rerun the same command to resume.",
        epilog="Options of `painseq fit` after -- change the recipe: -- --trainer.max_epochs 2 --config own.yaml",
    )
    parser.add_argument("recipe", help=f"{', '.join(shipped_recipes())}, or the path of a recipe in YAML")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="write all results to this folder")
    parser.add_argument(
        "--truth", type=Path, help="score an official test part with hidden labels by this CSV of clip_id,label"
    )
    arguments = list(argv)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    args = parser.parse_args(arguments[:split])
    recipe = read_recipe(args.recipe)
    console = terminal()
    console.print(recipe.title, style="bold", markup=False)
    from painseq.cli.experiment import ExperimentCLI
    from painseq.cli.progress import progress_bars
    from painseq.studies.reproduce import reproduce

    arguments_of_fit = [f"--config={recipe.path}", *arguments[split + 1 :], f"--data.root={args.root}"]
    changes = [ExperimentCLI("reproduce", arguments_of_fit).experiment.config]
    truth = None if args.truth is None else read_truth(args.truth)
    with progress_bars() as on_progress:
        result = reproduce(args.recipe, args.root, args.out, changes, truth, on_progress)
    show_reproduction(result, console)
    return 0


def show_reproduction(result: Reproduction, console: Console) -> None:
    """Print the scores, the published rows, and the recipe's notes."""
    from painseq.cli.evaluate import show
    from painseq.studies.reproduce import LEAKY_RESULT

    for part, evaluation in result.evaluations.items():
        show({f"{result.recipe.name}, {result.title(part)}": evaluation})
    for part in result.evaluations:
        console.print(comparison_table(result, part))
    remarks = (
        LEAKY_RESULT if result.recipe.leaky else None,
        REMARKS.get(result.published_as),
        GENERATED if result.generated else None,
        COMPARABLE,
    )
    for line in remarks:
        if line:
            console.print(line, style="yellow", markup=False)
    for note in result.recipe.notes:
        console.print(f"\n{note.heading}", markup=False, highlight=False)
        for point in note.points:
            console.print(f"  - {point}", markup=False, highlight=False)
    if result.changes:
        lines = "".join(f"\n  {line}" for line in result.changes)
        console.print(f"\nThis run differs from the recipe in:{lines}", style="yellow", markup=False)


def comparison_table(result: Reproduction, part: Part) -> Table:
    """Return a table of this run and the published rows, each with the score of always predicting one class."""
    evaluation, rows = result.evaluations[part], result.published[part]
    protocols = {name: chr(ord("a") + place) for place, name in enumerate(dict.fromkeys(row.protocol for row in rows))}
    table = Table(
        title=f"{result.recipe.name}: {result.title(part)} part, and published scores",
        caption="\n".join(f"{letter}: {protocol}" for protocol, letter in protocols.items()),
        caption_justify="left",
    )
    table.add_column("", overflow="fold")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("one class", justify="right")
    table.add_column("", overflow="fold")
    majority = {baseline.name: baseline.scores for baseline in evaluation.baselines}["majority class"]
    subjects = evaluation.counts.subjects
    for name in ("accuracy", "balanced_accuracy"):
        interval = evaluation.intervals[name]
        span = "" if interval.low is None else f"\n{interval.low:.2f} to {interval.high:.2f}"
        table.add_row(
            f"this run{', LEAKY' if result.recipe.leaky else ''}{', GENERATED FACES' if result.generated else ''}",
            name.replace("_", " "),
            _printed(evaluation.scores.value(name), 2) + span,
            _printed(majority.value(name), 2),
            f"{evaluation.counts.scored} clips of {subjects} subject{'' if subjects == 1 else 's'}",
            style="bold",
        )
    table.add_section()
    for row in rows:
        table.add_row(*_cells(row, protocols[row.protocol]))
    if not rows:
        table.add_row("No published score is known for this data set and part", "", "", "", "")
    return table


def _cells(row: Published, letter: str) -> list[str]:
    return [
        f"{row.name}, {row.modality} ({letter})",
        row.metric,
        _printed(row.value),
        _printed(row.majority_accuracy if row.metric == "accuracy" else None, 2),
        "; ".join(text for text in (row.standing, row.against_majority.partition(" (")[0]) if text),
    ]


def _printed(value: float | None, places: int | None = None) -> str:
    """Format with two decimals, or with as many as published if these are more."""
    if value is None:
        return "–"
    return f"{value:.2f}" if places == 2 or round(value, 2) == value else f"{value:g}"
