"""Numbers of every table and chart of a page, as CSV files and one JSON file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from painseq.evaluation.metrics import STATISTICS
from painseq.evaluation.score import shared_baselines
from painseq.files import write_atomically, write_csv, write_json
from painseq.report.charts import LEARNING_CURVES
from painseq.report.content import Block, CellValue, Report
from painseq.report.page import blocks_of
from painseq.report.probabilities import SCORES
from painseq.report.tables import subject_scores

RESERVED_NAMES = (
    *("scores", "baselines", "by_class", "confusion", "by_subject", "subgroups", "counts"),
    *("learning_curves", "published", "figures"),
)
"""Names of the page's standard tables, which blocks cannot use."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of one table or chart.

    Args:
        name: stem of its file, and its key in the JSON file.
        title: what it shows.
        columns: names of the columns.
        rows: cells; None without a number.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[CellValue]]


def write_figures(folder: Path, report: Report) -> None:
    """Write the numbers of the page's tables and charts, and the charts of its blocks.

    Writes a `<name>.csv` for each table and chart, all of them in `figures.json` under the same names, and charts of
    blocks as SVG. Numbers have full precision. An empty cell of a CSV, and null in JSON, is an undefined number or an
    infinite threshold.

    Args:
        folder: created if missing.
        report: content of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks = _named_blocks(report)
    tables = _numbers_of(report, blocks)
    for table in tables:
        write_csv(folder / f"{table.name}.csv", [table.columns, *table.rows], spreadsheet=True)
    content = {
        table.name: {
            "title": table.title,
            "columns": list(table.columns),
            "rows": [list(row) for row in table.rows],
        }
        for table in tables
    }
    write_json(folder / "figures.json", content)
    for name, block in blocks.items():
        for number, picture in enumerate(block.pictures, 1):
            write_atomically(folder / f"{_chart_name(name, number)}.svg", picture.svg)


def numbers_of(report: Report) -> list[Numbers]:
    """Collect the numbers of the page's tables and charts, in order."""
    return _numbers_of(report, _named_blocks(report))


def _numbers_of(report: Report, blocks: Mapping[str, Block]) -> list[Numbers]:
    standard = [
        _scores(report),
        _baselines(report),
        _by_class(report),
        _confusion(report),
        _by_subject(report),
        _subgroups(report),
        _counts(report),
        _learning(report),
        _published(report),
    ]
    tables = [table for table in standard if table.rows]
    for name, block in blocks.items():
        tables += _of_block(name, block)
    return [
        Numbers(table.name, table.title, table.columns, [[_plain(cell) for cell in row] for row in table.rows])
        for table in tables
    ]


def _named_blocks(report: Report) -> dict[str, Block]:
    """The page's blocks by unique names for their files."""
    named: dict[str, Block] = {}
    for block in [*report.blocks, *blocks_of(report)]:
        title = re.sub(r"[^a-z0-9]+", "_", block.title.lower()).strip("_")[:60] or "block"
        names = chain([title], (f"{title}-{number}" for number in count(2)))
        named[next(name for name in names if name not in named and name not in RESERVED_NAMES)] = block
    return named


def _chart_name(block: str, number: int) -> str:
    # Names made of titles contain no hyphen.
    return f"{block}-chart-{number}"


def _plain(cell: CellValue) -> CellValue:
    """JSON has no NaN and no infinity."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _scores(report: Report) -> Numbers:
    rows: list[list[CellValue]] = []
    for model, evaluation in report.evaluations.items():
        for name in (*STATISTICS, *SCORES):
            interval = evaluation.intervals.get(name)
            cells: list[CellValue] = [None] * 5
            if interval is not None:
                cells = [interval.low, interval.high, interval.subjects, interval.method, interval.note]
            rows.append([model, name, evaluation.value(name), *cells])
    columns = ("model", "statistic", "value", "low", "high", "subjects", "method", "note")
    return Numbers("scores", "Scores with 95 % intervals over subjects", columns, rows)


def _baselines(report: Report) -> Numbers:
    rows = [
        [name, baseline.rule, key, baseline.scores.value(key)]
        for name, baseline in shared_baselines(report.evaluations)
        for key in STATISTICS
    ]
    return Numbers("baselines", "Scores without a model", ("baseline", "rule", "statistic", "value"), rows)


def _by_class(report: Report) -> Numbers:
    rows: list[list[CellValue]] = []
    for model, evaluation in report.evaluations.items():
        s = evaluation.scores
        columns = (s.class_names, s.recall, s.precision, s.f1, s.support, s.predicted)
        rows += [[model, *cells] for cells in zip(*columns, strict=True)]
    header = ("model", "class", "recall", "precision", "f1", "clips", "predicted")
    return Numbers("by_class", "Recall, precision and F1 of each class", header, rows)


def _confusion(report: Report) -> Numbers:
    rows: list[list[CellValue]] = [
        [model, truth, label, count]
        for model, evaluation in report.evaluations.items()
        for truth, counts in zip(evaluation.scores.class_names, evaluation.scores.confusion, strict=True)
        for label, count in zip(evaluation.scores.class_names, counts, strict=True)
    ]
    return Numbers("confusion", "Clips by truth and label", ("model", "truth", "label", "clips"), rows)


def _by_subject(report: Report) -> Numbers:
    rows: list[list[CellValue]] = [
        [model, subject, value]
        for model, predictions in report.predictions.items()
        for subject, value in subject_scores(predictions).items()
    ]
    title = "Balanced accuracy of each subject, over the classes that the subject has"
    return Numbers("by_subject", title, ("model", "subject_id", "balanced_accuracy"), rows)


def _subgroups(report: Report) -> Numbers:
    rows: list[list[CellValue]] = []
    for model, evaluation in report.evaluations.items():
        for group in evaluation.subgroups:
            for name in STATISTICS:
                interval = group.intervals.get(name)
                low, high = (None, None) if interval is None else (interval.low, interval.high)
                value = group.scores.value(name)
                rows.append([model, group.attribute, group.name, group.subjects, group.clips, name, value, low, high])
    columns = ("model", "attribute", "group", "subjects", "clips", "statistic", "value", "low", "high")
    return Numbers("subgroups", "Scores by sex and age", columns, rows)


def _counts(report: Report) -> Numbers:
    names = ("clips", "scored", "subjects", "without_prediction", "hidden", "frames", "faceless")
    rows: list[list[CellValue]] = [
        [model, *(getattr(evaluation.counts, name) for name in names)]
        for model, evaluation in report.evaluations.items()
    ]
    return Numbers("counts", "What was scored", ("model", *names), rows)


def _learning(report: Report) -> Numbers:
    keys = [key for lines in LEARNING_CURVES.values() for key, _ in lines]
    rows: list[list[CellValue]] = [
        [model, row.get("epoch"), *(row.get(key) for key in keys)]
        for model, history in report.histories.items()
        for row in history
    ]
    return Numbers("learning_curves", "Loss and balanced accuracy by epoch", ("model", "epoch", *keys), rows)


def _published(report: Report) -> Numbers:
    names = ("dataset", "name", "protocol", "modality", "part", "metric", "value", "source", "standing")
    rows = [[getattr(row, name) for name in names] for row in report.published]
    return Numbers("published", "Published results", names, rows)


def _of_block(name: str, block: Block) -> list[Numbers]:
    table = [Numbers(name, block.title, block.columns, block.rows)] if block.rows else []
    return table + [
        Numbers(_chart_name(name, number), picture.alt, picture.columns, picture.rows)
        for number, picture in enumerate(block.pictures, 1)
        if picture.rows
    ]
