"""Base class of all heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError


@dataclass(frozen=True)
class Rows:
    """All training or validation data, on the CPU, for heads that are not fitted by gradients.

    Args:
        x: float; (N, *F) with one real frame per row for frame heads; (N, T, *F) with one clip per row for video heads,
            shorter clips padded with zeros.
        mask: bool, true for real frames; (N,), all true, for frame heads, (N, T) for video heads.
        target: (N,) int64 class indices; for the loss "mse" float shares of the scale, as the head's output.
        weights: (N,) weight of each row.
    """

    x: Tensor
    mask: Tensor
    target: Tensor
    weights: Tensor


class Head(nn.Module):
    """Maps the frames of clips to class logits.

    A head stores every argument of its `__init__` as an attribute of the same name, so that a checkpoint can record it.

    Args:
        in_shape: shape F of one frame's features: (D,) pooled, (C, H, W) for pixels.
        num_classes: number of classes K.
    """

    level: Literal["frame", "video"]
    """Whether `forward` returns logits for each frame or for the clip."""
    fitted_by_gradients: bool = True
    """Whether an optimizer fits the head; if false, `fit_rows` does, and stores the result in the state dict."""

    in_shape: tuple[int, ...]
    num_classes: int
    max_frames: int | None = None
    """Largest number of frames of a clip; None for no limit."""
    streams: Mapping[str, int | None] | None = None
    """Names of separate streams, in order -> expected width (None: any); None if streams are not distinguished."""
    steps: bool = False
    """Whether `step` can read a clip one frame at a time, with the same result as `forward`."""
    attends_to: frozenset[Literal["frames", "pixels"]] = frozenset()
    """Attention that can be read: "frames" for `frame_attention`, "pixels" for `pixel_attention`."""

    def __init__(self, in_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)
        self.num_classes = num_classes

    @property
    def name(self) -> str:
        """Name of the head in messages and reports."""
        return type(self).__name__

    def pooled_shape(self) -> tuple[int]:
        """Return `in_shape` of a head that needs one vector per frame.

        Raises:
            PainseqError: frames are feature maps or pixels.
        """
        if len(self.in_shape) != 1:
            raise PainseqError(
                f"{self.name} needs one vector per frame, but the frames have shape {self.in_shape}. "
                "Use an extractor that pools."
            )
        return (self.in_shape[0],)

    def fit_rows(self, train: Rows, validation: Rows | None) -> None:
        """Fit the head to all rows at once; for heads that are not fitted by gradients.

        Args:
            train: rows with a label.
            validation: rows for choosing settings, not for fitting; None without validation subjects.
        """
        raise NotImplementedError(f"{self.name} is fitted by gradients.")

    def training_mean(self) -> Tensor | None:
        """Return the mean of each column over the real frames of the training data, (D,); None if it is not kept."""
        return None

    @property
    def last(self) -> nn.Linear:
        """Return the layer that turns penultimate features into the output.

        Raises:
            PainseqError: the head has no such layer.
        """
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        if not layers or not self.fitted_by_gradients:
            raise PainseqError(f"{self.name} has no last dense layer. Use a head that is fitted by gradients.")
        return layers[-1]

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return what the last layer takes: `forward` is `last(penultimate(x, mask))`.

        Args:
            x: (B, T, *F), as for `forward`.
            mask: (B, T) bool.

        Returns:
            (B, T, P) if `level` is "frame", (B, P) if it is "video", with P = `last.in_features`.
        """
        raise PainseqError(f"{self.name} has no penultimate features. Use another head.")

    def start(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Initialise with the weights of another network, before training.

        Copies tensors with the same name and shape; other weights are unchanged. Heads that can start from networks
        with other names translate the names here.

        Args:
            tensors: name -> tensor of the other network.

        Returns:
            Names of this head's tensors that were copied.
        """
        weights = self.state_dict()
        copied = [name for name, value in weights.items() if name in tensors and tensors[name].shape == value.shape]
        with torch.no_grad():
            for name in copied:
                weights[name].copy_(tensors[name])
        return copied

    def frame_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention to each frame, for explanations; heads with "frames" in `attends_to` implement it.

        Args:
            x: (B, T, *F), as for `forward`.
            mask: (B, T) bool.

        Returns:
            (B, T) float; sums to 1 over a clip's real frames, 0 for other frames.
        """
        raise NotImplementedError(f"{self.name} has no attention over time.")

    def pixel_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention to each pixel, for explanations; heads with "pixels" in `attends_to` implement it.

        Args:
            x: (B, T, 3, S, S), as for `forward`.
            mask: (B, T) bool.

        Returns:
            (B, T, S, S) float, at least 0; sums to at most 1 over a clip.
        """
        raise NotImplementedError(f"{self.name} has no attention over pixels.")

    def first_state(self, batch: int) -> dict[str, Tensor]:
        """Return the state before the first frame, all zeros: name -> (batch, ...); for heads with `steps`."""
        raise NotImplementedError(f"{self.name} reads whole clips only.")

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Read the next real frame of each clip, for video heads with `steps`, in eval mode.

        Frames without a face are left out, as `forward` does.

        Args:
            x: (B, *F) float.
            state: as `first_state` or the last call returned it.

        Returns:
            (B, K) logits of the clips up to this frame, and the next state.
        """
        raise NotImplementedError(f"{self.name} reads whole clips only.")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits of a batch of clips.

        Args:
            x: (B, T, *F) float frames; the content of masked frames must not affect the result.
            mask: (B, T) bool, true for real frames; false for padding and for frames without a face, which can be in
                the middle of a clip.

        Returns:
            (B, T, K) if `level` is "frame", (B, K) if it is "video".
        """
        raise NotImplementedError
