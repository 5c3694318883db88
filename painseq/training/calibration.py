"""Measure how well a fitted model's probabilities agree with the truth, for its record."""

from __future__ import annotations

import numpy as np

from painseq.data.datamodule import PainDataModule
from painseq.evaluation.metrics import numbered_subjects
from painseq.evaluation.probability import Rated, drawn_statistics
from painseq.model.pain_model import PainModel
from painseq.model.record import CalibrationRecord
from painseq.records import UNKNOWN


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
    truths, probabilities, subjects = [], [], []
    for batch in data.loader("validation"):
        probability = model.decide(batch).probabilities.double().cpu().numpy()
        truth = batch.target.cpu().numpy()
        scored = ~np.isnan(probability).any(axis=1) & (truth != UNKNOWN)
        truths.append(truth[scored])
        probabilities.append(probability[scored])
        subjects += [subject for subject, is_scored in zip(batch.subject_ids, scored, strict=True) if is_scored]
    if not subjects:
        return None
    names, subject = numbered_subjects(subjects)
    clips = Rated(np.concatenate(truths), np.concatenate(probabilities), subject, names)
    once = drawn_statistics(clips, np.ones((1, len(names))))
    hits = clips.probabilities.argmax(axis=1) == clips.truth
    return CalibrationRecord(
        ece=float(once["ece"][0]),
        brier=float(once["brier"][0]),
        overconfidence=float(clips.probabilities.max(axis=1).mean() - hits.mean()),
        subjects=len(names),
        clips=len(subjects),
    )
