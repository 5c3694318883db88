"""Normalisation of features by person: relative to frames without pain, or standardised over all of the person's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from painseq.data.datasets import target_of
from painseq.data.labels import LabelScheme
from painseq.data.person_scale import PersonScale
from painseq.data.streams import Stream, rows_of, stored_frames
from painseq.errors import PainseqError
from painseq.features import FeatureStore, NpzFolder
from painseq.moments import Moments
from painseq.records import Clip, Manifest, Part

Normalise = Literal["none", "subject", "baseline"]


def scaled(scale: PersonScale, rows: Tensor, present: Tensor) -> Tensor:
    """Return what `PersonScale.apply` does, of tensors on any device and with a gradient."""
    mean, sd = (torch.from_numpy(column).to(rows.device) for column in (scale.mean, scale.sd))
    return torch.where(present[..., None], (rows.float() - mean) / sd, 0.0)


def baseline_clips(manifest: Manifest, scheme: LabelScheme, count: int) -> dict[str, list[Clip]]:
    """Return subject -> pain-free clips that are set aside: the first `count` by clip id.

    Raises:
        PainseqError: it is not known which label is no pain.
    """
    baseline: dict[str, list[Clip]] = {}
    if count:
        if not scheme.ordered:
            raise PainseqError(
                f"normalise is baseline, but it is not known which of the labels {', '.join(scheme.class_names)} is no "
                "pain. List them in --data.classes, in order of pain."
            )
        for clip in sorted(manifest, key=lambda clip: clip.clip_id):
            kept = baseline.setdefault(clip.subject_id, [])
            if target_of(clip, scheme) == 0 and len(kept) < count:
                kept.append(clip)
    return baseline


def check_baseline(
    baseline: Mapping[str, Sequence[Clip]], subjects: Sequence[str], count: int, part: Part, scheme: LabelScheme
) -> None:
    """Check that the subjects of a part have the clips that normalise them.

    Raises:
        PainseqError: a subject has fewer than `count`.
    """
    lacking = [subject for subject in subjects if len(baseline.get(subject, ())) < count]
    if lacking:
        raise PainseqError(
            f"{len(lacking)} of {len(subjects)} subjects of {part}, such as {lacking[0]}, have fewer than {count} "
            f"clips labelled {scheme.pain_free}, so they have no baseline. Lower baseline_clips, or choose another "
            "normalise."
        )


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
            scales[subject] = PersonScale.of(reduce(add, (Moments.of(part.numpy()) for part in rows)))
            continue
        frames = list(rows)
        if not sum(map(len, frames)):
            names = [clip.clip_id for clip in own[subject]]
            raise PainseqError(
                f"Subject {subject} has no frame with a face in its baseline ({', '.join(names)}), so its "
                "features cannot be normalised. Leave the subject out, or set baseline_clips to another number."
            )
        scales[subject] = PersonScale.pain_free(torch.cat(frames).numpy())
    return scales
