"""What an evaluation leaves in its folder, whether a model or a file of predictions was scored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from painseq.evaluation import Evaluation, Predictions, published_rows, score
from painseq.evaluation.calibration import Calibration
from painseq.evaluation.people import Person, write_subjects
from painseq.evaluation.predictions import PREDICTIONS_FILE
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.evaluation.value_scores import ValueEvaluation, score_values
from painseq.files import write_json

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class EvaluationResult:
    """One scored model.

    Args:
        name: what the model is called in tables.
        predictions: what it predicted, with the truth as far as it is known, and calibrated if that was asked for.
        evaluation: its scores; None where no truth is known.
        calibration: the temperature that was applied; None without.
    """

    name: str
    predictions: Predictions | ValuePredictions
    evaluation: Evaluation | ValueEvaluation | None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class PageText:
    """What a page tells beside the scores.

    Args:
        subtitle: below the title.
        dataset: what the published rows call the data set, or what else the reader knows it by.
        facts: name -> text.
        history: a row an epoch of the fit, where it is known.
    """

    subtitle: str
    dataset: str
    facts: Mapping[str, str]
    history: Sequence[Mapping[str, float]] = ()


def evaluated(
    name: str,
    predictions: Predictions | ValuePredictions,
    people: Mapping[str, Person],
    calibration: Calibration | None = None,
) -> EvaluationResult:
    """Score predictions of classes or of values, as far as a truth is known."""
    evaluation: Evaluation | ValueEvaluation | None = None
    if predictions.scored.any():
        if isinstance(predictions, ValuePredictions):
            evaluation = score_values(predictions)
        else:
            evaluation = score(predictions, people, calibration)
    return EvaluationResult(name, predictions, evaluation, calibration)


def write_evaluation(out: Path, result: EvaluationResult, details: Mapping[str, object]) -> None:
    """Write predictions.csv and metrics.json, and where there are scores subjects.csv, with a row a subject.

    Args:
        out: the run folder.
        details: what else metrics.json holds.
    """
    result.predictions.write_csv(out / PREDICTIONS_FILE)
    models = {}
    if result.evaluation is not None:
        rows = [row.to_dict() for row in result.evaluation.by_subject]
        write_subjects(out / "subjects.csv", [{k: v for k, v in row.items() if k != "undefined"} for row in rows])
        models = {result.name: result.evaluation.to_dict()}
    write_json(out / "metrics.json", {"models": models, **details})


def write_page(out: Path, result: EvaluationResult, text: PageText) -> None:
    """Write report.html, and figures/ with every number on it as CSV and JSON."""
    # Drawing loads matplotlib, which only a page needs.
    from painseq.report import Report, value_blocks, write_figures, write_report

    name, predictions, evaluation = result.name, result.predictions, result.evaluation
    report = Report(
        title=f"painseq evaluate: {name}",
        subtitle=text.subtitle,
        dataset=text.dataset,
        evaluations={name: evaluation} if isinstance(evaluation, Evaluation) else {},
        predictions={name: predictions} if isinstance(predictions, Predictions) else {},
        blocks=value_blocks({name: evaluation}, {name: predictions})
        if isinstance(evaluation, ValueEvaluation) and isinstance(predictions, ValuePredictions)
        else (),
        histories={name: text.history} if text.history else {},
        facts=text.facts,
        published=published_rows(text.dataset),
    )
    write_report(out / "report.html", report)
    write_figures(out / "figures", report)
    log.info("Report: %s", out / "report.html")


def calibration_facts(calibration: Calibration | None) -> dict[str, str]:
    """The temperature, as a page tells it."""
    if calibration is None:
        return {}
    return {
        "temperature": f"{calibration.temperature:.3f}, fitted on {calibration.clips} clips of "
        f"{len(calibration.fitted_on)} subjects who are not scored; predictions.csv holds the scaled probabilities"
    }


def in_one_line(versions: Mapping[str, str]) -> str:
    """Names and versions, as a page tells them."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
