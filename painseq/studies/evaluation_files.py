"""The files of an evaluation, of a model or of a predictions file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from painseq.evaluation import Evaluation, Predictions, published_rows, score
from painseq.evaluation.calibration import Calibration
from painseq.evaluation.counts import counts_of, few_faces_warnings
from painseq.evaluation.people import Person, write_subjects
from painseq.evaluation.predictions import PREDICTIONS_FILE
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.evaluation.value_scores import ValueEvaluation, score_values
from painseq.files import write_json
from painseq.records import MIN_FACE_SHARE

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class EvaluationResult:
    """The evaluation of one model.

    Args:
        name: name of the model in tables.
        predictions: its predictions, with the truth where it is known, and calibrated on request.
        evaluation: its scores; None if no truth is known.
        calibration: the applied temperature; None if there is none.
    """

    name: str
    predictions: Predictions | ValuePredictions
    evaluation: Evaluation | ValueEvaluation | None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class PageText:
    """The text of a report besides the scores.

    Args:
        subtitle: line below the title.
        dataset: name of the data set, in the published rows if it has any.
        facts: name -> text.
        history: one row per epoch of the fit, if known.
        warnings: about the evaluation, besides those of the scores.
    """

    subtitle: str
    dataset: str
    facts: Mapping[str, str]
    history: Sequence[Mapping[str, float]] = ()
    warnings: Sequence[str] = ()


def evaluated(
    name: str,
    predictions: Predictions | ValuePredictions,
    people: Mapping[str, Person],
    calibration: Calibration | None = None,
    min_face_share: float = MIN_FACE_SHARE,
) -> EvaluationResult:
    """Score predictions of classes or of values, if any truth is known.

    Raises:
        PainseqError: `min_face_share` is not a share.
    """
    evaluation: Evaluation | ValueEvaluation | None = None
    if predictions.scored.any():
        if isinstance(predictions, ValuePredictions):
            evaluation = score_values(predictions, min_face_share)
        else:
            evaluation = score(predictions, people, calibration, min_face_share)
    else:
        # With a truth, it is among the warnings of the evaluation.
        for line in few_faces_warnings(counts_of(predictions, min_face_share)):
            log.warning("%s: %s", name, line)
    return EvaluationResult(name, predictions, evaluation, calibration)


def write_evaluation(out: Path, result: EvaluationResult, details: Mapping[str, object]) -> None:
    """Write predictions.csv and metrics.json; if there are scores, also subjects.csv with one row per subject.

    Args:
        out: the run folder.
        details: further content of metrics.json.
    """
    result.predictions.write_csv(out / PREDICTIONS_FILE)
    models = {}
    if result.evaluation is not None:
        rows = [row.to_dict() for row in result.evaluation.by_subject]
        write_subjects(out / "subjects.csv", [{k: v for k, v in row.items() if k != "undefined"} for row in rows])
        models = {result.name: result.evaluation.to_dict()}
    write_json(out / "metrics.json", {"models": models, **details})


def write_page(out: Path, result: EvaluationResult, text: PageText) -> None:
    """Write report.html, and figures/ with its numbers as CSV and JSON."""
    # The report loads matplotlib, which nothing else here needs.
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
        warnings=text.warnings,
        published=published_rows(text.dataset),
    )
    write_report(out / "report.html", report)
    write_figures(out / "figures", report)
    log.info("Report: %s", out / "report.html")


def calibration_facts(calibration: Calibration | None) -> dict[str, str]:
    """Describe the temperature for the report."""
    if calibration is None:
        return {}
    return {
        "temperature": f"{calibration.temperature:.3f}, fitted on {calibration.clips} clips of "
        f"{len(calibration.fitted_on)} other subjects; predictions.csv holds the scaled probabilities"
    }


def in_one_line(versions: Mapping[str, str]) -> str:
    """Format names and versions for the report."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
