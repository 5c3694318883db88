"""A head on columns that are standardised by the training subjects' mean and standard deviation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from painseq.heads.head import Head, Rows
from painseq.moments import Moments

_MEASURED = ("mean", "sd", "frames")


class Standardised(Head):
    """Another head, whose input has mean 0 and standard deviation 1 in each column over the training subjects' frames.

    Mean and standard deviation are buffers: they are saved with the weights, and are those of the training subjects
    wherever the model is used. Until `measure` the input is passed on unchanged.

    Args:
        head: the head, which takes one vector per frame.
    """

    mean: Tensor
    sd: Tensor
    frames: Tensor

    def __init__(self, head: Head) -> None:
        super().__init__(head.pooled_shape(), head.num_classes)
        self.head = head
        self.level = head.level
        self.fitted_by_gradients = head.fitted_by_gradients
        self.max_frames = head.max_frames
        self.streams = head.streams
        self.steps = head.steps
        self.attends_to = head.attends_to
        (width,) = self.pooled_shape()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("sd", torch.ones(width))
        self.register_buffer("frames", torch.zeros((), dtype=torch.int64))

    @property
    def name(self) -> str:
        """Name of the inner head."""
        return self.head.name

    @property
    def measured(self) -> bool:
        """Whether mean and standard deviation are known."""
        return bool(self.frames > 0)

    def measure(self, moments: Moments) -> None:
        """Take over mean and standard deviation of the training subjects' frames."""
        self.mean.copy_(torch.from_numpy(moments.mean))
        self.sd.copy_(torch.from_numpy(moments.sd))
        self.frames.fill_(moments.count)

    def standardised(self, x: Tensor, mask: Tensor) -> Tensor:
        """Standardise (..., D) frames; those that `mask` (...) leaves out become 0."""
        return torch.where(mask[..., None], (x.float() - self.mean) / self.sd, 0.0)

    def training_mean(self) -> Tensor | None:
        """Return the mean of each column, (D,), of the rows before they are standardised; None if it is not known."""
        return self.mean if self.measured else None

    def fit_rows(self, train: Rows, validation: Rows | None) -> None:
        """Fit the inner head to standardised rows; see `Head.fit_rows`."""
        rows = [
            None if part is None else Rows(self._on_cpu(part.x, part.mask), part.mask, part.target, part.weights)
            for part in (train, validation)
        ]
        assert rows[0] is not None
        self.head.fit_rows(rows[0], rows[1])

    def _on_cpu(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.standardised(x.to(self.mean.device), mask.to(self.mean.device)).cpu()

    def start(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Initialise the inner head; from a standardised head also mean and standard deviation, so that it computes
        what the other one does.
        """
        if not is_standardised(tensors):
            return [f"head.{name}" for name in self.head.start(tensors)]
        inner = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
        filled = [f"head.{name}" for name in self.head.start(inner)]
        if tensors["mean"].shape == self.mean.shape:
            for name in _MEASURED:
                getattr(self, name).copy_(tensors[name])
            filled += _MEASURED
        return filled

    @property
    def last(self) -> nn.Linear:
        """Last layer of the inner head."""
        return self.head.last

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `Head.penultimate`."""
        return self.head.penultimate(self.standardised(x, mask), mask)

    def frame_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `Head.frame_attention`."""
        return self.head.frame_attention(self.standardised(x, mask), mask)

    def first_state(self, batch: int) -> dict[str, Tensor]:
        """See `Head.first_state`."""
        return self.head.first_state(batch)

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Head.step`; the frame is standardised first."""
        return self.head.step((x.float() - self.mean) / self.sd, state)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to the inner head's logits."""
        logits: Tensor = self.head(self.standardised(x, mask), mask)
        return logits


def is_standardised(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a standardised head."""
    return all(name in tensors for name in _MEASURED) and any(name.startswith("head.") for name in tensors)
