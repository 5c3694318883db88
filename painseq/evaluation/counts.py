"""What of a model's predictions was scored, and what was not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from painseq.evaluation.intervals import FEW_SUBJECTS
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.records import UNKNOWN


@dataclass(frozen=True)
class Counts:
    """What was and was not scored.

    Args:
        clips: all clips of the predictions.
        scored: clips with a truth and a prediction; every score is of these.
        without_prediction: clips without a prediction (no frame with a face), left out of every score.
        hidden: clips with a prediction whose truth is not known.
        subjects: subjects with at least one scored clip.
        frames: frames looked at, None where the file does not say.
        faceless: frames without a face among them, None where the file does not say.
        without_prediction_by_class: by the truth's name; clips of hidden truth are not in it. Empty on a scale.
        without_prediction_by_subject: by subject id, those with at least one.
        faceless_share_by_class: share of a class's frames without a face, None without any frame. Empty on a scale.
    """

    clips: int
    scored: int
    without_prediction: int
    hidden: int
    subjects: int
    frames: int | None
    faceless: int | None
    without_prediction_by_class: dict[str, int]
    without_prediction_by_subject: dict[str, int]
    faceless_share_by_class: dict[str, float | None]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return dict(vars(self))


def counts_of(predictions: Predictions | ValuePredictions) -> Counts:
    """Count clips, subjects and frames."""
    missing = ~predictions.predicted
    known = (predictions.frames != UNKNOWN) & (predictions.faceless != UNKNOWN)
    ids = np.asarray(predictions.subject_ids, dtype=object)
    of_class: dict[str, NDArray[np.bool_]] = {}
    if isinstance(predictions, Predictions):
        of_class = {name: predictions.truth == index for index, name in enumerate(predictions.class_names)}
    return Counts(
        clips=len(predictions),
        scored=int(predictions.scored.sum()),
        without_prediction=int(missing.sum()),
        hidden=int((predictions.hidden & ~missing).sum()),
        subjects=len(set(ids[predictions.scored])),
        frames=int(predictions.frames.sum()) if known.all() else None,
        faceless=int(predictions.faceless.sum()) if known.all() else None,
        without_prediction_by_class={name: int((missing & rows).sum()) for name, rows in of_class.items()},
        without_prediction_by_subject={s: int((missing & (ids == s)).sum()) for s in sorted(set(ids[missing]))},
        faceless_share_by_class={name: faceless_share(predictions, known & rows) for name, rows in of_class.items()},
    )


def faceless_share(predictions: Predictions | ValuePredictions, rows: NDArray[np.bool_]) -> float | None:
    """Share of the frames of some clips that have no face; None without any frame."""
    frames = int(predictions.frames[rows].sum())
    return float(predictions.faceless[rows].sum() / frames) if frames else None


def of_missing_clips(counts: Counts) -> list[str]:
    """Warnings of the clips that are in no score."""
    lines = []
    if not counts.scored:
        lines.append("No clip has both a truth and a prediction: nothing was scored.")
    if counts.without_prediction:
        lines.append(
            f"{counts.without_prediction} of {counts.clips} clips have no prediction, such as a video without a face; "
            "they are left out of every score."
        )
    if counts.hidden:
        lines.append(f"{counts.hidden} of {counts.clips} clips have a hidden truth and are not scored.")
    return lines


def of_few_subjects(counts: Counts) -> list[str]:
    """A warning where there are too few subjects for intervals to be trusted."""
    if not 0 < counts.subjects < FEW_SUBJECTS:
        return []
    if counts.subjects == 1:
        return ["1 subject only: there is no interval."]
    return [f"{counts.subjects} subjects only: the intervals are rough."]
