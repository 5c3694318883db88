"""Means over subjects, with intervals over subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from painseq.evaluation.intervals import Interval, mean_interval


@dataclass(frozen=True)
class SubjectMean:
    """The mean over subjects of each one's mean over clips.

    Args:
        value: None where no clip has a value.
        interval: 95 %, by Student's t on the subjects' means.
    """

    value: float | None
    interval: Interval

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {"value": self.value, "interval": self.interval.to_dict()}


def subject_mean(
    values: ArrayLike, subject_ids: Sequence[str], bounds: tuple[float, float] = (-np.inf, np.inf)
) -> SubjectMean:
    """Each subject counts once, however many clips there are of it.

    Args:
        values: (N,) one a clip; NaN, a clip without a value, is left out.
        subject_ids: N.
        bounds: least and greatest value there can be, where the interval is cut off.
    """
    of_clips, subjects = np.asarray(values, np.float64), np.asarray(subject_ids)
    known = ~np.isnan(of_clips)
    means = np.array([of_clips[known & (subjects == subject)].mean() for subject in np.unique(subjects[known])])
    return SubjectMean(float(means.mean()) if len(means) else None, mean_interval(means, bounds))
