"""What every head is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError


@dataclass(frozen=True)
class Rows:
    """What a head learns from that is not fitted by gradients: all of a part, on the CPU.

    Args:
        x: float; of a frame head (N, *F), each row a real frame; of a video head (N, T, *F), each row a clip, shorter
            ones padded with zeros.
        mask: bool, true for real frames; (N,), all true, of a frame head, (N, T) of a video head.
        target: (N,) int64 class indices; for the loss "mse" float shares of the scale, as the head's output is.
        weights: (N,) how much each row counts.
    """

    x: Tensor
    mask: Tensor
    target: Tensor
    weights: Tensor


class Head(nn.Module):
    """From a clip's frames to class logits.

    A head is built from `in_shape` (the shape F of one frame's features: (D,) pooled, (C, H, W) for pixels)
    and `num_classes`, and keeps every argument of its `__init__` as an attribute of that name, so that a
    checkpoint can record it.
    """

    level: ClassVar[Literal["frame", "video"]]
    """Whether `forward` gives a row of logits for each frame or one for the clip."""
    fitted_by_gradients: ClassVar[bool] = True
    """Whether an optimizer fits it; else `fit_rows` does, at once, and what it learns must be in the state dict."""

    in_shape: tuple[int, ...]
    num_classes: int
    max_frames: int | None = None
    """The longest clip that it takes, in frames; None: any."""
    streams: Mapping[str, int | None] | None = None
    """The streams that it tells apart, in order, and the width that it expects of each (None: any). None: all one."""
    attends_to: ClassVar[frozenset[Literal["frames", "pixels"]]] = frozenset()
    """What its attention can be read of: `frame_attention`, `pixel_attention`."""

    def __init__(self, in_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)
        self.num_classes = num_classes

    def pooled_shape(self) -> tuple[int]:
        """`in_shape` of a head that takes one vector a frame.

        Raises:
            PainseqError: the frames are maps or pixels.
        """
        if len(self.in_shape) != 1:
            raise PainseqError(
                f"{type(self).__name__} takes one vector a frame, but the frames here have shape {self.in_shape}. "
                "Put an extractor that pools before it."
            )
        return (self.in_shape[0],)

    def fit_rows(self, train: Rows, validation: Rows | None) -> None:
        """Learn from all rows at once; for heads that are not fitted by gradients.

        Args:
            train: with a label each.
            validation: to choose by, not to learn from; None where there is none.
        """
        raise NotImplementedError(f"{type(self).__name__} is fitted by gradients.")

    def start(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Take over the weights of another network, before training.

        Own tensors of the same name and shape are taken over; the others stay as they are. A head that can start from
        a network with other names translates them here.

        Returns:
            Names of the own tensors that were taken over.
        """
        own = self.state_dict()
        taken = [name for name, value in own.items() if name in tensors and tensors[name].shape == value.shape]
        with torch.no_grad():
            for name in taken:
                own[name].copy_(tensors[name])
        return taken

    def frame_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """How much the head attends to each frame, for explanations; a head with "frames" in `attends_to` has it.

        Args:
            x: (B, T, *F), as for `forward`.
            mask: (B, T) bool.

        Returns:
            (B, T) float, summing to 1 over a clip's real frames, 0 for the others.
        """
        raise NotImplementedError(f"{type(self).__name__} has no attention over time.")

    def pixel_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """How much the head attends to each pixel, for explanations; a head with "pixels" in `attends_to` has it.

        Args:
            x: (B, T, 3, S, S), as for `forward`.
            mask: (B, T) bool.

        Returns:
            (B, T, S, S) float, at least 0, summing to at most 1 over a clip.
        """
        raise NotImplementedError(f"{type(self).__name__} has no attention over pixels.")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits of a batch of clips.

        Args:
            x: (B, T, *F) frames, float; what stands in masked frames must not matter.
            mask: (B, T) bool, true for a real frame; false for padding and for frames without a face, which
                can lie in the middle of a clip.

        Returns:
            (B, T, K) where `level` is "frame", (B, K) where it is "video".
        """
        raise NotImplementedError
