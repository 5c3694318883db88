"""Score a model on one part of a data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.evaluation import Calibration, Predictions, calibrate, people_of
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.files import write_atomically
from painseq.model.averaging import AveragedModel
from painseq.model.pain_model import PainModel
from painseq.records import Part
from painseq.runs import OnProgress, make_run_folder, no_progress, read_history, versions
from painseq.studies.evaluation_files import (
    EvaluationResult,
    PageText,
    calibration_facts,
    evaluated,
    in_one_line,
    write_evaluation,
    write_page,
)
from painseq.studies.experiment import Experiment
from painseq.studies.predict_part import predict_part, predict_validation, predict_values
from painseq.studies.true_labels import in_classes
from painseq.video.generated import is_generated

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class EvaluateOptions:
    """How a model is scored.

    Args:
        part: of the split: train, validation or test.
        truth: clip id -> class name, native label or number, where the data set hides its labels; see
            `painseq.evaluation.read_truth`.
        calibrate: fit a temperature on the validation part, and apply it.
        prior: class -> its share among those to be scored, where another than in training; see `PainModel.with_prior`.
        checkpoints: where the model was read from, for `metrics.json` and the page, which shows the learning curves
            beside a single one.
    """

    part: Part = "test"
    truth: Mapping[str, str] | None = None
    calibrate: bool = False
    prior: Mapping[str, float] | None = None
    checkpoints: tuple[Path, ...] = ()


def evaluate(
    model: PainModel,
    data: PainDataModule,
    out: Path,
    options: EvaluateOptions = EvaluateOptions(),
    experiment: Experiment | None = None,
    on_progress: OnProgress = no_progress,
) -> EvaluationResult:
    """Score a model on people it has never seen.

    Args:
        out: new folder for `predictions.csv`, `metrics.json` and, where a truth is known, `subjects.csv`, `report.html`
            and `figures/`.
        experiment: what `data` was built from, kept as `config.yaml`; None writes none.
        on_progress: called with (clips done, clips of the part, which part).

    Raises:
        LeakError: the model has seen somebody of this part, or was trained on somebody of the validation part that a
            temperature is to be fitted on.
        PainseqError: see `painseq.studies.predict_part`; a validation part that is to be scored with a temperature
            fitted on it; a truth or a prior of other classes; `out` holds something.

    Example:
        >>> from painseq.model import load
        >>> from painseq.studies.evaluate import evaluate
        >>> result = evaluate(load("runs/lstm/best.ckpt"), data, Path("runs/lstm_test"))
        >>> result.evaluation.scores.balanced_accuracy
    """
    if options.calibrate and options.part == "validation":
        raise PainseqError(
            "calibrate fits the temperature on the validation part, so that part cannot be scored with it. Score the "
            "part test, or leave calibrate out."
        )
    if options.prior is not None:
        model = model.with_prior(options.prior)
    make_run_folder(out)
    predictions, calibration = _predict(model, data, options, on_progress)
    if experiment is not None:
        own = {"part": options.part, "calibrate": options.calibrate, "checkpoints": _names(options.checkpoints)}
        content = yaml.safe_dump({**experiment.config, "evaluate": own}, sort_keys=False)
        write_atomically(out / "config.yaml", content.encode())
    result = evaluated(model_name(model), predictions, people_of(data.clips(options.part)), calibration)
    write_evaluation(out, result, _details(model, data, options, calibration))
    if result.evaluation is None:
        log.info("The labels of this part are hidden: predictions written to %s, no score.", out / "predictions.csv")
    else:
        write_page(out, result, _page(model, data, options, calibration))
    return result


def model_name(model: PainModel) -> str:
    """What a model is called in tables: its head, and whatever makes its score another than a plain one."""
    name = type(model.head).__name__
    if isinstance(model, AveragedModel):
        name += f", mean of {len(model.members)}"
    if model.record.data.shuffled_labels is not None:
        name += ", SHUFFLED LABELS"
    return name


def _predict(
    model: PainModel, data: PainDataModule, options: EvaluateOptions, on_progress: OnProgress
) -> tuple[Predictions | ValuePredictions, Calibration | None]:
    """The predictions for a part, with truth and temperature as the options say."""
    part, truth = options.part, options.truth

    def on_part(done: int, total: int) -> None:
        on_progress(done, total, part)

    if model.predicts_values:
        if options.calibrate:
            raise PainseqError(
                f"This model predicts numbers ({model.scale}), and only probabilities can be calibrated."
            )
        values = predict_values(model, data, part, on_part)
        return (values if truth is None else values.with_truth(truth)), None
    validation = None
    if options.calibrate:
        # The smaller part first: it can turn out that no temperature may be fitted on it.
        validation = predict_validation(model, data, lambda done, total: on_progress(done, total, "validation"))
    predictions = predict_part(model, data, part, on_part)
    if truth is not None:
        predictions, named = in_classes(predictions, truth, data.scheme)
        predictions = predictions.with_truth(named)
    return (predictions, None) if validation is None else calibrate(predictions, validation)


def _details(
    model: PainModel, data: PainDataModule, options: EvaluateOptions, calibration: Calibration | None
) -> dict[str, object]:
    return {
        "part": options.part,
        "split": data.split.to_dict(),
        "data": {"name": data.name, "labels": data.options.labels, "fingerprint": data.manifest.fingerprint()},
        "checkpoints": _names(options.checkpoints),
        "prior": _shares(options.prior),
        "baseline_clips": model.record.baseline_clips,
        "temperature": None if calibration is None else calibration.temperature,
        "device": str(model.device),
        "versions": versions(),
    }


def _page(
    model: PainModel, data: PainDataModule, options: EvaluateOptions, calibration: Calibration | None
) -> PageText:
    part, split, paths, prior = options.part, data.split, options.checkpoints, _shares(options.prior)
    facts = {
        "data": f"{data.name}, part {part}, labels {data.options.labels}, fingerprint {data.manifest.fingerprint()}",
        "split": f"{split.protocol}: "
        + ", ".join(f"{part} {len(split.subjects(part))} subjects" for part in split.parts()),
        **({"checkpoint": ", ".join(_names(paths))} if paths else {}),
        "fitted on": f"{len(model.fitted_on)} subjects, those of early stopping and of the extractor included",
        **({"stated mix of classes": ", ".join(prior)} if prior else {}),
        **calibration_facts(calibration),
        "device": str(model.device),
        "versions": in_one_line(versions()),
    }
    generated = is_generated(data.root)
    return PageText(
        subtitle=f"Part {part} of {data.name}" + (", generated faces: no people" if generated else ""),
        dataset="generated faces" if generated else data.facts.published_as or data.name,
        facts=facts,
        history=read_history(paths[0].parent) if len(paths) == 1 else (),
    )


def _names(paths: tuple[Path, ...]) -> list[str]:
    return [str(path) for path in paths]


def _shares(prior: Mapping[str, float] | None) -> list[str]:
    return [f"{name}={share:g}" for name, share in (prior or {}).items()]
