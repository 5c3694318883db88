"""The frame network with majority vote of Prajod et al. 2024."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from painseq.heads.head import Head
from painseq.heads.initialisation import Init, initialise


class FrameANN(Head):
    """Four dense layers on each frame's features; the clip's label is the majority vote of its frames.

    Prajod et al. 2024, "Faces of Experimental Pain", section III-D: layers of 1024, 128, 32 and 3 units on 1,024
    features, with ReLU and dropout 0.3 between them.

    Deviation: in the paper each layer has a ReLU, which would include the output layer. Here the output layer has none,
    as a ReLU before the softmax would make all negative logits equal and stop their gradient.

    Args:
        hidden: units of the layers before the output layer.
        dropout: after each of these layers.
        init: draw the initial weights as "torch" or "keras" does by default, see `painseq.heads.initialisation`.
    """

    level: Literal["frame", "video"] = "frame"

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        hidden: tuple[int, ...] = (1024, 128, 32),
        dropout: float = 0.3,
        init: Init = "torch",
    ) -> None:
        super().__init__(in_shape, num_classes)
        self.hidden = tuple(hidden)
        self.dropout = dropout
        self.init = init
        (width,) = self.pooled_shape()
        layers: list[nn.Module] = []
        for units in self.hidden:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, num_classes))
        initialise(self, init)

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, T, P); see `Head.penultimate`."""
        # Zeros, as NaN in masked frames would make the gradient of the weights NaN (0 x NaN).
        features: Tensor = self.layers[:-1](x.masked_fill(~mask[..., None], 0.0))
        return features

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to frame logits (B, T, K); a frame's logits depend only on that frame."""
        logits: Tensor = self.layers[-1](self.penultimate(x, mask))
        return logits
