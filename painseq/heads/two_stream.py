"""The two-stream model of El-Ghaish et al. 2025: CNN features and facial landmarks."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from painseq.batch import real_frames_first
from painseq.errors import PainseqError
from painseq.heads.bilstm_attention import AttendedBiLSTM, AttendedBiLSTMClassifier
from painseq.heads.head import Head
from painseq.heads.masked_norm import MaskedBatchNorm
from painseq.heads.recorded_attention import last_attention


class CNNStream(nn.Module):
    """Squeeze-and-excitation on a frame's pooled features, dense layer, batch norm, ReLU, dropout."""

    def __init__(self, width: int, ratio: int, dense: int, dropout: float) -> None:
        super().__init__()
        squeezed = max(width // ratio, 1)
        self.excite = nn.Sequential(nn.Linear(width, squeezed), nn.ReLU(), nn.Linear(squeezed, width), nn.Sigmoid())
        self.dense = nn.Linear(width, dense)
        self.norm = MaskedBatchNorm(dense)
        self.finish = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width) and its mask to (B, T, dense)."""
        out: Tensor = self.finish(self.norm(self.dense(x * self.excite(x)), mask))
        return out


class TwoStream(Head):
    """CNN features and landmarks, each through a stream of its own, fused and read by a Bi-LSTM with attention.

    El-Ghaish et al. 2025, "Enhanced deep learning framework for real-time pain assessment using multi-modal fusion of
    facial features and video streams". A frame is the CNN's features with the landmarks behind them, x and y of each
    point (the data option `streams: [cnn, landmarks]`).

    - CNN stream: squeeze-and-excitation, dense layer, batch norm.
    - Landmark stream: Bi-LSTM and multi-head attention over time.
    - Fusion: concatenation, batch norm, Bi-LSTM and attention over time, mean, dense layer, classes, as in
      `BiLSTMAttention`.

    They train in two phases. `only` builds phase 1 for one stream: that stream under the names that it has in the whole
    model, and a Bi-LSTM with attention and classes of its own behind it. Phase 2 takes over both streams (`start`).

    Where the paper leaves a choice:

    - Bi-LSTM over the landmarks of a frame (its predictions are one a frame) or over time ("temporal dependencies"):
      over time, and one prediction a clip.
    - 468 points with x, y, z (text) or 478 with x, y (table 5): as many as there are, x and y.
    - The landmark branch "terminates with a global average pooling", yet a Bi-LSTM over time follows the fusion: no
      pooling before the fusion, as nothing would be left for it to read.
    - After the fusion flatten and dense layers (section 4.4) or another Bi-LSTM (sections 3.3.1 and 4): the Bi-LSTM.
    - Squeeze-and-excitation on the map or on the pooled vector: on the vector, which is the same as on the map before
      an average pooling. Its ratio is unstated: 16, as in Hu et al. 2018.
    - Widths are unstated: 256 from the CNN stream, as many as the landmark stream gives; 128 before the classes.

    Args:
        landmarks: points a frame.
        only: phase 1 of this stream; `in_shape` is then that stream's own width. None: the whole model.
        dense_cnn: width of the CNN stream.
        dense: units of the last dense layer.
        units: of each Bi-LSTM and direction.
        ratio: by which squeeze-and-excitation narrows the features.

    Raises:
        PainseqError: frames too narrow for the landmarks, or, with `only: landmarks`, of another width than theirs.
    """

    level: ClassVar[Literal["frame", "video"]] = "video"
    attends_to: ClassVar[frozenset[Literal["frames", "pixels"]]] = frozenset({"frames"})

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        landmarks: int = 68,
        only: Literal["cnn", "landmarks"] | None = None,
        units: int = 128,
        heads: int = 8,
        head_width: int = 16,
        ratio: int = 16,
        dense_cnn: int = 256,
        dense: int = 128,
        dropout: float = 0.4,
    ) -> None:
        super().__init__(in_shape, num_classes)
        self.landmarks = landmarks
        self.only = only
        self.units = units
        self.heads = heads
        self.head_width = head_width
        self.ratio = ratio
        self.dense_cnn = dense_cnn
        self.dense = dense
        self.dropout = dropout
        wanted = {"cnn": None, "landmarks": 2 * landmarks}
        self.streams = wanted if only is None else {only: wanted[only]}
        (width,) = self.pooled_shape()
        self._check_width(width)
        fused = 0
        if only != "landmarks":
            self.cnn = CNNStream(width if only else width - 2 * landmarks, ratio, dense_cnn, dropout)
            fused += dense_cnn
        if only != "cnn":
            self.landmark = AttendedBiLSTM(2 * landmarks, units, heads, head_width, dropout)
            fused += self.landmark.out_width
        classifier = AttendedBiLSTMClassifier(fused, num_classes, units, heads, head_width, dense, dropout)
        if only is None:
            self.fusion_norm = MaskedBatchNorm(fused)
            self.fusion = classifier
        else:
            self.alone = classifier

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D + 2 * landmarks) to video logits (B, K); of phase 1, the stream's own width."""
        x, lengths = real_frames_first(x, mask)
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        logits: Tensor
        if self.only == "cnn":
            logits = self.alone(self.cnn(x, mask), mask)
        elif self.only == "landmarks":
            logits = self.alone(self.landmark(x, mask), mask)
        else:
            cnn, landmarks = x.tensor_split([x.shape[-1] - 2 * self.landmarks], dim=-1)
            fused = torch.cat([self.cnn(cnn, mask), self.landmark(landmarks, mask)], dim=-1)
            logits = self.fusion(self.fusion_norm(fused, mask), mask)
        return logits

    def frame_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """What each frame gets of the last self-attention, (B, T); see `Head.frame_attention`."""
        return last_attention(self, x, mask)

    def _check_width(self, width: int) -> None:
        points = 2 * self.landmarks
        if self.only is None and width <= points:
            raise PainseqError(
                f"TwoStream takes a CNN's features and behind them {points} numbers, x and y of {self.landmarks} "
                f"landmarks, but a frame has {width} numbers here. Ask the data for both streams "
                "(options.streams: [cnn, landmarks]), and tell the head how many landmarks there are (landmarks: ...)."
            )
        if self.only == "landmarks" and width != points:
            raise PainseqError(
                f"TwoStream with only: landmarks takes {points} numbers a frame, x and y of {self.landmarks} "
                f"landmarks, but a frame has {width} here. Ask the data for this stream alone "
                "(options.streams: [landmarks]), and tell the head how many landmarks there are (landmarks: ...)."
            )
