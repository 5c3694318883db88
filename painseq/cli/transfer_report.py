"""What `painseq transfer` tells: files, a page, and tables for the terminal."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from painseq.cli.transfer_plan import Fit, TransferPlan, fit_of
from painseq.evaluation import Predictions
from painseq.evaluation.metrics import STATISTICS
from painseq.evaluation.score import number
from painseq.evaluation.transfer import MEANING, QUESTIONS, Cell, CellResult, Question, cell_result
from painseq.files import write_json
from painseq.runs import versions
from painseq.spec import Spec

if TYPE_CHECKING:
    from painseq.report import Block

COLUMNS = (
    "question", "source", "target", "extractor", "head", "seed", "k", "draw", *STATISTICS, "low", "high", "lowest_run",
    "highest_run", "gap", "gap_low", "gap_high", "within", "majority_class", "chance", "subjects", "interval",
)  # fmt: skip
HOW = (
    "Every cell is scored on the same test subjects of its target; no extractor and no head has seen any of them.",
    "The score is the balanced accuracy. Its 95 % interval is over subjects, each with the mean of all seeds and "
    "draws: it says what other subjects would change. What another seed or draw would, the lowest and the highest run "
    "say.",
    "The gap is the score of the target's own model minus that of the cell, paired by subject: above 0, something is "
    "lost by coming from elsewhere.",
)
Results = Mapping[Cell, CellResult]


def write_results(
    out: Path,
    plan: TransferPlan,
    results: Sequence[CellResult],
    scored: Mapping[tuple[Fit, str], Predictions],
    facts: Spec,
    generated: Sequence[str],
) -> Path:
    """Write `transfer.json`, `transfer.csv`, `runs.csv`, `report.html` and its `figures/`.

    Args:
        generated: the data sets whose faces are painseq's own.

    Returns:
        The path of the page.
    """
    from painseq.report import Report, write_figures, write_report

    by_cell = {result.cell: result for result in results}
    _write_csv(out / "transfer.csv", [(result, "mean", "mean") for result in results])
    _write_csv(out / "runs.csv", _single_runs(plan, results, scored))
    notes = [*HOW, on_controls(plan), *on_generated(generated)]
    report = Report(
        title="Transfer between data sets",
        subtitle=f"From {' and '.join(plan.sources)} to {', '.join(plan.targets)}",
        dataset=", ".join(plan.data),
        notes=notes,
        warnings=[*cautions(results), *untold(facts)],
        facts={"seeds": ", ".join(map(str, plan.seeds)), **versions()},
        blocks=blocks(plan, by_cell, facts),
    )
    page = out / "report.html"
    write_report(page, report)
    write_figures(out / "figures", report)
    cells = [{**result.to_dict(), "beside": _beside(plan, by_cell, result.cell)} for result in results]
    # The last file: where it lies, the table is whole.
    write_json(
        out / "transfer.json",
        {
            "how": notes,
            "meaning": {str(name): text for name, text in MEANING.items()},
            "cells": cells,
            "plan": facts,
            "versions": versions(),
        },
    )
    return page


def cautions(results: Sequence[CellResult]) -> list[str]:
    """What the intervals warn of, each once, with the targets."""
    targets: dict[str, set[str]] = {}
    for result in results:
        for interval in (result.interval, *(() if result.gap is None else (result.gap.interval,))):
            if interval.note:
                targets.setdefault(interval.note, set()).add(result.cell.target)
    return [f"{', '.join(sorted(names))}: {note}." for note, names in targets.items()]


def untold(facts: Spec) -> list[str]:
    """A line for each extractor of a data set whose weights do not tell whom they were trained on."""
    networks, data = facts["extractors"], facts["data"]
    assert isinstance(networks, dict) and isinstance(data, dict)
    return [
        f"The weights of {name} do not tell whom they were trained on. That nobody who is scored is among them is "
        "taken on trust."
        for name, told in networks.items()
        if told["trained_on"] in data and not told["people"]
    ]


def on_controls(plan: TransferPlan) -> str:
    """What the controls were trained on; where all are untrained, what therefore is not told."""
    trained = {name: plan.extractors[name].trained_on for name in plan.controls}
    said = f"Controls: {', '.join(f'{name}, trained on {on}' for name, on in trained.items())}."
    if set(trained.values()) == {"nothing"}:
        said += " No network with ImageNet's weights stands beside: what any trained network reaches is not told."
    return said


def on_generated(names: Sequence[str]) -> list[str]:
    """A line where data sets are painseq's own; none where there is none."""
    if not names:
        return []
    return [f"The faces of {', '.join(names)} are generated: no people, and no score to be cited."]


def _beside(plan: TransferPlan, results: Results, cell: Cell) -> dict[str, object]:
    """What a cell is read beside: name -> balanced accuracy on the same subjects."""
    own = {"within": results[plan.within_cell(cell)].value}
    controls = {control.extractor: results[control].value for control in plan.controls_of(cell)}
    return {**own, **controls, "majority_class": results[cell].majority, "chance": results[cell].chance}


def _single_runs(
    plan: TransferPlan, results: Sequence[CellResult], scored: Mapping[tuple[Fit, str], Predictions]
) -> list[tuple[CellResult, str, str]]:
    rows = []
    for result in results:
        cell, own = result.cell, plan.within_cell(result.cell)
        for seed, draw in result.runs:
            run = {(seed, draw): scored[fit_of(cell, seed, draw), cell.target]}
            within = None if result.gap is None else {(seed, 0): scored[fit_of(own, seed, 0), cell.target]}
            rows.append((cell_result(cell, run, within, result.within), str(seed), str(draw)))
    return rows


def _write_csv(path: Path, rows: Sequence[tuple[CellResult, str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for result, seed, draw in rows:
            gap = result.gap
            writer.writerow(
                {
                    **vars(result.cell),
                    "seed": seed,
                    "draw": draw,
                    **{name: result.scores.value(name) for name in STATISTICS},
                    "low": result.interval.low,
                    "high": result.interval.high,
                    "lowest_run": result.lowest,
                    "highest_run": result.highest,
                    "gap": gap and gap.value,
                    "gap_low": gap and gap.interval.low,
                    "gap_high": gap and gap.interval.high,
                    "within": result.within,
                    "majority_class": result.majority,
                    "chance": result.chance,
                    "subjects": result.subjects,
                    "interval": result.interval.method,
                }
            )


def _of(plan: TransferPlan, results: Sequence[CellResult], question: Question) -> list[CellResult]:
    """The cells of a question whose extractor was trained on their source; the controls stand beside them."""
    return [r for r in results if r.cell.question == question and r.cell.extractor not in plan.controls]


def _curves(chosen: Sequence[CellResult]) -> dict[tuple[str, str, str, str], list[CellResult]]:
    """(source, target, extractor, head) -> its cells by k; the last one has all subjects."""
    curves: dict[tuple[str, str, str, str], list[CellResult]] = {}
    for result in sorted(chosen, key=lambda result: result.cell.k or 0):
        cell = result.cell
        curves.setdefault((cell.source, cell.target, cell.extractor, cell.head), []).append(result)
    return curves


# ---- the terminal ----


def show(plan: TransferPlan, results: Sequence[CellResult], generated: Sequence[str]) -> None:
    """Print a table for each question, and what to be wary of; `generated` as for `write_results`."""
    console, by_cell = Console(), {result.cell: result for result in results}
    console.print(_table(plan, by_cell, "model"))
    console.print(_table(plan, by_cell, "features"))
    curves = _curves(_of(plan, results, "subjects"))
    if curves:
        console.print(_curve_table(curves))
    for target in plan.targets:
        console.print(f"{target}'s own model: {plan.within_is(target)}.", markup=False, soft_wrap=True)
    console.print(on_controls(plan), markup=False, soft_wrap=True)
    for line in (*cautions(results), *on_generated(generated)):
        console.print(line, style="yellow", markup=False, soft_wrap=True)


def _table(plan: TransferPlan, results: Results, question: Question) -> Table:
    chosen = _of(plan, list(results.values()), question)
    baselines = f"majority class {number(chosen[0].majority)}, chance {number(chosen[0].chance)}"
    caption = f"{MEANING[question]} Balanced accuracy; {baselines}. Gap: own minus score."
    table = Table(title=QUESTIONS[question], caption=escape(caption))
    table.add_column("From, to")
    table.add_column("Head")
    for name in ("Score", "Own", "Gap", *plan.controls):
        table.add_column(escape(name), justify="right")
    for result in chosen:
        cell, gap = result.cell, result.gap
        table.add_row(
            escape(f"{cell.source}, {cell.target}"),
            escape(cell.head),
            _short(result),
            number(results[plan.within_cell(cell)].value),
            "" if gap is None else f"{_signed(gap.value)}\n{_signed(gap.interval.low)}, {_signed(gap.interval.high)}",
            *(number(results[control].value) for control in plan.controls_of(cell)),
        )
    return table


def _curve_table(curves: Mapping[tuple[str, str, str, str], Sequence[CellResult]]) -> Table:
    fewer = sorted({result.cell.k or 0 for curve in curves.values() for result in curve[:-1]})
    caption = f"{MEANING['subjects']} Balanced accuracy by k; all: how many these are. The page has the intervals."
    table = Table(title=QUESTIONS["subjects"], caption=escape(caption))
    table.add_column("From, to")
    table.add_column("Head")
    for name in (*map(str, fewer), "all"):
        table.add_column(name, justify="right")
    for (source, target, _, head), curve in curves.items():
        by_k = {result.cell.k: number(result.value) for result in curve[:-1]}
        last = f"{number(curve[-1].value)} ({curve[-1].cell.k})"
        table.add_row(escape(f"{source}, {target}"), escape(head), *(by_k.get(k, "") for k in fewer), last)
    return table


def _short(result: CellResult) -> str:
    low, high = result.interval.low, result.interval.high
    return number(result.value) + ("" if low is None or high is None else f"\n{low:.2f}–{high:.2f}")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


# ---- the page ----


def blocks(plan: TransferPlan, results: Results, facts: Spec) -> list[Block]:
    """The sections of the page: the data sets, the two maps, the curves."""
    found = [_data_block(plan, facts), _map_block(plan, results, "model"), _map_block(plan, results, "features")]
    curves = _curves(_of(plan, list(results.values()), "subjects"))
    return [*found, _curve_block(plan, curves)] if curves else found


def _data_block(plan: TransferPlan, facts: Spec) -> Block:
    from painseq.report import Block

    rows, data = [], facts["data"]
    assert isinstance(data, dict)
    for name, told in data.items():
        classes = "; ".join(f"{key}: {', '.join(labels)}" for key, labels in told["classes"].items())
        counts = [str(len(told["split"][part])) for part in ("train", "validation", "test")]
        own = plan.within_is(name) if name in plan.targets else "no target"
        rows.append([name, told["data_set"], classes, *counts, told["split"]["protocol"], own])
    columns = ["data set", "layout", "classes, of native labels", "training", "early stopping", "test", "split", "own"]
    text = (
        f"Classes of the same names, {plan.fps:g} frames a second, faces cropped alike. The numbers are of subjects. "
        "“Own” is the model of a target itself, with which its cells are compared."
    )
    return Block("The data sets, harmonised", text, columns, rows)


def _map_block(plan: TransferPlan, results: Results, question: Question) -> Block:
    from painseq.report import Block, Picture
    from painseq.report.charts import heat_map

    pictures, rows = [], []
    for head in plan.heads:
        found = {
            (cell.source, cell.extractor, cell.target): result
            for cell, result in results.items()
            if cell.question == question and cell.head == head
        }
        sources = list(dict.fromkeys((source, extractor) for source, extractor, _ in found))
        cells = [[found[*source, target] for target in plan.targets] for source in sources]
        picture = heat_map(
            [[_or_nan(result.value) for result in line] for line in cells],
            [f"{source} ({extractor})" for source, extractor in sources],
            plan.targets,
            cells[0][0].chance or 0.0,
            1.0,
            f"{head}: balanced accuracy. Rows: source (extractor); columns: target",
            [[_ends(result) for result in line] for line in cells],
        )
        alt = f"Balanced accuracy by source and target, head {head}; the numbers stand in the table."
        drawn = [result for line in cells for result in line]
        pictures.append(Picture(alt, picture, CHART, [_drawn(result) for result in drawn]))
        for result in drawn:
            controls = [number(results[control].value) for control in plan.controls_of(result.cell)]
            own = number(results[plan.within_cell(result.cell)].value)
            names = [result.cell.source, result.cell.extractor, result.cell.target, head]
            rows.append([*names, *_numbers(result), own, _gap(result), *controls, number(result.chance)])
    columns = ["source", "extractor", "target", "head", *NUMBERS, "own", GAP, *plan.controls, "chance"]
    text = MEANING[question]
    if all(result.majority == result.chance for result in results.values()):
        text += " The majority class has the balanced accuracy of chance."
    return Block(QUESTIONS[question], text, columns, rows, pictures)


def _curve_block(plan: TransferPlan, curves: Mapping[tuple[str, str, str, str], Sequence[CellResult]]) -> Block:
    from painseq.report import Block, Picture
    from painseq.report.charts import interval_curves

    pictures, rows = [], []
    for target in dict.fromkeys(target for _, target, _, _ in curves):
        drawn, numbers, chance = {}, [], None
        for (source, to, extractor, head), curve in curves.items():
            if to != target:
                continue
            chance = curve[0].chance
            values = [[_or_nan(v) for v in (r.value, r.interval.low, r.interval.high)] for r in curve]
            value, low, high = (list(column) for column in zip(*values, strict=True))
            drawn[f"from {source}, {head} on {extractor}"] = ([r.cell.k or 0 for r in curve], value, low, high)
            numbers += [_drawn(r) for r in curve]
            for r in curve:
                names = [source, extractor, target, head, str(r.cell.k), str(len(r.runs))]
                rows.append([*names, *_numbers(r), _gap(r)])
        alt = f"Balanced accuracy on {target} by the number of its subjects; the numbers stand in the table."
        picture = interval_curves(drawn, f"training subjects of {target}", "balanced accuracy", chance)
        pictures.append(Picture(alt, picture, CHART, numbers))
    stop = (
        "They are stopped early on all validation subjects of the target, who are needed beside the k."
        if plan.epochs is None
        else f"All are fitted on for {plan.epochs} epochs: nobody of the target is left to stop early on."
    )
    text = (
        f"{MEANING['subjects']} {stop} k = 0 is the source's model as it is.\n\nThe k subjects of a draw are the first "
        "of a random order, so that those of a smaller k are among those of a larger one. Whoever comes first and has "
        "clips of every class is taken first, since one class alone cannot be learned from. There are "
        f"{plan.draws} draws a seed, one where k is all. Each test subject counts with the mean over draws and seeds, "
        "and the interval is over subjects."
    )
    columns = ["source", "extractor", "target", "head", "k", "runs", *NUMBERS, GAP]
    return Block(QUESTIONS["subjects"], text, columns, rows, pictures)


CHART = ("source", "extractor", "target", "head", "k", "balanced_accuracy", "low", "high")
NUMBERS, GAP = ("balanced accuracy", "lowest and highest run", "subjects"), "gap"


def _numbers(result: CellResult) -> list[str]:
    return [
        f"{number(result.value)} ({_ends(result)})",
        f"{number(result.lowest)}, {number(result.highest)}",
        str(result.subjects),
    ]


def _drawn(result: CellResult) -> list[str | float | None]:
    """A row of `CHART`, in full precision."""
    cell, interval = result.cell, result.interval
    return [cell.source, cell.extractor, cell.target, cell.head, cell.k, result.value, interval.low, interval.high]


def _gap(result: CellResult) -> str:
    gap = result.gap
    if gap is None or gap.value is None:
        return "–"
    low, high = gap.interval.low, gap.interval.high
    return f"{gap.value:+.3f} ({'no interval' if low is None or high is None else f'{low:+.3f} to {high:+.3f}'})"


def _ends(result: CellResult) -> str:
    low, high = result.interval.low, result.interval.high
    return "no interval" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
