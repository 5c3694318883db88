"""Counts of scored and unscored clips, subjects and frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from painseq.evaluation.intervals import FEW_SUBJECTS
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.records import MIN_FACE_SHARE, UNKNOWN, check_min_face_share


@dataclass(frozen=True)
class Counts:
    """Numbers of clips, subjects and frames in a set of predictions.

    Args:
        clips: all clips of the predictions.
        scored: clips with a truth and a prediction; all scores are of these.
        without_prediction: clips without a prediction (no frame with a face), left out of every score.
        hidden: clips with a prediction but no known truth.
        subjects: subjects with at least one scored clip.
        frames: frames read; None if the file does not state it.
        faceless: frames without a face among them; None if the file does not state it.
        without_prediction_by_class: class name of the truth -> clips; without clips of hidden truth. Empty for values
            on a scale.
        without_prediction_by_subject: subject id -> clips, for subjects with at least one.
        faceless_share_by_class: class name -> share of frames without a face, None without any frame. Empty for values
            on a scale.
        few_faces: clips with a prediction whose share of frames with a face is below `min_face_share`; clips whose
            frames the file does not state are not counted.
        min_face_share: see `few_faces`.
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
    few_faces: int
    min_face_share: float

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return dict(vars(self))


def counts_of(predictions: Predictions | ValuePredictions, min_face_share: float = MIN_FACE_SHARE) -> Counts:
    """Count clips, subjects and frames.

    Raises:
        PainseqError: `min_face_share` is not a share.
    """
    check_min_face_share(min_face_share)
    missing = ~predictions.predicted
    missing_of = Counter(compress(predictions.subject_ids, missing.tolist()))
    known = (predictions.frames != UNKNOWN) & (predictions.faceless != UNKNOWN)
    share_with_face = (predictions.frames - predictions.faceless) / np.maximum(predictions.frames, 1)
    rows_of_class: dict[str, NDArray[np.bool_]] = {}
    if isinstance(predictions, Predictions):
        rows_of_class = {name: predictions.truth == index for index, name in enumerate(predictions.class_names)}
    return Counts(
        clips=len(predictions),
        scored=int(predictions.scored.sum()),
        without_prediction=int(missing.sum()),
        hidden=int((predictions.hidden & ~missing).sum()),
        subjects=len(set(compress(predictions.subject_ids, predictions.scored.tolist()))),
        frames=int(predictions.frames.sum()) if known.all() else None,
        faceless=int(predictions.faceless.sum()) if known.all() else None,
        without_prediction_by_class={name: int((missing & rows).sum()) for name, rows in rows_of_class.items()},
        without_prediction_by_subject=dict(sorted(missing_of.items())),
        faceless_share_by_class={
            name: faceless_share(predictions, known & rows) for name, rows in rows_of_class.items()
        },
        few_faces=int((~missing & known & (share_with_face < min_face_share)).sum()),
        min_face_share=min_face_share,
    )


def faceless_share(predictions: Predictions | ValuePredictions, rows: NDArray[np.bool_]) -> float | None:
    """Share of frames without a face in the clips of `rows`; None without any frame."""
    frames = int(predictions.frames[rows].sum())
    return float(predictions.faceless[rows].sum() / frames) if frames else None


def unscored_clip_warnings(counts: Counts) -> list[str]:
    """Warnings about clips that are not scored."""
    lines = []
    if not counts.scored:
        lines.append("No clip has both a truth and a prediction: nothing was scored.")
    if counts.without_prediction:
        lines.append(
            f"{counts.without_prediction} of {counts.clips} clips have no prediction, for example because no face was "
            "found; they are left out of every score."
        )
    if counts.hidden:
        lines.append(f"{counts.hidden} of {counts.clips} clips have a hidden truth and are not scored.")
    return lines


def few_faces_warnings(counts: Counts) -> list[str]:
    """A warning if predictions are based on clips with a face in few frames."""
    if not counts.few_faces:
        return []
    return [
        f"{counts.few_faces} of {counts.clips} clips are predicted although fewer than {counts.min_face_share:.0%} of "
        "their frames have a face."
    ]


def few_subjects_warnings(counts: Counts) -> list[str]:
    """A warning if there are too few subjects for reliable intervals."""
    if not 0 < counts.subjects < FEW_SUBJECTS:
        return []
    if counts.subjects == 1:
        return ["Only 1 subject: there is no interval."]
    return [f"Only {counts.subjects} subjects: the intervals are rough."]
