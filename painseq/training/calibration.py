"""Predict the labelled validation clips of a fit, and measure how well the probabilities agree with their labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from painseq.data.datamodule import PainDataModule
from painseq.evaluation.metrics import numbered_subjects
from painseq.evaluation.probability import Rated, drawn_statistics
from painseq.model.pain_model import PainModel
from painseq.model.record import CalibrationRecord
from painseq.records import UNKNOWN


def labelled_validation(
    model: PainModel, data: PainDataModule
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Predict the n validation clips that have both a label and a probability.

    Returns:
        Class indices (n,), probabilities (n, K), and the n subjects.
    """
    truths, probabilities, subjects = [], [], []
    for batch in data.loader("validation"):
        probability = model.decide(batch).probabilities.double().cpu().numpy()
        truth = batch.target.cpu().numpy()
        kept = ~np.isnan(probability).any(axis=1) & (truth != UNKNOWN)
        truths.append(truth[kept])
        probabilities.append(probability[kept])
        subjects += [subject for subject, is_kept in zip(batch.subject_ids, kept, strict=True) if is_kept]
    return np.concatenate(truths), np.concatenate(probabilities), subjects


def measure_calibration(model: PainModel, data: PainDataModule) -> CalibrationRecord | None:
    """Compare the probabilities of the validation clips with their labels.

    Args:
        model: a model that was fitted on the training subjects of `data`.
        data: data of the fit.

    Returns:
        The measures; None for a model of a scale, if the validation clips are those of people that weights were fitted
        on, or if no validation clip has both a label and a probability.
    """
    record = model.record
    leaky = record.data.split.protocol.endswith("_LEAKY")
    seen = record.validation_seen_by_extractor or record.validation_seen_by_start
    if not record.class_names or not data.split.validation or leaky or seen:
        return None
    truth, probabilities, subjects = labelled_validation(model, data)
    if not subjects:
        return None
    names, subject = numbered_subjects(subjects)
    clips = Rated(truth, probabilities, subject, names)
    once = drawn_statistics(clips, np.ones((1, len(names))))
    hits = clips.probabilities.argmax(axis=1) == clips.truth
    return CalibrationRecord(
        ece=float(once["ece"][0]),
        brier=float(once["brier"][0]),
        overconfidence=float(clips.probabilities.max(axis=1).mean() - hits.mean()),
        subjects=len(names),
        clips=len(subjects),
    )
