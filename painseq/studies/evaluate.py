"""Evaluate models on one part of a data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.evaluation import Calibration, Predictions, calibrate, people_of
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.files import write_atomically
from painseq.model.averaging import AveragedModel
from painseq.model.pain_model import PainModel
from painseq.model.record import NORMALISED, TRANSDUCTIVE
from painseq.records import MIN_FACE_SHARE, UNKNOWN_PEOPLE, Part, check_min_face_share
from painseq.runs import OnProgress, new_run_folder, no_progress, read_history, short_names, versions
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
from painseq.studies.predict_part import (
    check_can_calibrate,
    check_can_score,
    predict_part,
    predict_validation,
    predict_values,
    same_videos,
    same_videos_warning,
    seen_by,
)
from painseq.studies.true_labels import in_classes
from painseq.video.generated import is_generated, other_faces_warning

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of an evaluation.

    Args:
        part: part of the split: train, validation or test.
        truth: clip id -> class name, native label or value, if the data set hides its labels; see
            `painseq.evaluation.read_truth`.
        calibrate: calibrate the probabilities with a temperature fitted on the validation part.
        prior: class -> its share among the scored clips, if it differs from training; see `PainModel.with_prior`.
        checkpoints: files that the model was loaded from, named in `metrics.json` and the report; the report of a
            single checkpoint shows its learning curves.
        min_face_share: predictions are reported as doubtful if a smaller share of the frames has a face.
    """

    part: Part = "test"
    truth: Mapping[str, str] | None = None
    calibrate: bool = False
    prior: Mapping[str, float] | None = None
    checkpoints: tuple[Path, ...] = ()
    min_face_share: float = MIN_FACE_SHARE

    def __post_init__(self) -> None:
        check_min_face_share(self.min_face_share)


def evaluate(
    model: PainModel,
    data: PainDataModule,
    out: str | Path,
    options: EvaluateOptions = EvaluateOptions(),
    experiment: Experiment | None = None,
    on_progress: OnProgress = no_progress,
) -> EvaluationResult:
    """Evaluate a model on held-out subjects.

    Args:
        out: new folder for `predictions.csv`, `metrics.json` and, if a truth is known, `subjects.csv`, `report.html`
            and `figures/`.
        experiment: experiment that `data` was built from, written to `config.yaml`; None writes no file.
        on_progress: called with (clips done, clips of the part, name of the part).

    Raises:
        LeakError: the model has seen a subject of this part, or a temperature would be fitted on validation subjects
            that it was trained on.
        PainseqError: see `painseq.studies.predict_part`; `calibrate` for the validation part itself; a truth or a
            prior of other classes; `out` is not empty.

    Example:
        >>> from painseq.model import load
        >>> from painseq.studies.evaluate import evaluate
        >>> result = evaluate(load("runs/lstm/best.ckpt"), data, Path("runs/lstm_test"))
        >>> result.evaluation.scores.balanced_accuracy
    """
    out = Path(out)
    if options.calibrate:
        _check_calibrates(model, options)
    if options.prior is not None:
        model = model.with_prior(options.prior)
    with new_run_folder(out):
        return _evaluate(model, data, out, options, experiment, on_progress)


def _evaluate(
    model: PainModel,
    data: PainDataModule,
    out: Path,
    options: EvaluateOptions,
    experiment: Experiment | None,
    on_progress: OnProgress,
) -> EvaluationResult:
    """Evaluate a model into a new folder."""
    unknown = seen_by(model, data).unknown
    if unknown:
        log.warning(UNKNOWN_PEOPLE, ", ".join(unknown))
    other = other_faces_warning(model.record.generated, data.generated)
    if other:
        log.warning("%s: %s", data.name, other)
    predictions, calibration = _predict(model, data, options, on_progress)
    if experiment is not None:
        own = {"part": options.part, "calibrate": options.calibrate, "checkpoints": _names(options.checkpoints)}
        content = yaml.safe_dump({**experiment.config, "evaluate": own}, sort_keys=False)
        write_atomically(out / "config.yaml", content.encode())
    people = people_of(data.clips(options.part))
    result = evaluated(model_name(model), predictions, people, calibration, options.min_face_share)
    write_evaluation(out, result, _details(model, data, options, calibration))
    if result.evaluation is None:
        log.info(
            "The labels of this part are hidden, so there are no scores. Predictions written to %s.",
            out / "predictions.csv",
        )
    else:
        write_page(out, result, _page(model, data, options, calibration))
    return result


def evaluate_models(
    models: Mapping[str, PainModel],
    data: PainDataModule,
    out: str | Path,
    options: EvaluateOptions = EvaluateOptions(),
    experiment: Experiment | None = None,
    on_progress: OnProgress = no_progress,
) -> dict[str, EvaluationResult]:
    """Evaluate several models on the same part.

    Args:
        models: path of the checkpoint -> model.
        out: new folder, in which each model gets a folder named after its run; see `evaluate`.
        options: its `checkpoints` are ignored.

    Returns:
        Name of the folder -> result.

    Raises:
        LeakError, PainseqError: see `evaluate`; models that take different streams, or normalise them differently.
    """
    _check_same_input(models)
    # All before the first: a model that is refused must not leave a folder that holds the others.
    for model in models.values():
        _check(model, data, options)
    results = {}
    with new_run_folder(Path(out)) as folder:
        for name, (path, model) in zip(short_names(list(map(Path, models))), models.items(), strict=True):
            of_model = replace(options, checkpoints=(Path(path),))
            results[name] = evaluate(model, data, folder / name, of_model, experiment, on_progress)
    return results


def _check_same_input(models: Mapping[str, PainModel]) -> None:
    inputs = {name: (*model.streams, f"normalise {model.record.by_person}") for name, model in models.items()}
    if len(set(inputs.values())) > 1:
        lines = [f"{name}: {', '.join(of_model)}" for name, of_model in inputs.items()]
        raise PainseqError(
            "These models take different inputs, but the data have one:\n  "
            + "\n  ".join(lines)
            + "\nEvaluate each by itself, with its own --data.options, and show them side by side: painseq compare "
            "with the folders of the evaluations."
        )


def _check(model: PainModel, data: PainDataModule, options: EvaluateOptions) -> None:
    """Refuse what `evaluate` refuses of a model."""
    check_can_score(model, data, options.part)
    if options.calibrate:
        _check_calibrates(model, options)
        check_can_calibrate(model, data)
    if options.prior is not None:
        model.with_prior(options.prior)


def _check_calibrates(model: PainModel, options: EvaluateOptions) -> None:
    if options.part == "validation":
        raise PainseqError(
            "calibrate fits the temperature on the validation part, so part cannot be validation. Choose the part "
            "test, or omit calibrate."
        )
    if model.predicts_values:
        raise PainseqError(f"This model predicts numbers ({model.scale}), and only probabilities can be calibrated.")


def model_name(model: PainModel) -> str:
    """Name a model in tables: its head, and whether it is an average, transductive, or fitted with shuffled labels."""
    name = model.head.name
    if isinstance(model, AveragedModel):
        name += f", mean of {len(model.members)}"
    if model.record.transductive:
        name += ", transductive"
    if model.record.data.shuffled_labels is not None:
        name += ", SHUFFLED LABELS"
    return name


def _predict(
    model: PainModel, data: PainDataModule, options: EvaluateOptions, on_progress: OnProgress
) -> tuple[Predictions | ValuePredictions, Calibration | None]:
    """Predict a part, and apply the truth and the temperature of the options."""
    part, truth = options.part, options.truth

    def on_part(done: int, total: int) -> None:
        on_progress(done, total, part)

    if model.predicts_values:
        values = predict_values(model, data, part, on_part)
        return (values if truth is None else values.with_truth(truth)), None
    validation = None
    if options.calibrate:
        # The validation part first: it is smaller, and a leak check may refuse it.
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
        "prior": _shares(model.prior),
        "fitted_on": {"subjects": len(model.fitted_on), "unknown": list(seen_by(model, data).unknown)},
        "generated": {"fitted_on": model.record.generated, "scored": data.generated},
        "same_videos": list(same_videos(model, data, options.part)),
        "normalise": list(model.record.normalise),
        "transductive": model.record.transductive,
        "baseline_clips": model.record.baseline_clips,
        "threshold": None if model.record.threshold is None else model.record.threshold.to_dict(),
        "temperature": None if calibration is None else calibration.temperature,
        "device": str(model.device),
        "versions": versions(),
    }


def _page(
    model: PainModel, data: PainDataModule, options: EvaluateOptions, calibration: Calibration | None
) -> PageText:
    part, split, paths, prior = options.part, data.split, options.checkpoints, _shares(model.prior)
    unknown = seen_by(model, data).unknown
    facts = {
        "data": f"{data.name}, part {part}, labels {data.options.labels}, fingerprint {data.manifest.fingerprint()}",
        "split": f"{split.protocol}: "
        + ", ".join(f"{part} {len(split.subjects(part))} subjects" for part in split.parts()),
        **({"checkpoint": ", ".join(_names(paths))} if paths else {}),
        "fitted on": f"{len(model.fitted_on)} subjects, including those of early stopping and of the extractor"
        + (f"; unknown subjects of {', '.join(unknown)}" if unknown else ""),
        **({"stated mix of classes": ", ".join(prior)} if prior else {}),
        **({} if model.record.threshold is None else {"tuned threshold": str(model.record.threshold)}),
        "normalised": ", then ".join(NORMALISED[step] for step in model.record.normalise) or "no",
        **calibration_facts(calibration),
        "device": str(model.device),
        "versions": in_one_line(versions()),
    }
    generated, same = is_generated(data.root), same_videos(model, data, part)
    other = other_faces_warning(model.record.generated, data.generated)
    return PageText(
        subtitle=f"Part {part} of {data.name}" + (", generated faces: no people" if generated else ""),
        dataset="generated faces" if generated else data.facts.published_as or data.name,
        facts=facts,
        history=_history(paths[0].parent) if len(paths) == 1 else (),
        warnings=[
            *([f"{data.name}: {other}"] if other else []),
            *([TRANSDUCTIVE] if model.record.transductive else []),
            *([same_videos_warning(same)] if same else []),
        ],
    )


def _history(run: Path) -> Sequence[Mapping[str, float]]:
    """Return the learning curves of a fit; none, with a warning, if its folder holds another table."""
    try:
        return read_history(run)
    except PainseqError as error:
        log.warning("The report shows no learning curves: %s", error)
        return ()


def _names(paths: tuple[Path, ...]) -> list[str]:
    return [str(path) for path in paths]


def _shares(prior: Mapping[str, float] | None) -> list[str]:
    return [f"{name}={share}" for name, share in (prior or {}).items()]
