"""LSTM of any depth, in one or both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from painseq.batch import real_frames_first
from painseq.heads.head import Head
from painseq.heads.initialisation import Init, initialise
from painseq.heads.masked_norm import MaskedBatchNorm
from painseq.heads.recurrent import ClipLSTM


class StackedLSTM(Head):
    """Batch norm, `layers` LSTM layers of `units` per direction, dropout, classes.

    The final output of each direction is classified: forward at the last real frame, backward at the first. Frames
    without a face are left out instead of set to zero. `LSTM` is the fixed network of Prajod et al. 2024.

    Args:
        units: units per layer and direction.
        layers: number of layers.
        bidirectional: whether to read clips in both directions.
        dropout: between layers and before the classification layer.
        init: draw the initial weights as "torch" or "keras" does by default, see `painseq.heads.initialisation`.
    """

    level: Literal["frame", "video"] = "video"

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        units: int = 64,
        layers: int = 2,
        bidirectional: bool = True,
        dropout: float = 0.3,
        init: Init = "torch",
    ) -> None:
        super().__init__(in_shape, num_classes)
        self.units = units
        self.layers = layers
        self.bidirectional = bidirectional
        self.steps = not bidirectional
        self.dropout = dropout
        self.init = init
        (width,) = self.pooled_shape()
        self.norm = MaskedBatchNorm(width)
        self.lstm = ClipLSTM(width, units, layers, bidirectional, dropout)
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.lstm.out_width, num_classes))
        initialise(self, init)

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, P); see `Head.penultimate`."""
        x, lengths = real_frames_first(x, mask)
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        out = self.lstm(self.norm(x, mask), mask)
        features: Tensor = self.classify[:-1](self.lstm.ends(out, mask))
        return features

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to video logits (B, K)."""
        logits: Tensor = self.classify[-1](self.penultimate(x, mask))
        return logits

    def first_state(self, batch: int) -> dict[str, Tensor]:
        """See `Head.first_state`; with one direction only."""
        if not self.steps:
            return super().first_state(batch)
        zeros = self.norm.weight.new_zeros((batch, self.units))
        return {f"{part}_{layer}": zeros for layer in range(self.layers) for part in "hc"}

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Head.step`; with one direction only."""
        if not self.steps:
            return super().step(x, state)
        out, following = self.lstm.step(self.norm(x, torch.ones_like(x[:, 0], dtype=torch.bool)), state)
        logits: Tensor = self.classify(out)
        return logits, following
