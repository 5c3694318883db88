"""Clips as tensors: `Sample`, `Batch`, and reductions over real frames only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One clip.

    Args:
        present: (T,) bool, false for a frame without a face.
        target: class index, or number on a scale; `UNKNOWN` if the label is hidden.
        video: (T, C, H, W) uint8 crops; exactly one of `video` and `features` is given.
        features: (T, *F) float.
        times_s: (T,) float64, seconds from the clip's start.
        extra: (T, E) float, streams that accompany crops, such as landmarks; they are appended to the extracted
            features. `features` already contain theirs.
    """

    clip_id: str
    subject_id: str
    target: float
    present: Tensor
    times_s: Tensor
    video: Tensor | None = None
    features: Tensor | None = None
    extra: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.video is None) == (self.features is None):
            raise ValueError(f"Clip {self.clip_id}: a sample holds either video or features.")
        if self.extra is not None and self.video is None:
            raise ValueError(f"Clip {self.clip_id}: `extra` goes with video; features already contain every stream.")
        if len(self.x) != len(self.present):
            raise ValueError(f"Clip {self.clip_id}: {len(self.x)} frames but {len(self.present)} in `present`.")

    @property
    def x(self) -> Tensor:
        """The frames: `video` or `features`, whichever is set."""
        frames = self.video if self.features is None else self.features
        assert frames is not None
        return frames


@dataclass(frozen=True)
class Batch:
    """Clips stacked, zero-padded at the end.

    Args:
        mask: (B, T) bool, true for a real frame: not padding, and with a face.
        target: (B,) int64 class indices, or float32 numbers on a scale.
        video: (B, T, C, H, W) uint8, or None.
        features: (B, T, *F) float, or None.
        lengths: (B,) int64 frames of each clip, including those without a face, excluding padding.
        times_s: (B, T) float64.
        extra: (B, T, E) float, only with `video`, or None.
    """

    clip_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    target: Tensor
    mask: Tensor
    lengths: Tensor
    times_s: Tensor
    video: Tensor | None = None
    features: Tensor | None = None
    extra: Tensor | None = None

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def x(self) -> Tensor:
        """The frames: `video` or `features`, whichever is set."""
        frames = self.video if self.features is None else self.features
        assert frames is not None
        return frames

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        return replace(
            self,
            target=self.target.to(device, non_blocking=non_blocking),
            mask=self.mask.to(device, non_blocking=non_blocking),
            lengths=self.lengths.to(device, non_blocking=non_blocking),
            times_s=self.times_s.to(device, non_blocking=non_blocking),
            video=move(self.video),
            features=move(self.features),
            extra=move(self.extra),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack clips of different lengths; shorter ones are zero-padded and masked."""

    def pad(tensors: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)

    pixels = samples[0].video is not None
    frames = pad([sample.x for sample in samples])
    return Batch(
        clip_ids=tuple(sample.clip_id for sample in samples),
        subject_ids=tuple(sample.subject_id for sample in samples),
        target=torch.tensor([sample.target for sample in samples]),
        mask=pad([sample.present for sample in samples]),
        lengths=torch.tensor([len(sample.present) for sample in samples]),
        times_s=pad([sample.times_s for sample in samples]),
        video=frames if pixels else None,
        features=None if pixels else frames,
        extra=pad([sample.extra for sample in samples if sample.extra is not None])
        if samples[0].extra is not None
        else None,
    )


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average (B, T, ...) over time where `mask` (B, T) is true; 0 for a clip without a real frame."""
    weights = mask.reshape(*mask.shape, *[1] * (x.ndim - 2))
    total = torch.where(weights, x, torch.zeros((), dtype=x.dtype, device=x.device)).sum(dim=1)
    return total / weights.sum(dim=1).clamp(min=1)


def real_frames_first(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the real frames of each clip to its start, in order; the rest becomes zero.

    Recurrent heads read clips this way, so that gaps without a face are skipped.

    Returns:
        x (B, T, ...) reordered, and the number of real frames, (B,) int64.
    """
    time = torch.arange(mask.shape[1], device=mask.device)
    # Keys without ties: ONNX has no stable sort.
    order = torch.where(mask, time, time + mask.shape[1]).argsort(dim=1)
    index = order.reshape(*order.shape, *[1] * (x.ndim - 2)).expand_as(x)
    lengths = mask.sum(dim=1)
    real = time < lengths[:, None]
    real = real.reshape(*real.shape, *[1] * (x.ndim - 2))
    return torch.where(real, x.gather(1, index), torch.zeros((), dtype=x.dtype, device=x.device)), lengths
