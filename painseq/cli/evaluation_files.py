"""What `painseq evaluate` leaves in its folder, whether it scored a checkpoint or a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from painseq.evaluation import Evaluation, Predictions, published_rows, score
from painseq.evaluation.calibration import Calibration
from painseq.evaluation.people import Person, write_subjects
from painseq.evaluation.tables import probability_table, subgroup_table, table
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.evaluation.value_scores import ValueEvaluation, score_values, value_table
from painseq.files import write_json

log = logging.getLogger("painseq")


def evaluation_of(
    said: Predictions | ValuePredictions, people: Mapping[str, Person], calibration: Calibration | None
) -> Evaluation | ValueEvaluation | None:
    """The evaluation of classes or of values; None where no truth is known."""
    if not said.scored.any():
        return None
    return score_values(said) if isinstance(said, ValuePredictions) else score(said, people, calibration)


def show(evaluations: Mapping[str, Evaluation | ValueEvaluation]) -> None:
    """Print the tables of scores, and what to be wary of."""
    console = Console()
    classes = {name: made for name, made in evaluations.items() if isinstance(made, Evaluation)}
    values = {name: made for name, made in evaluations.items() if isinstance(made, ValueEvaluation)}
    tables = [table(classes), probability_table(classes), subgroup_table(classes)] if classes else []
    for shown in (*tables, value_table(values) if values else None):
        if shown is not None:
            console.print(shown)
    for name, made in evaluations.items():
        for warning in made.warnings:
            console.print(f"{name}: {warning}", style="yellow", markup=False)


def write_evaluation(
    out: Path,
    name: str,
    said: Predictions | ValuePredictions,
    made: Evaluation | ValueEvaluation | None,
    details: Mapping[str, object],
) -> None:
    """Write predictions.csv and metrics.json, and where there are scores subjects.csv, with a row a subject.

    Args:
        out: the run folder.
        name: what the model is called.
        said: the predictions that were scored.
        made: None where the truth is hidden.
        details: what else metrics.json tells.
    """
    said.write_csv(out / "predictions.csv")
    if made is not None:
        rows = [row.to_dict() for row in made.by_subject]
        write_subjects(out / "subjects.csv", [{k: v for k, v in row.items() if k != "undefined"} for row in rows])
    write_json(out / "metrics.json", {"models": {} if made is None else {name: made.to_dict()}, **details})


def write_page(
    out: Path,
    name: str,
    said: Predictions | ValuePredictions,
    made: Evaluation | ValueEvaluation,
    subtitle: str,
    dataset: str,
    facts: Mapping[str, str],
    history: Sequence[Mapping[str, float]] = (),
) -> None:
    """Write report.html, and figures/ with every number on it as CSV and JSON.

    Args:
        dataset: what the published rows call the data set, or what else the reader knows it by.
        history: a row an epoch of the fit, where it is known.
    """
    # Drawing loads matplotlib, which only a page needs.
    from painseq.report import Report, value_blocks, write_figures, write_report

    report = Report(
        title=f"painseq evaluate: {name}",
        subtitle=subtitle,
        dataset=dataset,
        evaluations={name: made} if isinstance(made, Evaluation) else {},
        predictions={name: said} if isinstance(said, Predictions) else {},
        blocks=value_blocks({name: made}, {name: said})
        if isinstance(made, ValueEvaluation) and isinstance(said, ValuePredictions)
        else (),
        histories={name: history} if history else {},
        facts=facts,
        published=published_rows(dataset),
    )
    write_report(out / "report.html", report)
    write_figures(out / "figures", report)
    log.info("Report: %s", out / "report.html")
