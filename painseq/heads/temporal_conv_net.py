"""Non-causal temporal convolutional network after Bai et al. 2018."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from painseq.batch import masked_mean
from painseq.heads.head import Head


class _Layer(nn.Module):
    """Dilated convolution over time, layer norm of each frame, ReLU, dropout; frames outside the mask are zeros."""

    def __init__(self, channels: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel, dilation=dilation, padding="same")
        self.finish = nn.Sequential(nn.LayerNorm(channels), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.finish(self.conv((x * mask[..., None]).transpose(1, 2)).transpose(1, 2))
        return out


class TemporalConvNet(Head):
    """Residual blocks of two dilated convolutions over time, mean over real frames, classes.

    Bai, Kolter and Koltun 2018, "An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling": block i has dilation 2^i. With kernel 3 and 6 blocks, a frame sees 126 frames on each side.

    Deviations: not causal, since the whole clip is known; layer norm of each frame instead of weight norm; a linear
    layer maps frames to `channels` first.

    Frames keep their position in time: frames without a face are zeros, like the padding around the clip.

    Args:
        channels: channels of the convolutions.
        blocks: number of residual blocks.
        kernel: kernel size in frames.
        dropout: after each convolution.
    """

    level: Literal["frame", "video"] = "video"

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        channels: int = 64,
        blocks: int = 6,
        kernel: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(in_shape, num_classes)
        self.channels = channels
        self.blocks = blocks
        self.kernel = kernel
        self.dropout = dropout
        (width,) = self.pooled_shape()
        self.enter = nn.Sequential(nn.Linear(width, channels), nn.LayerNorm(channels))
        self.first, self.second = (
            nn.ModuleList(_Layer(channels, kernel, 2**block, dropout) for block in range(blocks)) for _ in range(2)
        )
        self.classify = nn.Linear(channels, num_classes)

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, P); see `Head.penultimate`."""
        x = self.enter(x.masked_fill(~mask[..., None], 0.0))
        for first, second in zip(self.first, self.second, strict=True):
            x = (x + second(first(x, mask), mask)).relu()
        return masked_mean(x, mask)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to video logits (B, K)."""
        logits: Tensor = self.classify(self.penultimate(x, mask))
        return logits
