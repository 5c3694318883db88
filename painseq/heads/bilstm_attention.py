"""Bidirectional LSTM with attention over time (El-Ghaish et al. 2025), on one stream of features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from painseq.batch import masked_mean, real_frames_first
from painseq.heads.attention import TimeAttention
from painseq.heads.head import Head
from painseq.heads.initialisation import Init, initialise
from painseq.heads.masked_norm import MaskedBatchNorm
from painseq.heads.recorded_attention import last_attention
from painseq.heads.recurrent import ClipLSTM


class AttendedBiLSTM(nn.Module):
    """Bi-LSTM, batch norm, dropout, multi-head self-attention over time."""

    def __init__(self, width: int, units: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.out_width = 2 * units
        self.lstm = ClipLSTM(width, units)
        self.norm = MaskedBatchNorm(self.out_width)
        self.drop = nn.Dropout(dropout)
        self.attention = TimeAttention(self.out_width, heads, head_width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width) and its mask, real frames first, to (B, T, out_width)."""
        out: Tensor = self.attention(self.drop(self.norm(self.lstm(x, mask), mask)), mask)
        return out


class AttendedBiLSTMClassifier(nn.Module):
    """`AttendedBiLSTM`, mean over real frames, dense layer with batch norm, ReLU and dropout, classification layer."""

    def __init__(
        self, width: int, num_classes: int, units: int, heads: int, head_width: int, dense: int, dropout: float
    ) -> None:
        super().__init__()
        self.over_time = AttendedBiLSTM(width, units, heads, head_width, dropout)
        self.dense = nn.Linear(self.over_time.out_width, dense)
        self.norm = MaskedBatchNorm(dense)
        self.classify = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(dense, num_classes))

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width) and its mask, real frames first, to what the classification layer takes, (B, dense)."""
        pooled = masked_mean(self.over_time(x, mask), mask)
        features: Tensor = self.classify[:-1](self.norm(self.dense(pooled), mask.any(dim=1)))
        return features

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width) and its mask, real frames first, to video logits (B, K)."""
        logits: Tensor = self.classify[-1](self.penultimate(x, mask))
        return logits


class BiLSTMAttention(Head):
    """Bi-LSTM of 128 units per direction, attention over time with 8 heads of 16, pooling, dense layer, classes.

    El-Ghaish et al. 2025, "Enhanced deep learning framework for real-time pain assessment", the model of one stream;
    `TwoStream` is the whole model.

    Choices where the paper is silent or ambiguous: "batch normalization in LSTM and dense layers", and dropout, follow
    the Bi-LSTM and the dense layer, and are not inside the recurrence. Attention projects back to the Bi-LSTM's width,
    as in Keras, and has no residual connection. The dense layer has 128 units. Batch norm has PyTorch's momentum 0.1;
    Keras' 0.01 averages over about a hundred batches, which data sets of a few hundred clips do not have.

    Frames without a face are left out: real frames are neighbours for the LSTM, and attention and mean use only them.

    Args:
        units: units of the Bi-LSTM per direction.
        heads: number of attention heads.
        head_width: width of each attention head.
        dense: units of the dense layer.
        dropout: after the Bi-LSTM and after the dense layer.
        init: draw the initial weights as "torch" or "keras" does by default, see `painseq.heads.initialisation`.
    """

    level: Literal["frame", "video"] = "video"
    attends_to: frozenset[Literal["frames", "pixels"]] = frozenset({"frames"})

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        units: int = 128,
        heads: int = 8,
        head_width: int = 16,
        dense: int = 128,
        dropout: float = 0.4,
        init: Init = "torch",
    ) -> None:
        super().__init__(in_shape, num_classes)
        self.units = units
        self.heads = heads
        self.head_width = head_width
        self.dense = dense
        self.dropout = dropout
        self.init = init
        (width,) = self.pooled_shape()
        self.layers = AttendedBiLSTMClassifier(width, num_classes, units, heads, head_width, dense, dropout)
        initialise(self, init)

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, P); see `Head.penultimate`."""
        x, lengths = real_frames_first(x, mask)
        return self.layers.penultimate(x, torch.arange(x.shape[1], device=x.device) < lengths[:, None])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to video logits (B, K)."""
        logits: Tensor = self.layers.classify[-1](self.penultimate(x, mask))
        return logits

    def frame_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention that each frame receives in the last self-attention, (B, T); see `Head.frame_attention`."""
        return last_attention(self, x, mask)
