"""A linear layer on each frame: the head under which a CNN is trained on single frames."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from painseq.heads.head import Head


class LinearFrames(Head):
    """One linear layer from a frame's features to its class logits.

    With clips of one frame and a trainable extractor this is the prediction layer of the heat-pain CNN
    (Prajod et al. 2022); afterwards the extractor is used on its own.
    """

    level: ClassVar[Literal["frame", "video"]] = "frame"

    def __init__(self, in_shape: tuple[int, ...], num_classes: int, dropout: float = 0.0) -> None:
        super().__init__(in_shape, num_classes)
        self.dropout = dropout
        (width,) = self.pooled_shape()
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to frame logits (B, T, K); a frame's logits depend on that frame alone."""
        # Zeros: where nothing flows back from a NaN, the weights' gradient, 0 x NaN, is NaN still.
        logits: Tensor = self.layers(x.masked_fill(~mask[..., None], 0.0))
        return logits
