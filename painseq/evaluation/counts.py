"""What of a model's predictions was scored, and what was not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from painseq.evaluation.predictions import UNKNOWN, Predictions


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
        without_prediction_by_class: by the truth's name; clips of hidden truth are not in it.
        without_prediction_by_subject: by subject id, those with at least one.
        faceless_share_by_class: share of a class's frames without a face, None without any frame.
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


def counts_of(predictions: Predictions) -> Counts:
    """Count clips, subjects and frames."""
    missing = predictions.label == UNKNOWN
    known = (predictions.frames != UNKNOWN) & (predictions.faceless != UNKNOWN)
    ids = np.asarray(predictions.subject_ids, dtype=object)
    shares: dict[str, float | None] = {}
    for index, name in enumerate(predictions.class_names):
        rows = known & (predictions.truth == index)
        frames = int(predictions.frames[rows].sum())
        shares[name] = float(predictions.faceless[rows].sum() / frames) if frames else None
    return Counts(
        clips=len(predictions),
        scored=int(predictions.scored.sum()),
        without_prediction=int(missing.sum()),
        hidden=int(((predictions.truth == UNKNOWN) & ~missing).sum()),
        subjects=len(set(ids[predictions.scored])),
        frames=int(predictions.frames.sum()) if known.all() else None,
        faceless=int(predictions.faceless.sum()) if known.all() else None,
        without_prediction_by_class={
            name: int((missing & (predictions.truth == index)).sum())
            for index, name in enumerate(predictions.class_names)
        },
        without_prediction_by_subject={s: int((missing & (ids == s)).sum()) for s in sorted(set(ids[missing]))},
        faceless_share_by_class=shares,
    )
