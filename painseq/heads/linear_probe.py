"""Linear layer on the mean of a clip's features: the baseline for all other heads."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from painseq.batch import masked_mean
from painseq.heads.head import Head
from painseq.heads.masked_norm import MaskedBatchNorm


class LinearProbe(Head):
    """Mean of the real frames' features, batch norm, one linear layer.

    It uses neither the order of frames nor single frames, only the mean of the features.
    """

    level: Literal["frame", "video"] = "video"

    def __init__(self, in_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(in_shape, num_classes)
        (width,) = self.pooled_shape()
        self.norm = MaskedBatchNorm(width)
        self.classify = nn.Linear(width, num_classes)

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, P); see `Head.penultimate`."""
        features: Tensor = self.norm(masked_mean(x, mask), mask.any(dim=1))
        return features

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to video logits (B, K)."""
        logits: Tensor = self.classify(self.penultimate(x, mask))
        return logits
