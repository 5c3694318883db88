"""Datasets of features held in memory, from which whole batches are gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from painseq.batch import Batch, Sample
from painseq.data.datasets import FrameWindow, empty_window, frame_name, split_readable, target_of
from painseq.data.labels import LabelScheme
from painseq.data.normalisation import scaled
from painseq.data.person_scale import PersonScale
from painseq.data.streams import Stream, rows_of, stored_frames
from painseq.features import FeatureStore, NpzFolder
from painseq.records import UNKNOWN, Clip


@dataclass(frozen=True)
class Resident:
    """The frames of many clips, concatenated, on one device.

    Args:
        frames: (N + 1, *F); the last row is zero and serves as padding.
        present: (N + 1,) bool, whether a frame has a face; false in the last row.
        times_s: (N + 1,) float64, seconds.
        copies: device -> copy on that device, so that parts and folds share it.
    """

    frames: Tensor
    present: Tensor
    times_s: Tensor
    copies: dict[torch.device, Resident] = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device | str) -> Resident:
        """Return the copy on a device, made once."""
        device = torch.device(device)
        if device not in self.copies:
            self.copies[device] = Resident(self.frames.to(device), self.present.to(device), self.times_s.to(device))
        return self.copies[device]


class ResidentClips(Dataset[Sample]):
    """Features of clips, held in memory as one tensor from which whole batches are gathered.

    Features of a whole data set fit in memory or on one device (BioVid: 2.5 GB), and reading them once is faster than
    loader processes.

    Args:
        items: clip, first row and number of rows of each item: a whole clip, or a single frame of a clip.
        resident: the rows.
        scheme: the label scheme.
        left_out: ids of clips whose extraction failed.
        names: id of each item; None: its clip's id.
    """

    def __init__(
        self,
        items: Sequence[tuple[Clip, int, int]],
        resident: Resident,
        scheme: LabelScheme,
        left_out: Sequence[str] = (),
        names: Sequence[str] | None = None,
    ) -> None:
        self.items = list(items)
        self.resident = resident
        self.scheme = scheme
        self.left_out = list(left_out)
        self.names = [clip.clip_id for clip, _, _ in items] if names is None else list(names)
        self.clips = tuple(clip for clip, _, _ in items)
        self.first = torch.tensor([first for _, first, _ in items], dtype=torch.int64)
        self.lengths = torch.tensor([length for _, _, length in items], dtype=torch.int64)
        dtype = torch.float32 if scheme.predicts_values else torch.int64
        self.target = torch.tensor([target_of(clip, scheme) for clip in self.clips], dtype=dtype)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        _, first, length = self.items[index]
        rows = slice(first, first + length)
        return Sample(
            clip_id=self.names[index],
            subject_id=self.clips[index].subject_id,
            target=self.target[index].item(),
            present=self.resident.present[rows],
            times_s=self.resident.times_s[rows],
            features=self.resident.frames[rows],
        )

    def to(self, device: torch.device | str) -> ResidentClips:
        """Return the same clips with their frames on a device."""
        if self.resident.frames.device == torch.device(device):
            return self
        return ResidentClips(self.items, self.resident.to(device), self.scheme, self.left_out, self.names)

    def only(self, indices: Sequence[int]) -> ResidentClips:
        """Return some of the items, in this order; the frames are shared, not copied."""
        items, names = [self.items[index] for index in indices], [self.names[index] for index in indices]
        return ResidentClips(items, self.resident, self.scheme, self.left_out, names)

    def of_clips(self, clips: Sequence[Clip]) -> ResidentClips:
        """Return the items of these clips, with the labels given here; the frames are shared, not copied.

        Args:
            clips: clips that were read or left out as failed; their labels may differ from the ones here.
        """
        chosen = {clip.clip_id: clip for clip in clips}
        kept = [index for index, clip in enumerate(self.clips) if clip.clip_id in chosen]
        items = [(chosen[clip.clip_id], first, length) for clip, first, length in (self.items[i] for i in kept)]
        left_out = [clip_id for clip_id in self.left_out if clip_id in chosen]
        return ResidentClips(items, self.resident, self.scheme, left_out, [self.names[index] for index in kept])

    def with_a_face(self) -> list[int]:
        """Return the numbers of the items with a known label and a frame with a face."""
        present = self.resident.present.cpu()
        return [
            index
            for index, (_, first, length) in enumerate(self.items)
            if self.target[index] != UNKNOWN and bool(present[first : first + length].any())
        ]

    def batch(self, indices: Sequence[int], real: Sequence[bool] | None = None) -> Batch:
        """Gather a batch on the device of the frames, without synchronising with the host.

        Args:
            indices: numbers of the items.
            real: false for an item that only pads the batch, whose frames are all masked; None: all true.
        """
        chosen = torch.tensor(indices)
        lengths = self.lengths[chosen] if real is None else self.lengths[chosen] * torch.tensor(real)
        steps = torch.arange(max(1, int(lengths.max())))
        inside = steps < lengths[:, None]
        rows = torch.where(inside, self.first[chosen, None] + steps, len(self.resident.present) - 1)
        device = self.resident.frames.device
        flat, shape = rows.flatten().to(device, non_blocking=True), tuple(rows.shape)
        frames = self.resident.frames.index_select(0, flat)
        return Batch(
            clip_ids=tuple(self.names[index] for index in indices),
            subject_ids=tuple(self.clips[index].subject_id for index in indices),
            target=self.target[chosen].to(device, non_blocking=True),
            mask=self.resident.present.index_select(0, flat).reshape(shape),
            lengths=lengths.to(device, non_blocking=True),
            times_s=self.resident.times_s.index_select(0, flat).reshape(shape),
            features=frames.reshape(*shape, *frames.shape[1:]),
        )


def resident_clips(
    clips: Sequence[Clip],
    scheme: LabelScheme,
    store: FeatureStore | NpzFolder,
    streams: Sequence[Stream],
    root: Path,
    scales: Mapping[str, PersonScale] | None = None,
) -> ResidentClips:
    """Read the features of clips into memory.

    Args:
        clips: the clips to read.
        scheme: the label scheme.
        store: the store of their frames.
        streams: the streams of each row, concatenated.
        root: folder of the clips' videos.
        scales: subject -> what the subject's frames are normalised by; None: features unchanged.

    Raises:
        PainseqError: the store lacks clips.
    """
    readable, left_out = split_readable(clips, store)
    counts = [store.num_frames(clip.clip_id) for clip in readable]
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if readable else 0
    frames: Tensor | None = None
    present, times_s = torch.zeros(total + 1, dtype=torch.bool), torch.zeros(total + 1, dtype=torch.float64)
    items = []
    for clip, count, end in zip(readable, counts, ends.tolist(), strict=True):
        stored = stored_frames(streams, store, clip.clip_id)
        x = rows_of(streams, stored, clip, root)
        if scales is not None:
            x = scaled(scales[clip.subject_id], x, stored.present)
        if frames is None:
            frames = torch.zeros((total + 1, *x.shape[1:]), dtype=x.dtype)
        rows = slice(end - count, end)
        frames[rows], present[rows], times_s[rows] = x, stored.present, stored.times_s
        items.append((clip, end - count, count))
    resident = Resident(torch.zeros((1, *store.out_shape)) if frames is None else frames, present, times_s)
    return ResidentClips(items, resident, scheme, left_out)


def single_frames(clips: ResidentClips, window: FrameWindow) -> ResidentClips:
    """Return every frame with a face in a time window of each clip, as a clip of one frame.

    Raises:
        PainseqError: there is no such frame.
    """
    present, times_s = clips.resident.present, clips.resident.times_s
    items, names = [], []
    for clip, first, length in clips.items:
        for row in range(first, first + length):
            time_s = float(times_s[row])
            if bool(present[row]) and window.from_s <= time_s < window.to_s:
                items.append((clip, row, 1))
                names.append(frame_name(clip, time_s))
    if clips.items and not items:
        raise empty_window(window)
    return ResidentClips(items, clips.resident, clips.scheme, clips.left_out, names)
