"""Normalisation of features by person: relative to frames without pain, or standardised over all of the person's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from painseq.batch import Moments
from painseq.data.streams import Stream, rows_of, stored_frames
from painseq.errors import PainseqError
from painseq.features import FeatureStore, NpzFolder
from painseq.records import Clip

Normalise = Literal["none", "subject", "baseline"]


@dataclass(frozen=True)
class PersonScale:
    """What one person's features are normalised by.

    Args:
        mean: (D,), subtracted.
        sd: (D,), divided by.
    """

    mean: Tensor
    sd: Tensor

    @classmethod
    def pain_free(cls, rows: Tensor) -> PersonScale:
        """Relative to the mean of (N, D) frames without pain; the scale of the columns stays."""
        mean = rows.float().mean(dim=0)
        return cls(mean, torch.ones_like(mean))

    @classmethod
    def of(cls, moments: Moments) -> PersonScale:
        """Mean 0 and standard deviation 1 of each column over all frames of the person."""
        return cls(moments.mean.float(), moments.sd.float())

    def apply(self, rows: Tensor, present: Tensor) -> Tensor:
        """Normalise (..., D) rows; those that are not `present` (...) become 0."""
        scaled = (rows.float() - self.mean.to(rows.device)) / self.sd.to(rows.device)
        return torch.where(present[..., None], scaled, 0.0)


def person_scales(
    own: Mapping[str, Sequence[Clip]],
    normalise: Normalise,
    store: FeatureStore | NpzFolder,
    streams: Sequence[Stream],
    root: Path,
) -> dict[str, PersonScale]:
    """Measure each person's own clips.

    Args:
        own: subject -> clips to measure: those without pain for "baseline", all for "subject"; clips that the store
            lacks are left out.

    Returns:
        Subject -> scale.

    Raises:
        PainseqError: no frame of a subject's pain-free clips has a face.
    """
    scales = {}
    for subject in sorted(own):
        read = ((clip, stored_frames(streams, store, clip.clip_id)) for clip in own[subject] if clip.clip_id in store)
        rows = (rows_of(streams, stored, clip, root).float()[stored.present] for clip, stored in read)
        if normalise == "subject":
            scales[subject] = PersonScale.of(reduce(add, map(Moments.of, rows)))
            continue
        frames = list(rows)
        if not sum(map(len, frames)):
            names = [clip.clip_id for clip in own[subject]]
            raise PainseqError(
                f"Subject {subject} has no frame with a face in its baseline ({', '.join(names)}), so its "
                "features cannot be normalised. Leave the subject out, or set baseline_clips to another number."
            )
        scales[subject] = PersonScale.pain_free(torch.cat(frames))
    return scales
