"""The two-stream model of El-Ghaish et al. 2025: CNN features and facial landmarks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from painseq.batch import real_frames_first
from painseq.errors import PainseqError
from painseq.heads.bilstm_attention import AttendedBiLSTM, AttendedBiLSTMClassifier
from painseq.heads.head import Head
from painseq.heads.initialisation import Init, initialise
from painseq.heads.masked_norm import MaskedBatchNorm
from painseq.heads.recorded_attention import last_attention


class CNNStream(nn.Module):
    """Squeeze-and-excitation on pooled features of each frame, dense layer, batch norm, ReLU, dropout."""

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
    """Separate streams for CNN features and landmarks, fused by a Bi-LSTM with attention.

    El-Ghaish et al. 2025, "Enhanced deep learning framework for real-time pain assessment using multi-modal fusion of
    facial features and video streams". A frame has the CNN's features, followed by x and y of each landmark (data
    option `streams: [cnn, landmarks]`).

    - CNN stream: squeeze-and-excitation, dense layer, batch norm.
    - Landmark stream: Bi-LSTM and multi-head attention over time.
    - Fusion: concatenation, batch norm, Bi-LSTM and attention over time, mean, dense layer, classes, as in
      `BiLSTMAttention`.

    Training has two phases. `only` builds phase 1 for one stream: the stream, with the weight names of the whole model,
    followed by a separate Bi-LSTM with attention and a classifier. Phase 2 starts from both streams (`start`).

    Choices where the paper is ambiguous:

    - Bi-LSTM over the landmarks of a frame (one prediction per frame) or over time ("temporal dependencies"): over
      time, with one prediction per clip.
    - 468 points with x, y, z (text) or 478 with x, y (table 5): any number of points with x and y.
    - The landmark branch "terminates with a global average pooling", yet a Bi-LSTM over time follows the fusion: no
      pooling before the fusion, as it would remove the time axis.
    - Flatten and dense layers (section 4.4) or another Bi-LSTM (sections 3.3.1 and 4) after the fusion: the Bi-LSTM.
    - Squeeze-and-excitation on the feature map or on the pooled vector: on the vector, which is equivalent before
      average pooling. The ratio is not stated: 16, as in Hu et al. 2018.
    - Widths are not stated: 256 for the CNN stream, equal to the landmark stream; 128 before the classification layer.

    Args:
        landmarks: number of landmarks per frame.
        only: build phase 1 of this stream, with `in_shape` the width of that stream; None for the whole model.
        units: units of each Bi-LSTM per direction.
        heads: number of attention heads.
        head_width: width of each attention head.
        ratio: reduction ratio of squeeze-and-excitation.
        dense_cnn: width of the CNN stream.
        dense: units of the last dense layer.
        dropout: after dense layers and Bi-LSTMs.
        init: draw the initial weights as "torch" or "keras" does by default, see `painseq.heads.initialisation`.

    Raises:
        PainseqError: frames are too narrow for the landmarks, or with `only: landmarks` have a different width.
    """

    level: Literal["frame", "video"] = "video"
    attends_to: frozenset[Literal["frames", "pixels"]] = frozenset({"frames"})

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
        init: Init = "torch",
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
        self.init = init
        widths = {"cnn": None, "landmarks": 2 * landmarks}
        self.streams = widths if only is None else {only: widths[only]}
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
        initialise(self, init)

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D + 2 * landmarks), in phase 1 (B, T, width of the stream), to (B, P); see `Head.penultimate`."""
        x, lengths = real_frames_first(x, mask)
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        if self.only == "cnn":
            return self.alone.penultimate(self.cnn(x, mask), mask)
        if self.only == "landmarks":
            return self.alone.penultimate(self.landmark(x, mask), mask)
        cnn, landmarks = x.tensor_split([x.shape[-1] - 2 * self.landmarks], dim=-1)
        fused = torch.cat([self.cnn(cnn, mask), self.landmark(landmarks, mask)], dim=-1)
        return self.fusion.penultimate(self.fusion_norm(fused, mask), mask)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D + 2 * landmarks) to video logits (B, K); in phase 1 (B, T, width of the stream)."""
        classifier = self.fusion if self.only is None else self.alone
        logits: Tensor = classifier.classify[-1](self.penultimate(x, mask))
        return logits

    def frame_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention that each frame receives in the last self-attention, (B, T); see `Head.frame_attention`."""
        return last_attention(self, x, mask)

    def _check_width(self, width: int) -> None:
        points = 2 * self.landmarks
        if self.only is None and width <= points:
            raise PainseqError(
                f"TwoStream needs a CNN's features followed by {points} numbers, x and y of {self.landmarks} "
                f"landmarks, but a frame has {width} numbers. Set both streams in the data options (options.streams: "
                "[cnn, landmarks]), and the number of landmarks in the head (landmarks: ...)."
            )
        if self.only == "landmarks" and width != points:
            raise PainseqError(
                f"TwoStream with only: landmarks needs {points} numbers per frame, x and y of {self.landmarks} "
                f"landmarks, but a frame has {width}. Set this stream alone in the data options "
                "(options.streams: [landmarks]), and the number of landmarks in the head (landmarks: ...)."
            )
