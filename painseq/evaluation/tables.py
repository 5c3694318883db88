"""Tables of evaluations for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from painseq.evaluation.intervals import Interval
from painseq.evaluation.metrics import LOWER_IS_BETTER, STATISTICS, Scores
from painseq.evaluation.probability import PROBABILITY_STATISTICS
from painseq.evaluation.score import (
    POINT_TITLES,
    THRESHOLD_TEXT,
    TITLES,
    Evaluation,
    number,
    shared_baselines,
    threshold_rows,
)
from painseq.evaluation.threshold import ThresholdComparison

CAPTION_STYLE = "table.caption"
INTERVALS = "95 % intervals over subjects"
SHOWN_OF_GROUPS = ("balanced_accuracy", "accuracy", "mean_absolute_error")


def table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Main table: one row per model with its intervals, then the baselines."""
    baselines = shared_baselines(evaluations)
    caption = "; ".join(f"{name}: {baseline.rule}" for name, baseline in baselines)
    result = _table("Scores", caption, STATISTICS)
    result.add_column("Lowest recall", justify="right")
    for model, evaluation in evaluations.items():
        cells = [_cell(evaluation.value(name), evaluation.intervals.get(name)) for name in STATISTICS]
        result.add_row(Text(model), *cells, Text(_lowest_recall(evaluation.scores)))
    result.add_section()
    for name, baseline in baselines:
        cells = [number(baseline.scores.value(key)) for key in STATISTICS]
        result.add_row(Text(name), *cells, "", style="dim")
    return result


def probability_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Scores of the probabilities, also before calibration; None if no model has any."""
    caption = "Chance: AUROC 0.5, AUPRC the mean of the classes' shares"
    result = _table("Probabilities", caption, PROBABILITY_STATISTICS)
    for model, evaluation in evaluations.items():
        calibration = evaluation.calibration
        if calibration is not None and calibration.before is not None:
            before = [number(calibration.before.value(name)) for name in PROBABILITY_STATISTICS]
            result.add_row(Text(f"{model}, uncalibrated"), *before, style="dim")
            model = f"{model}, temperature {calibration.temperature:.2f}"
        if evaluation.probability is not None:
            cells = [_cell(evaluation.value(name), evaluation.intervals.get(name)) for name in PROBABILITY_STATISTICS]
            result.add_row(Text(model), *cells)
    return result if result.rows else None


def threshold_table(comparisons: Mapping[str, ThresholdComparison | None]) -> Table | None:
    """Scores at a tuned threshold beside those at 0.5; None if no model has one."""
    result = Table(
        title="Tuned threshold", caption=THRESHOLD_TEXT, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    result.add_column("", overflow="fold")
    for title in POINT_TITLES.values():
        result.add_column(title, justify="right")
    for model, comparison in comparisons.items():
        for name, cells in threshold_rows(comparison):
            result.add_row(Text(f"{model}, {name}"), *cells)
    return result if result.rows else None


def subgroup_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Scores by sex and age band; None if neither is known."""
    result = _table("By sex and age", _differences(evaluations), SHOWN_OF_GROUPS)
    result.add_column("Subjects", justify="right")
    result.add_column("Clips", justify="right")
    for model, evaluation in evaluations.items():
        if evaluation.subgroups and len(evaluations) > 1:
            result.add_section()
            result.add_row(Text(model), style="bold")
        for group in evaluation.subgroups:
            cells = [_cell(group.scores.value(name), group.intervals.get(name)) for name in SHOWN_OF_GROUPS]
            counts = (str(group.subjects), str(group.clips))
            style = "dim" if group.caution else None
            result.add_row(Text(f"{group.attribute}: {group.name}"), *cells, *counts, style=style)
    return result if result.rows else None


def _differences(evaluations: Mapping[str, Evaluation]) -> str:
    lines = []
    for model, evaluation in evaluations.items():
        prefix = f"{model}: " if len(evaluations) > 1 else ""
        for difference in evaluation.subgroup_differences:
            low, high = difference.interval.low, difference.interval.high
            span = "no interval" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"
            groups = f"{difference.first} minus {difference.second}"
            lines.append(f"{prefix}{groups}: balanced accuracy {difference.value:+.3f} ({span})")
    return "\n".join(lines)


def _table(title: str, caption: str, statistics: Iterable[str]) -> Table:
    """An empty table that fits 80 columns: no lines between columns, and no broken intervals."""
    result = Table(
        title=f"{title}, with {INTERVALS}",
        caption=Text(caption, CAPTION_STYLE),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    result.add_column("", overflow="fold")
    for name in statistics:
        result.add_column(_title(name), justify="right", min_width=9)
    return result


def _title(name: str) -> str:
    return TITLES[name] + (" ↓" if name in LOWER_IS_BETTER else "")


def _cell(value: float | None, interval: Interval | None) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return number(value)
    if interval.low == interval.high:
        # Subjects without differences do not show how much others would vary.
        return f"{number(value)}\nno width"
    return f"{number(value)}\n{interval.low:.2f}–{interval.high:.2f}"


def _lowest_recall(scores: Scores) -> str:
    """The lowest recall among the classes in the truth, and its class."""
    present = [(r, name) for r, name, n in zip(scores.recall, scores.class_names, scores.support, strict=True) if n]
    if not present:
        return "–"
    value, name = min(present, key=lambda pair: pair[0])
    return f"{value:.3f}\n{name}"
