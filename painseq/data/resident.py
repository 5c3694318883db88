"""Clips as features held in memory, from which whole batches are gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from painseq.batch import Batch, Sample
from painseq.data.datasets import FrameWindow, frame_name, nothing_in, split_readable, target_of
from painseq.data.labels import LabelScheme
from painseq.data.streams import Stream, rows_of
from painseq.errors import PainseqError
from painseq.features import FeatureStore, NpzFolder
from painseq.records import UNKNOWN, Clip


@dataclass(frozen=True)
class Resident:
    """The frames of many clips, one behind the other, on one device.

    Args:
        frames: (N + 1, *F); the last row is zero, and padding points at it.
        present: (N + 1,) bool, false in the last row.
        times_s: (N + 1,) float64.
        copies: device -> the same there. So parts and folds that share frames share their copy on a device too.
    """

    frames: Tensor
    present: Tensor
    times_s: Tensor
    copies: dict[torch.device, Resident] = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device | str) -> Resident:
        """The same on another device; asked twice, no second copy is made."""
        device = torch.device(device)
        if device not in self.copies:
            self.copies[device] = Resident(self.frames.to(device), self.present.to(device), self.times_s.to(device))
        return self.copies[device]


class ResidentClips(Dataset[Sample]):
    """Features of clips, held in memory as one tensor from which whole batches are gathered.

    Features of a whole data set fit in memory or on one device (BioVid: 2.5 GB), and reading them once beats any number
    of loader processes.

    Args:
        items: clip, first row and number of rows of each item: a whole clip, or a single frame of one.
        resident: the rows.
        scheme: from labels to targets.
        left_out: clips that the store counts as failed.
        names: what each item is called; None: its clip's id.
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
        kind = torch.int64 if scheme.scale is None else torch.float32
        self.target = torch.tensor([target_of(clip, scheme) for clip in self.clips], dtype=kind)

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
        """The same clips with their frames on a device."""
        if self.resident.frames.device == torch.device(device):
            return self
        return ResidentClips(self.items, self.resident.to(device), self.scheme, self.left_out, self.names)

    def only(self, indices: Sequence[int]) -> ResidentClips:
        """Some of the items, in this order; the frames are shared, so this is cheap."""
        items, names = [self.items[index] for index in indices], [self.names[index] for index in indices]
        return ResidentClips(items, self.resident, self.scheme, self.left_out, names)

    def of_clips(self, clips: Sequence[Clip]) -> ResidentClips:
        """The items of these clips, with the labels that these have; the frames are shared, so this is cheap.

        Args:
            clips: among those that were read, or left out as failed; their labels may be others.
        """
        chosen = {clip.clip_id: clip for clip in clips}
        kept = [index for index, clip in enumerate(self.clips) if clip.clip_id in chosen]
        items = [(chosen[clip.clip_id], first, length) for clip, first, length in (self.items[i] for i in kept)]
        left_out = [clip_id for clip_id in self.left_out if clip_id in chosen]
        return ResidentClips(items, self.resident, self.scheme, left_out, [self.names[index] for index in kept])

    def with_a_face(self) -> list[int]:
        """Items that can be learned from: with a known label and a real frame."""
        present = self.resident.present.cpu()
        return [
            index
            for index, (_, first, length) in enumerate(self.items)
            if self.target[index] != UNKNOWN and bool(present[first : first + length].any())
        ]

    def batch(self, indices: Sequence[int], real: Sequence[bool] | None = None) -> Batch:
        """Gather a batch on the device of the frames; nothing on the host waits for it.

        Args:
            real: false for an item that merely fills up the batch: it has no frame.
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
    baseline: Mapping[str, Sequence[Clip]] | None = None,
) -> ResidentClips:
    """Read the features of clips into memory.

    Args:
        streams: what stands in each row, side by side.
        root: folder that the clips' videos lie in.
        baseline: subject -> clips of that subject without pain, whose mean frame is subtracted from the subject's
            frames; None: features as they are.

    Raises:
        PainseqError: clips that the store lacks; a subject's baseline without a frame with a face.
    """
    readable, left_out = split_readable(clips, store)
    counts = [store.num_frames(clip.clip_id) for clip in readable]
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if readable else 0
    subjects = {clip.subject_id for clip in readable}
    neutral = {} if baseline is None else _neutral(subjects, store, streams, root, baseline)
    frames: Tensor | None = None
    present, times_s = torch.zeros(total + 1, dtype=torch.bool), torch.zeros(total + 1, dtype=torch.float64)
    items = []
    for clip, count, end in zip(readable, counts, ends.tolist(), strict=True):
        stored = store[clip.clip_id]
        x = rows_of(streams, stored, clip, root)
        if baseline is not None:
            x = torch.where(stored.present[:, None], x.float() - neutral[clip.subject_id], 0.0)
        if frames is None:
            frames = torch.zeros((total + 1, *x.shape[1:]), dtype=x.dtype)
        rows = slice(end - count, end)
        frames[rows], present[rows], times_s[rows] = x, stored.present, stored.times_s
        items.append((clip, end - count, count))
    resident = Resident(torch.zeros((1, *store.out_shape)) if frames is None else frames, present, times_s)
    return ResidentClips(items, resident, scheme, left_out)


def single_frames(clips: ResidentClips, window: FrameWindow) -> ResidentClips:
    """Every frame with a face within a window of each clip, as a clip of one frame.

    Raises:
        PainseqError: no such frame.
    """
    present, times_s = clips.resident.present, clips.resident.times_s
    items, names = [], []
    for clip, first, length in clips.items:
        for row in range(first, first + length):
            moment = float(times_s[row])
            if bool(present[row]) and window.from_s <= moment < window.to_s:
                items.append((clip, row, 1))
                names.append(frame_name(clip, moment))
    if clips.items and not items:
        raise nothing_in(window)
    return ResidentClips(items, clips.resident, clips.scheme, clips.left_out, names)


def _neutral(
    subjects: set[str],
    store: FeatureStore | NpzFolder,
    streams: Sequence[Stream],
    root: Path,
    baseline: Mapping[str, Sequence[Clip]],
) -> dict[str, Tensor]:
    neutral = {}
    for subject in sorted(subjects):
        calm = [(clip, store[clip.clip_id]) for clip in baseline[subject] if clip.clip_id in store]
        frames = [rows_of(streams, stored, clip, root).float()[stored.present] for clip, stored in calm]
        if not sum(len(part) for part in frames):
            names = [clip.clip_id for clip in baseline[subject]]
            raise PainseqError(
                f"Subject {subject} has no frame with a face in its baseline ({', '.join(names)}), so its "
                "features cannot be normalised. Leave the subject out, or set baseline_clips to another number."
            )
        neutral[subject] = torch.cat(frames).mean(dim=0)
    return neutral
