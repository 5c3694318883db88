"""Evaluation of predictions, from a file or an object, without a model and without torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from painseq.errors import LeakError, PainseqError
from painseq.evaluation import Calibration, Person, Predictions, calibrate, read_predictions
from painseq.evaluation.leaky import is_leaky, mark, marked
from painseq.evaluation.predictions import PREDICTIONS_FILE, model_name
from painseq.evaluation.value_predictions import ValuePredictions, holds_values, read_value_predictions
from painseq.records import MIN_FACE_SHARE, check_min_face_share
from painseq.runs import new_run_folder, versions
from painseq.studies.evaluation_files import (
    EvaluationResult,
    PageText,
    calibration_facts,
    evaluated,
    in_one_line,
    write_evaluation,
    write_page,
)
from painseq.studies.true_labels import in_classes

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class PredictionsOptions:
    """Options of an evaluation of predictions.

    Args:
        truth: clip id -> class name, native label (with `dataset`) or value, if the predictions have no truth; see
            `painseq.evaluation.read_truth`.
        dataset: data set of the native labels in `truth`, and of the published scores in the report: biovid, ...
        labels: label scheme of `dataset` that maps native labels to classes.
        class_names: class names in order of pain, for a file without prob_ columns.
        subjects: subject -> sex and age, for scores by sex and age; see `painseq.evaluation.read_people`.
        calibrate_on: file of predictions of other subjects, to fit a temperature on.
        min_face_share: predictions are reported as doubtful if a smaller share of the frames has a face.
    """

    truth: Mapping[str, str] | None = None
    dataset: str | None = None
    labels: str = "three"
    class_names: Sequence[str] | None = None
    subjects: Mapping[str, Person] | None = None
    calibrate_on: Path | None = None
    min_face_share: float = MIN_FACE_SHARE

    def __post_init__(self) -> None:
        check_min_face_share(self.min_face_share)


def evaluate_predictions(
    predictions: str | Path | Predictions | ValuePredictions,
    out: str | Path | None = None,
    options: PredictionsOptions = PredictionsOptions(),
    name: str | None = None,
) -> EvaluationResult:
    """Evaluate predictions of classes, or of values on a scale.

    Args:
        predictions: CSV file (`predictions.csv` of a run, or of another program), or the predictions read from it.
        out: new folder for `predictions.csv`, `metrics.json`, `subjects.csv`, `report.html` and `figures/`; None writes
            nothing.
        name: name of the model in tables; None: the name of the file, or of its folder if the file is
            `predictions.csv`.

    Raises:
        LeakError: `calibrate_on` is marked LEAKY.
        PainseqError: a missing or damaged file; no clip has both a truth and a prediction; truth of other clips or
            classes; an option that does not apply to values on a scale; `out` is not empty.

    Example:
        >>> from painseq.evaluation import read_truth
        >>> from painseq.studies.evaluate_predictions import PredictionsOptions, evaluate_predictions
        >>> options = PredictionsOptions(truth=read_truth(Path("truth.csv")))
        >>> evaluate_predictions(Path("predictions.csv"), options=options).evaluation.scores.balanced_accuracy
    """
    out = None if out is None else Path(out)
    file = Path(predictions) if isinstance(predictions, str | Path) else None
    if isinstance(predictions, str | Path):
        predictions = _read(Path(predictions), options)
    predictions, calibration = _prepared(predictions, options)
    if not predictions.scored.any():
        raise PainseqError(
            f"{file or 'These predictions'}: no clip has both a truth and a prediction, so there is nothing to score. "
            "Give truth (command line: --truth FILE, a CSV of clip_id,truth)."
        )
    subjects = options.subjects or {}
    unknown = set(predictions.subject_ids) - set(subjects)
    if options.subjects is not None and unknown:
        log.warning("Sex and age are unknown for %d subjects, such as %s.", len(unknown), min(unknown))
    with nullcontext() if out is None else new_run_folder(out):
        return _evaluated_file(predictions, file, name, out, options, calibration)


def _evaluated_file(
    predictions: Predictions | ValuePredictions,
    file: Path | None,
    name: str | None,
    out: Path | None,
    options: PredictionsOptions,
    calibration: Calibration | None,
) -> EvaluationResult:
    """Score checked predictions, into a new folder if one is given."""
    leaky = file is not None and is_leaky(file)
    name = name or ("predictions" if file is None else model_name(file))
    if leaky:
        name = marked(name)
        log.warning(
            "%s is marked LEAKY: it scores subjects that the model was trained on; the scores do not hold for new "
            "subjects.",
            file,
        )
    result = evaluated(name, predictions, options.subjects or {}, calibration, options.min_face_share)
    if out is not None:
        _write(out, result, file, options)
        if leaky:
            mark(out / PREDICTIONS_FILE)
            mark(out / "subjects.csv")
    return result


def _read(path: Path, options: PredictionsOptions) -> Predictions | ValuePredictions:
    if not holds_values(path):
        return read_predictions(path, options.class_names)
    if options.class_names is not None:
        raise PainseqError(
            f"{path} holds values on a scale, which have no classes. Omit class_names (command line: --classes)."
        )
    return read_value_predictions(path)


def _prepared(
    predictions: Predictions | ValuePredictions, options: PredictionsOptions
) -> tuple[Predictions | ValuePredictions, Calibration | None]:
    """Apply the truth and the temperature of the options to predictions."""
    truth = options.truth
    if isinstance(predictions, ValuePredictions):
        if options.calibrate_on is not None:
            raise PainseqError(
                "calibrate_on needs probabilities, but these are values on a scale. Omit it (command line: "
                "--calibrate-on)."
            )
        if options.subjects is not None:
            raise PainseqError(
                "Scores by sex and age need classes, but these are values on a scale. Omit subjects (command line: "
                "--subjects)."
            )
        return (predictions if truth is None else predictions.with_truth(truth)), None
    if truth is not None:
        if options.dataset is not None:
            from painseq.data.labels import label_scheme
            from painseq.data_modules import facts_of

            scheme = label_scheme(options.dataset, options.labels, facts_of(options.dataset))
            predictions, truth = in_classes(predictions, truth, scheme)
        predictions = predictions.with_truth(truth)
    if options.calibrate_on is None:
        return predictions, None
    if options.calibrate_on.is_file() and is_leaky(options.calibrate_on):
        raise LeakError(
            f"calibrate_on {options.calibrate_on} is marked LEAKY: it holds subjects that the model was trained on. A "
            "model is more confident for them than for new subjects, so a temperature fitted on them is too low. Give "
            "predictions of other subjects."
        )
    return calibrate(predictions, read_predictions(options.calibrate_on, predictions.class_names))


def _write(out: Path, result: EvaluationResult, file: Path | None, options: PredictionsOptions) -> None:
    source, used_versions = None if file is None else str(file), versions()
    calibrated_on = None if options.calibrate_on is None else str(options.calibrate_on)
    write_evaluation(out, result, {"predictions": source, "calibrated_on": calibrated_on, "versions": used_versions})
    facts = {
        **({} if source is None else {"predictions": source}),
        **calibration_facts(result.calibration),
        "versions": in_one_line(used_versions),
    }
    subtitle = "Predictions" if file is None else f"The predictions in {file.name}"
    write_page(out, result, PageText(subtitle, _published_as(options.dataset), facts))


def _published_as(dataset: str | None) -> str:
    """Return the data set's name in the report, which for a known data set is that of the published scores."""
    if dataset is None:
        return "a file"
    from painseq.data_modules import FACTS

    return FACTS[dataset].published_as or dataset if dataset in FACTS else dataset
