"""The two-layer LSTM of Prajod et al. 2024."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from painseq.batch import real_frames_first
from painseq.heads.head import Head
from painseq.heads.initialisation import Init, initialise
from painseq.heads.masked_norm import MaskedBatchNorm
from painseq.heads.recurrent import in_float32, stepped


class LSTM(Head):
    """Batch norm, LSTM of 32 units, batch norm, dropout, LSTM of 16, batch norm, dropout, dense 16, classes.

    Prajod et al. 2024, "Faces of Experimental Pain", section III-D, on 300 frames of 1,024 features.

    Frames without a face are left out instead of set to zero: the real frames become neighbours, and the output at the
    last real frame is classified. The defaults of batch norm are those of Keras (epsilon 1e-3, running mean 0.99),
    which the paper's wording suggests but does not name.

    Args:
        units: units of the two LSTM layers.
        dense: units of the dense layer.
        dropout: after each LSTM layer.
        norm_epsilon: epsilon of batch norm.
        norm_momentum: momentum of batch norm, as PyTorch defines it.
        init: draw the initial weights as "torch" or "keras" does by default, see `painseq.heads.initialisation`.
    """

    level: Literal["frame", "video"] = "video"
    steps = True

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        units: tuple[int, int] = (32, 16),
        dense: int = 16,
        dropout: float = 0.3,
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.01,
        init: Init = "torch",
    ) -> None:
        super().__init__(in_shape, num_classes)
        self.units = tuple(units)
        self.dense = dense
        self.dropout = dropout
        self.norm_epsilon = norm_epsilon
        self.norm_momentum = norm_momentum
        self.init = init
        (width,) = self.pooled_shape()
        first, second = self.units

        def norm(features: int) -> MaskedBatchNorm:
            return MaskedBatchNorm(features, eps=norm_epsilon, momentum=norm_momentum)

        self.norm_in, self.norm_first, self.norm_second = norm(width), norm(first), norm(second)
        self.lstm_first = nn.LSTM(width, first, batch_first=True)
        self.lstm_second = nn.LSTM(first, second, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.classify = nn.Sequential(nn.Linear(second, dense), nn.ReLU(), nn.Linear(dense, num_classes))
        initialise(self, init)

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, P); see `Head.penultimate`."""
        x, lengths = real_frames_first(x, mask)
        real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        x = self.norm_in(x, real)
        x = self.drop(self.norm_first(in_float32(self.lstm_first, x), real))
        x = in_float32(self.lstm_second, x)
        last = x[torch.arange(len(x), device=x.device), (lengths - 1).clamp(min=0)]
        features: Tensor = self.classify[:-1](self.drop(self.norm_second(last, lengths > 0)))
        return features

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to video logits (B, K)."""
        logits: Tensor = self.classify[-1](self.penultimate(x, mask))
        return logits

    def first_state(self, batch: int) -> dict[str, Tensor]:
        """See `Head.first_state`."""
        names = {"first": self.units[0], "second": self.units[1]}
        zeros = self.norm_in.weight.new_zeros
        return {f"{part}_{name}": zeros((batch, units)) for name, units in names.items() for part in "hc"}

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Head.step`."""
        real = torch.ones_like(x[:, 0], dtype=torch.bool)
        first = stepped(self.lstm_first, self.norm_in(x, real), state["h_first"], state["c_first"])
        seen = self.drop(self.norm_first(first[0], real))
        second = stepped(self.lstm_second, seen, state["h_second"], state["c_second"])
        logits: Tensor = self.classify(self.drop(self.norm_second(second[0], real)))
        return logits, {"h_first": first[0], "c_first": first[1], "h_second": second[0], "c_second": second[1]}
