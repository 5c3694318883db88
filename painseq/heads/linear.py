"""Linear layer on each frame, for training a CNN on single frames."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from painseq.heads.head import Head


class LinearFrames(Head):
    """One linear layer from a frame's features to its class logits.

    With clips of one frame and a trainable extractor, it is the prediction layer of the heat-pain CNN (Prajod et al.
    2022). After training, the extractor is used without it.

    Args:
        dropout: before the linear layer.
    """

    level: Literal["frame", "video"] = "frame"

    def __init__(self, in_shape: tuple[int, ...], num_classes: int, dropout: float = 0.0) -> None:
        super().__init__(in_shape, num_classes)
        self.dropout = dropout
        (width,) = self.pooled_shape()
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, T, P); see `Head.penultimate`."""
        # Zeros, as NaN in masked frames would make the gradient of the weights NaN (0 x NaN).
        features: Tensor = self.layers[:-1](x.masked_fill(~mask[..., None], 0.0))
        return features

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to frame logits (B, T, K); a frame's logits depend only on that frame."""
        logits: Tensor = self.layers[-1](self.penultimate(x, mask))
        return logits
