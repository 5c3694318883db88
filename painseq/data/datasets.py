"""Datasets of crops: read from a store of crops, or from the videos."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from painseq.batch import Sample
from painseq.data.augment import Augment
from painseq.data.labels import LabelScheme
from painseq.data.streams import Stream, mirrored, rows_of, stored_frames
from painseq.errors import CLIP_FAILURES, PainseqError, reason_of
from painseq.extractors import Pixels
from painseq.faces import FaceCrops
from painseq.features import ClipFeatures, FeatureStore, NpzFolder, VideoSpan, clip_features
from painseq.records import UNKNOWN, Clip, Manifest

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class FrameWindow:
    """Use single frames as clips: every frame with a face in this time window of a clip becomes an item.

    Args:
        from_s: seconds from the clip's start, inclusive.
        to_s: seconds from the clip's start, exclusive.
    """

    from_s: float
    to_s: float


class StoredCrops(Dataset[Sample]):
    """Clips as samples of crops, read from a store on access: crops do not fit in memory.

    Args:
        extra: streams in addition to the crops.
        root: folder of the clips' videos.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        scheme: LabelScheme,
        store: FeatureStore | NpzFolder,
        extra: Sequence[Stream] = (),
        root: Path = Path(),
    ) -> None:
        self.clips, self.left_out = split_readable(clips, store)
        self.scheme = scheme
        self.store = store
        self.extra = tuple(extra)
        self.root = root

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index]
        stored = stored_frames(self.extra, self.store, clip.clip_id)
        return crops_of(clip, self.scheme, stored, self.extra, self.root)


class VideoClips(Dataset[Sample]):
    """Clips as samples of crops, cut from the videos on each access.

    A clip that cannot be read is a sample of one frame without a face, whose time is NaN; its reason is logged. If the
    first ten cannot be read, the last error is raised.
    """

    _most_failures = 10

    def __init__(
        self,
        manifest: Manifest,
        scheme: LabelScheme,
        face: FaceCrops,
        fps: float | None,
        extra: Sequence[Stream] = (),
    ) -> None:
        self.clips = manifest.clips
        self.manifest = manifest
        self.scheme = scheme
        self.face = face
        self.fps = fps
        self.extra = tuple(extra)
        self.left_out: list[str] = []
        self._readable = 0
        self._unreadable = 0

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index]
        span = VideoSpan(self.manifest.path(clip), clip.start_s, clip.end_s, self.fps, clip.fps)
        try:
            crops = clip_features(Pixels(self.face.size_px), self.face, span, "cpu")
        except CLIP_FAILURES as error:
            log.warning("%s cannot be read: %s", clip.clip_id, reason_of(error))
            self._unreadable += 1
            if not self._readable and self._unreadable >= self._most_failures:
                raise
            return self._without_frames(clip)
        self._readable += 1
        return crops_of(clip, self.scheme, crops, self.extra, self.manifest.root)

    def _without_frames(self, clip: Clip) -> Sample:
        return Sample(
            clip_id=clip.clip_id,
            subject_id=clip.subject_id,
            target=target_of(clip, self.scheme),
            present=torch.zeros(1, dtype=torch.bool),
            times_s=torch.full((1,), math.nan, dtype=torch.float64),
            video=torch.zeros((1, 3, self.face.size_px, self.face.size_px), dtype=torch.uint8),
            extra=torch.zeros((1, sum(stream.width for stream in self.extra))) if self.extra else None,
        )


class SingleCrops(Dataset[Sample]):
    """Single crops as clips of T = 1: every frame with a face in a time window of each clip."""

    def __init__(self, crops: StoredCrops, window: FrameWindow) -> None:
        self.source = crops
        self.left_out = crops.left_out
        self.scheme = crops.scheme
        self.extra = crops.extra
        self.items: list[tuple[Clip, int]] = []
        for clip in crops.clips:
            stored = stored_frames((), crops.store, clip.clip_id)
            inside = stored.present & (stored.times_s >= window.from_s) & (stored.times_s < window.to_s)
            self.items += [(clip, int(frame)) for frame in inside.nonzero()[:, 0]]
        if crops.clips and not self.items:
            raise empty_window(window)

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clip of each item."""
        return tuple(clip for clip, _ in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        clip, frame = self.items[index]
        stored = stored_frames(self.extra, self.source.store, clip.clip_id, frame, frame + 1)
        sample = crops_of(clip, self.scheme, stored, self.extra, self.source.root)
        return replace(sample, clip_id=frame_name(clip, float(stored.times_s[0])))


class Drawn(Dataset[Sample]):
    """Crops as sampled in training: each draw of a clip is augmented separately.

    Args:
        augment: the augmentation; None leaves the crops unchanged.
        seed: the augmentation of a draw depends only on this seed and on the number of the draw.
    """

    def __init__(
        self, crops: StoredCrops | VideoClips | SingleCrops, augment: Augment | None = None, seed: int = 0
    ) -> None:
        self.crops = crops
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, draw: tuple[int, int, bool]) -> Sample:
        number, item, real = draw
        sample = self.crops[item]
        if not real:
            return replace(sample, present=torch.zeros_like(sample.present))
        if self.augment is None or sample.video is None:
            return sample
        random = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        video, flipped = self.augment(sample.video, torch.Generator().manual_seed(random))
        extra = mirrored(self.crops.extra, sample.extra) if flipped and sample.extra is not None else sample.extra
        return replace(sample, video=video, extra=extra)


def split_readable(clips: Sequence[Clip], store: FeatureStore | NpzFolder) -> tuple[tuple[Clip, ...], list[str]]:
    """Return the clips that a store holds, and the ids of clips whose extraction failed.

    Raises:
        PainseqError: a clip is neither in the store nor failed.
    """
    left_out = [clip.clip_id for clip in clips if clip.clip_id in store.failed]
    readable = tuple(clip for clip in clips if clip.clip_id not in store.failed)
    missing = [clip.clip_id for clip in readable if clip.clip_id not in store]
    if missing:
        raise PainseqError(
            f"The store lacks {len(missing)} of {len(readable)} clips, such as {missing[0]!r}. "
            + (
                "Add their files; `painseq data check` lists all of them."
                if isinstance(store, NpzFolder)
                else "Run `painseq extract` again with the same data options to add them."
            )
        )
    return readable, left_out


def shuffled(clips: Sequence[Clip], seed: int) -> tuple[Clip, ...]:
    """Return the clips with their labels permuted within each subject."""
    labels: dict[str, list[str | None]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        labels[clip.subject_id].append(clip.label)
    for subject in sorted(labels):
        random = np.random.default_rng([seed, *subject.encode()])
        labels[subject] = [labels[subject][index] for index in random.permutation(len(labels[subject]))]
    moved = {clip.clip_id: labels[clip.subject_id].pop() for clip in sorted(clips, key=lambda clip: clip.clip_id)}
    return tuple(replace(clip, label=moved[clip.clip_id]) for clip in clips)


def target_of(clip: Clip, scheme: LabelScheme) -> float:
    """Return a clip's class index, or its number on the scale; `UNKNOWN` if its label is hidden."""
    target = scheme.target(clip.label)
    return UNKNOWN if target is None else target


def crops_of(
    clip: Clip,
    scheme: LabelScheme,
    stored: ClipFeatures,
    extra: Sequence[Stream] = (),
    root: Path = Path(),
) -> Sample:
    """Return the crops of a clip and its target, with the rows of the extra streams.

    Args:
        root: folder of the clip's video.
    """
    return Sample(
        clip_id=clip.clip_id,
        subject_id=clip.subject_id,
        target=target_of(clip, scheme),
        present=stored.present,
        times_s=stored.times_s,
        video=stored.features,
        extra=rows_of(extra, stored, clip, root) if extra else None,
    )


def frame_name(clip: Clip, time_s: float) -> str:
    """Return the id of a single frame of a clip."""
    return f"{clip.clip_id}@{time_s:.3f}"


def empty_window(window: FrameWindow) -> PainseqError:
    """Return the error for a window without single frames."""
    return PainseqError(
        f"No clip has a frame with a face between {window.from_s} s and {window.to_s} s. Set "
        "--data.options.frames to a time window within the clips."
    )
