"""What a service tells of its models: whom they were fitted on, in numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from painseq.errors import PainseqError
from painseq.model.predictor import Predictor
from painseq.model.record import NORMALISED, CalibrationRecord

NOT_MEDICAL = "Research software. It is no medical device: do not use it to decide about anybody's treatment."


def check_models(models: Mapping[str, Predictor]) -> None:
    """Refuse models that cannot predict what a service is sent.

    Raises:
        PainseqError: no model, or one that needs what no video holds.
    """
    if not models:
        raise PainseqError("A service needs a model.")
    for name, model in models.items():
        face = model.face_crops()
        if "action_units" in model.streams:
            raise PainseqError(
                f"{name} takes action units, which another program writes into a table, so it cannot predict what a "
                "service is sent. Choose a model without the stream action_units."
            )
        if type(face.locator).__name__ == "Sidecar":
            raise PainseqError(
                f"{name} takes faces that were found before, from a file beside the video. Name a locator that finds "
                "them (command line: --locator yunet)."
            )


def described(name: str, model: Predictor) -> dict[str, Any]:
    """Return what a service tells of a model; it names no person."""
    record, split, calibration = model.record, model.record.data.split, _calibration(model)
    return {
        "name": name,
        "class_names": list(model.class_names),
        "scale": None if model.scale is None else str(model.scale),
        "level": model.level,
        "threshold": model.threshold,
        "streams": list(model.streams),
        "frames_per_s": model.fps,
        "normalised": [NORMALISED[step] for step in record.normalise],
        "engines": dict(model.engines),
        "fitted_on": {
            "data_set": record.data.name,
            "generated_faces": record.generated,
            "people": len(record.fitted_on),
            "training_subjects": len(split.train),
            "validation_subjects": len(split.validation),
            "training_clips": record.data.train_counts,
            "people_of_the_extractor": len(record.extractor_trained_on),
            "weights_of_unknown_people": len(record.unknown_people),
        },
        "calibration": None if calibration is None else calibration.to_dict(),
        "limits": _limits(model),
    }


def _calibration(model: Predictor) -> CalibrationRecord | None:
    """What is known of the probabilities as they are told: with the correction of a prior, nothing."""
    return None if model.prior is not None else model.record.calibration


def _limits(model: Predictor) -> list[str]:
    record, calibration = model.record, _calibration(model)
    limits = [NOT_MEDICAL, "People can be in pain without showing it, and grimace without pain."]
    if model.scale is None:
        known = "it is not known how well they are calibrated." if calibration is None else f"{calibration}."
        limits.append(f"The probabilities are the model's own: {known}")
    if record.generated:
        limits.append("The model was fitted on generated faces; it says nothing of real ones.")
    if record.unknown_people:
        limits.append("Whom some of its weights were trained on is not known.")
    if record.by_person == "subject":
        limits.append("Features are normalised by the person's own frames, without labels.")
    if record.by_person == "baseline":
        limits.append("The first seconds of a stream must show the person without pain; single videos are refused.")
    return limits
