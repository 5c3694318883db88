"""`painseq transfer`: how well models and features transfer between data sets, and how many subjects they need."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from painseq.cli.printing import terminal
from painseq.evaluation.score import number
from painseq.evaluation.transfer import MEANING, QUESTIONS, CellResult, TransferCell

if TYPE_CHECKING:
    from painseq.studies.transfer import TransferResult, TransferWork
    from painseq.studies.transfer_plan import TransferPlan


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq transfer",
        description="Measure how well models and features transfer between data sets, and how many subjects of the "
        "target they need. Rerun the same command to resume.",
    )
    parser.add_argument(
        "plan", type=Path, metavar="PLAN", help="plan in YAML, such as configs/demo/transfer.yaml; it runs as code"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/transfer"), help="write to this folder; default: %(default)s"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be extracted and fitted")
    args = parser.parse_args(argv)
    from painseq.cli.progress import progress_bar
    from painseq.studies.transfer import transfer, transfer_work
    from painseq.studies.transfer_plan import read_plan

    plan = read_plan(args.plan)
    if args.dry_run:
        _show_work(transfer_work(plan, args.out))
        return 0
    with progress_bar("transfer", "stores and fits") as show:
        result = transfer(plan, args.out, show)
    _show(plan, result)
    return 0


def _show_work(work: TransferWork) -> None:
    console = terminal()
    table = Table("", "total", "finished", title="Work of this plan")
    for title, (total, done) in (
        ("feature stores (extractor and data set)", work.stores),
        ("fits on a data set's training subjects", work.fits),
        ("fits continued with k subjects of a target", work.continued_fits),
    ):
        table.add_row(title, str(total), str(done))
    table.add_row("cells of the table", str(work.cells), "")
    console.print(table)
    for name, data in work.data.items():
        split = data.split
        console.print(
            f"{name}: {len(data.manifest)} clips; {len(split.train)} training subjects, {len(split.validation)} "
            f"for early stopping, {len(split.test)} test subjects; classes {', '.join(data.scheme.class_names)}.",
            soft_wrap=True,
            markup=False,
        )


def _show(plan: TransferPlan, result: TransferResult) -> None:
    """Print a table for each question, and warnings."""
    from painseq.evaluation.tables import threshold_table
    from painseq.studies.transfer_report import (
        curves_of,
        interval_notes,
        note_on_controls,
        note_on_generated,
        without_controls,
    )

    console, by_cell = terminal(), {cell.cell: cell for cell in result.cells}
    for question in ("model", "features"):
        console.print(_table(plan, by_cell, without_controls(plan, result.cells, question)))
    curves = curves_of(without_controls(plan, result.cells, "subjects"))
    if curves:
        console.print(_curve_table(curves))
    thresholds = threshold_table({cell.name: result.threshold for cell, result in by_cell.items()})
    if thresholds is not None:
        console.print(thresholds)
    for target in plan.targets:
        console.print(f"{target}'s own model: {plan.within_is(target)}.", markup=False, soft_wrap=True)
    console.print(note_on_controls(plan), markup=False, soft_wrap=True)
    for line in (*interval_notes(result.cells), *note_on_generated(result.generated)):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    console.print(f"Report: {result.page}", soft_wrap=True, markup=False)


def _table(plan: TransferPlan, results: Mapping[TransferCell, CellResult], chosen: Sequence[CellResult]) -> Table:
    """Return a table of the cells of one question."""
    question = chosen[0].cell.question
    baselines = f"majority class {number(chosen[0].majority)}, chance {number(chosen[0].chance)}"
    caption = f"{MEANING[question]} Balanced accuracy; {baselines}. Gap: own minus score."
    table = Table(title=QUESTIONS[question], caption=caption)
    table.add_column("From, to")
    table.add_column("Head")
    for name in ("Score", "Own", "Gap", *plan.controls):
        table.add_column(name, justify="right")
    for result in chosen:
        cell, gap = result.cell, result.gap
        table.add_row(
            f"{cell.source}, {cell.target}",
            cell.head,
            _short(result),
            number(results[plan.within_cell(cell)].value),
            "" if gap is None else f"{_signed(gap.value)}\n{_signed(gap.interval.low)}, {_signed(gap.interval.high)}",
            *(number(results[control].value) for control in plan.controls_of(cell)),
        )
    return table


def _curve_table(curves: Mapping[tuple[str, str, str, str], Sequence[CellResult]]) -> Table:
    fewer = sorted({result.cell.k or 0 for curve in curves.values() for result in curve[:-1]})
    caption = f"{MEANING['subjects']} Balanced accuracy by k; all: their number. The report has the intervals."
    table = Table(title=QUESTIONS["subjects"], caption=caption)
    table.add_column("From, to")
    table.add_column("Head")
    for name in (*map(str, fewer), "all"):
        table.add_column(name, justify="right")
    for (source, target, _, head), curve in curves.items():
        by_k = {result.cell.k: number(result.value) for result in curve[:-1]}
        last = f"{number(curve[-1].value)} ({curve[-1].cell.k})"
        table.add_row(f"{source}, {target}", head, *(by_k.get(k, "") for k in fewer), last)
    return table


def _short(result: CellResult) -> str:
    low, high = result.interval.low, result.interval.high
    return number(result.value) + ("" if low is None or high is None else f"\n{low:.2f}–{high:.2f}")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
