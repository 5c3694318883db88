"""The files of a transfer table: JSON, CSV and report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from painseq.evaluation import Predictions
from painseq.evaluation.metrics import STATISTICS
from painseq.evaluation.score import number
from painseq.evaluation.transfer import MEANING, QUESTIONS, CellResult, Question, TransferCell, cell_result
from painseq.files import write_csv, write_json
from painseq.report import Block, Picture, Report, write_figures, write_report
from painseq.report.charts import heat_map, interval_curves
from painseq.report.probabilities import threshold_block
from painseq.runs import versions
from painseq.spec import Spec
from painseq.studies.predict_part import same_videos_warning
from painseq.studies.transfer_plan import TransferFit, TransferPlan, fit_of

COLUMNS = (
    "question", "source", "target", "extractor", "head", "seed", "k", "draw", *STATISTICS, "low", "high", "lowest_run",
    "highest_run", "gap", "gap_low", "gap_high", "within", "majority_class", "chance", "subjects", "interval",
)  # fmt: skip
HOW = (
    "All cells of a target are scored on the same test subjects, which no extractor and no head was fitted on.",
    "The score is the balanced accuracy. Its 95 % interval is over subjects, each with the mean of all seeds and "
    "draws: it shows the variation over subjects. The lowest and the highest run show the variation over seeds and "
    "draws.",
    "The gap is the score of the target's own model minus that of the cell, paired by subject: above 0, the "
    "transferred model is worse.",
)
TRANSDUCTIVE_TARGETS = (
    "TRANSDUCTIVE: the features of every person, of sources and targets, are standardised by that person's own clips, "
    "without labels but with the scored clips. A model was not fitted on people of the target, but its scores hold "
    "only where several clips of a new person are at hand."
)
Results = Mapping[TransferCell, CellResult]


def write_results(
    out: Path,
    plan: TransferPlan,
    results: Sequence[CellResult],
    scored: Mapping[tuple[TransferFit, str], Predictions],
    facts: Spec,
    generated: Sequence[str],
) -> Path:
    """Write `transfer.json`, `transfer.csv`, `runs.csv`, `report.html` and its `figures/`.

    Args:
        generated: data sets with generated faces.

    Returns:
        The path of the report.
    """
    by_cell = {result.cell: result for result in results}
    _write_csv(out / "transfer.csv", [(result, "mean", "mean") for result in results])
    _write_csv(out / "runs.csv", _single_runs(plan, results, scored))
    transductive = facts.get("normalise") == "subject"
    notes = [*HOW, note_on_controls(plan), *note_on_generated(generated)]
    report = Report(
        title="Transfer between data sets",
        subtitle=f"From {' and '.join(plan.sources)} to {', '.join(plan.targets)}",
        dataset=", ".join(plan.data),
        notes=notes,
        warnings=[
            *([TRANSDUCTIVE_TARGETS] if transductive else []),
            *interval_notes(results),
            *unknown_people(facts),
            *seen_videos(facts),
        ],
        facts={"seeds": ", ".join(map(str, plan.seeds)), **versions()},
        blocks=blocks(plan, by_cell, facts),
    )
    page = out / "report.html"
    write_report(page, report)
    write_figures(out / "figures", report)
    cells = [{**result.to_dict(), "beside": _beside(plan, by_cell, result.cell)} for result in results]
    # Written last: its presence marks the table as finished.
    write_json(
        out / "transfer.json",
        {
            "how": notes,
            "meaning": {str(name): text for name, text in MEANING.items()},
            "cells": cells,
            "plan": facts,
            "transductive": transductive,
            "versions": versions(),
        },
    )
    return page


def interval_notes(results: Sequence[CellResult]) -> list[str]:
    """Return the notes of all intervals, each once, with the targets."""
    targets: dict[str, set[str]] = {}
    for result in results:
        for interval in (result.interval, *(() if result.gap is None else (result.gap.interval,))):
            if interval.note:
                targets.setdefault(interval.note, set()).add(result.cell.target)
    return [f"{', '.join(sorted(names))}: {note}." for note, names in targets.items()]


def unknown_people(facts: Spec) -> list[str]:
    """Return a line for each extractor of a data set whose weights do not record all their training subjects."""
    extractors, data = facts["extractors"], facts["data"]
    assert isinstance(extractors, dict) and isinstance(data, dict)
    return [
        f"The weights of {name} do not record all their training subjects, so it was not checked that no test subject "
        "is among them."
        for name, extractor in extractors.items()
        if (extractor["trained_on"] in data and not (extractor["people"] and extractor.get("people_known", True)))
        or (extractor.get("given", False) and not extractor["people_known"])
    ]


def seen_videos(facts: Spec) -> list[str]:
    """Return a line for each target with test clips whose video a fit has seen under another name."""
    same = facts.get("same_videos", {})
    assert isinstance(same, dict)
    return [f"{target}: {same_videos_warning(clips)}" for target, clips in same.items() if clips]


def note_on_controls(plan: TransferPlan) -> str:
    """Describe the training of the controls; if all are untrained, also what stays unknown."""
    trained = {name: plan.extractors[name].trained_on for name in plan.controls}
    if not trained:
        return "No controls: the features are used as another tool made them."
    note = f"Controls: {', '.join(f'{name}, trained on {on}' for name, on in trained.items())}."
    if set(trained.values()) == {"nothing"}:
        note += " None has ImageNet weights, so the score of a network trained on other data is unknown."
    return note


def note_on_generated(names: Sequence[str]) -> list[str]:
    """Return a line if any data sets are generated."""
    if not names:
        return []
    return [f"The faces of {', '.join(names)} are generated: they are not people, and the scores must not be cited."]


def _beside(plan: TransferPlan, results: Results, cell: TransferCell) -> dict[str, object]:
    """Return the scores to compare a cell with: name -> balanced accuracy on the same subjects."""
    own = {"within": results[plan.within_cell(cell)].value}
    controls = {control.extractor: results[control].value for control in plan.controls_of(cell)}
    return {**own, **controls, "majority_class": results[cell].majority, "chance": results[cell].chance}


def _single_runs(
    plan: TransferPlan, results: Sequence[CellResult], scored: Mapping[tuple[TransferFit, str], Predictions]
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
    write_csv(path, [COLUMNS, *(_row(*row) for row in rows)], spreadsheet=True)


def _row(result: CellResult, seed: str, draw: str) -> list[object]:
    gap = result.gap
    cells = {
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
    return [cells[name] for name in COLUMNS]


def without_controls(plan: TransferPlan, results: Sequence[CellResult], question: Question) -> list[CellResult]:
    """Return the cells of a question whose extractor was trained on their source, without the controls."""
    return [r for r in results if r.cell.question == question and r.cell.extractor not in plan.controls]


def curves_of(chosen: Sequence[CellResult]) -> dict[tuple[str, str, str, str], list[CellResult]]:
    """Return (source, target, extractor, head) -> cells by k; the last one has all subjects."""
    curves: dict[tuple[str, str, str, str], list[CellResult]] = {}
    for result in sorted(chosen, key=lambda result: result.cell.k or 0):
        cell = result.cell
        curves.setdefault((cell.source, cell.target, cell.extractor, cell.head), []).append(result)
    return curves


def blocks(plan: TransferPlan, results: Results, facts: Spec) -> list[Block]:
    """Return the sections of the report: data sets, two maps, curves."""
    sections = [_data_block(plan, facts), _map_block(plan, results, "model"), _map_block(plan, results, "features")]
    curves = curves_of(without_controls(plan, list(results.values()), "subjects"))
    tuned = threshold_block({cell.name: result.threshold for cell, result in results.items()})
    return [*sections, *([_curve_block(plan, curves)] if curves else []), *([tuned] if tuned else [])]


def _data_block(plan: TransferPlan, facts: Spec) -> Block:
    rows, data = [], facts["data"]
    assert isinstance(data, dict)
    for name, recorded in data.items():
        classes = "; ".join(f"{key}: {', '.join(labels)}" for key, labels in recorded["classes"].items())
        counts = [str(len(recorded["split"][part])) for part in ("train", "validation", "test")]
        own = plan.within_is(name) if name in plan.targets else "not a target"
        rows.append([name, recorded["data_set"], classes, *counts, recorded["split"]["protocol"], own])
    columns = ["data set", "layout", "classes, of native labels", "training", "early stopping", "test", "split", "own"]
    text = (
        f"Classes of the same names, {plan.fps:g} frames per second, faces cropped alike. Numbers are of subjects. "
        "“Own” is the model trained on the target itself, which its cells are compared with."
    )
    return Block("The data sets, harmonised", text, columns, rows)


def _map_block(plan: TransferPlan, results: Results, question: Question) -> Block:
    pictures, rows = [], []
    for head in plan.heads:
        by_place = {
            (cell.source, cell.extractor, cell.target): result
            for cell, result in results.items()
            if cell.question == question and cell.head == head
        }
        sources = list(dict.fromkeys((source, extractor) for source, extractor, _ in by_place))
        cells = [[by_place[*source, target] for target in plan.targets] for source in sources]
        picture = heat_map(
            [[_or_nan(result.value) for result in line] for line in cells],
            [f"{source} ({extractor})" for source, extractor in sources],
            plan.targets,
            cells[0][0].chance or 0.0,
            1.0,
            f"{head}: balanced accuracy. Rows: source (extractor); columns: target",
            [[_ends(result) for result in line] for line in cells],
        )
        alt = f"Balanced accuracy by source and target, head {head}; the table has the numbers."
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
        text += " The majority class has chance balanced accuracy."
    return Block(QUESTIONS[question], text, columns, rows, pictures)


def _curve_block(plan: TransferPlan, curves: Mapping[tuple[str, str, str, str], Sequence[CellResult]]) -> Block:
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
        alt = f"Balanced accuracy on {target} by the number of its subjects; the table has the numbers."
        picture = interval_curves(drawn, f"training subjects of {target}", "balanced accuracy", chance)
        pictures.append(Picture(alt, picture, CHART, numbers))
    stop = (
        "Fits are stopped early on all validation subjects of the target, which are needed besides the k."
        if plan.epochs is None
        else f"All fits run for {plan.epochs} epochs, as no subject of the target is left for early stopping."
    )
    text = (
        f"{MEANING['subjects']} {stop} k = 0 is the unchanged model of the source.\n\nThe k subjects of a draw are the "
        "first in a random order, so that those of a smaller k are among those of a larger k. The first subject with "
        "clips of every class is moved to the front, since a model cannot learn from one class alone. There are "
        f"{plan.draws} draws per seed, and one if k is all. Each test subject has its mean over draws and seeds, and "
        "the interval is over subjects."
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
    """Return a row of `CHART` in full precision."""
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
