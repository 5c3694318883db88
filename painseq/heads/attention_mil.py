"""Attention-based multiple-instance pooling over the frames of a clip."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from painseq.heads.head import Head


class AttentionMIL(Head):
    """Treats a clip as a bag of frames: gated attention weighs the frames, and the weighted mean is classified.

    Ilse, Tomczak and Welling 2018, "Attention-based deep multiple instance learning", equation 9. The order of frames
    has no effect. Embedding and attention have 128 units each; in the paper 500 and 128, for small images.

    Args:
        hidden: units of the embedding.
        attention: units of the attention.
        dropout: after the embedding.
    """

    level: Literal["frame", "video"] = "video"
    attends_to: frozenset[Literal["frames", "pixels"]] = frozenset({"frames"})

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        hidden: int = 128,
        attention: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(in_shape, num_classes)
        self.hidden = hidden
        self.attention = attention
        self.dropout = dropout
        (width,) = self.pooled_shape()
        self.embed = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.content = nn.Sequential(nn.Linear(hidden, attention), nn.Tanh())
        self.gate = nn.Sequential(nn.Linear(hidden, attention), nn.Sigmoid())
        self.score = nn.Linear(attention, 1)
        self.classify = nn.Linear(hidden, num_classes)

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, P); see `Head.penultimate`."""
        frames, weights = self._weigh(x, mask)
        return torch.einsum("bt,bth->bh", weights, frames)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to video logits (B, K)."""
        logits: Tensor = self.classify(self.penultimate(x, mask))
        return logits

    def frame_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Weights of the pooling, (B, T) in 0..1; they sum to 1 over a clip's real frames and are 0 for the others."""
        return self._weigh(x, mask)[1]

    def _weigh(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.embed(x.masked_fill(~mask[..., None], 0.0))
        scores = self.score(self.content(frames) * self.gate(frames)).squeeze(-1)
        # The lowest number instead of -inf, as a softmax over only -inf (no real frames) is NaN.
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1) * mask
        return frames, weights
