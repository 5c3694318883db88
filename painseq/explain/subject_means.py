"""Means over subjects, with intervals over subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from painseq.evaluation.intervals import Interval, mean_interval


@dataclass(frozen=True)
class SubjectMean:
    """The mean over subjects of their means over clips.

    Args:
        value: the mean; None if no clip has a value.
        interval: 95 % interval, by Student's t on the subjects' means.
    """

    value: float | None
    interval: Interval

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {"value": self.value, "interval": self.interval.to_dict()}


def subject_mean(
    values: ArrayLike, subject_ids: Sequence[str], bounds: tuple[float, float] = (-np.inf, np.inf)
) -> SubjectMean:
    """Average over clips, then over subjects, so that each subject counts once.

    Args:
        values: (N,) one per clip; clips with NaN are left out.
        subject_ids: N, the subject of each clip.
        bounds: smallest and largest possible value; the interval is clipped to them.
    """
    clip_values, subjects = np.asarray(values, np.float64), np.asarray(subject_ids)
    known = ~np.isnan(clip_values)
    means = np.array([clip_values[known & (subjects == subject)].mean() for subject in np.unique(subjects[known])])
    return SubjectMean(float(means.mean()) if len(means) else None, mean_interval(means, bounds))
