"""The graphs of an exported model as modules of tensors in and tensors out, and inputs to try them with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.extractors import Extractor
from painseq.heads import Head
from painseq.heads.standardised import Standardised
from painseq.model import PainModel

GraphName = Literal["extractor", "head", "head_step"]


class Graph(nn.Module):
    """A module whose inputs and outputs are named tensors, with the clips first.

    Attributes:
        inputs: names of the arguments of `forward`.
        outputs: names of what it returns.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    longest: int | None = None
    """Largest number of frames of a clip; None for no limit."""

    def free_axes(self, name: str) -> int:
        """Return how many of the leading axes of an input have any size: the clips or crops, and the frames."""
        return 1

    @abstractmethod
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the inputs to the outputs, each in the order of their names."""

    @abstractmethod
    def example(self, clips: int, frames: int) -> tuple[Tensor, ...]:
        """Draw inputs of these sizes."""


class ExtractorGraph(Graph):
    """From crops, (N, 3, S, S) uint8, to features, (N, *F) float32; the pixels' normalisation is inside.

    Args:
        extractor: in eval mode.
    """

    inputs = ("crops",)
    outputs = ("features",)

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        (crops,) = inputs
        return (self.extractor(crops).float(),)

    def example(self, clips: int, frames: int) -> tuple[Tensor, ...]:
        """Draw `clips` crops of noise."""
        side = self.extractor.input_size_px
        return (torch.randint(0, 256, (clips, 3, side, side), dtype=torch.uint8),)


class HeadGraph(Graph):
    """From the frames of clips, (B, T, *F) and (B, T) bool, to the answer.

    Frames are float32 rows of all streams, or uint8 crops for a head that takes pixels. The answer of a classifier is
    label (B,) int64, probabilities (B, K), and for frame heads votes (B, K) and frame_probabilities (B, T, K); that of
    a regression model is value (B,), and for frame heads frame_values (B, T). A clip without a real frame has the label
    -1 and NaN.

    Args:
        model: its head, objective, threshold and mix of classes are exported.
    """

    inputs = ("x", "mask")

    def __init__(self, model: PainModel) -> None:
        super().__init__()
        self.model = model
        self.outputs = _answer_names(model)
        self.longest = model.head.max_frames

    def free_axes(self, name: str) -> int:
        """Clips and frames; the exporter takes no free size where only 1 is possible."""
        return 1 if self.longest == 1 else 2

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        x, mask = inputs
        return _answer(self.model, self.model.head(x.float(), mask), mask)

    def example(self, clips: int, frames: int) -> tuple[Tensor, ...]:
        """Draw clips of which about a third of the frames have no face, and the second one none with a face."""
        shape, model = (clips, frames, *self.model.in_shape), self.model
        x = torch.randint(0, 256, shape, dtype=torch.uint8) if model.takes_crops else _like_training(model.head, shape)
        mask = torch.rand(clips, frames) > 1 / 3
        mask[:1, :1] = True
        mask[1:2] = False
        # Whatever stands in masked frames must not matter.
        return (x if model.takes_crops else torch.where(mask[..., None], x, torch.nan)), mask


class StepGraph(Graph):
    """From the next real frame of each clip, (B, *F), and the state, to the answer so far and the next state.

    Args:
        model: with a head that reads frame by frame.
    """

    def __init__(self, model: PainModel) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(model.head.first_state(1))
        self.inputs = ("x", *self.names)
        self.outputs = (*_answer_names(model), *(f"next_{name}" for name in self.names))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See the class; the tensors of the state in the order of `names`."""
        x, *state = inputs
        outputs, following = self.model.head.step(x, dict(zip(self.names, state, strict=True)))
        real = torch.ones_like(outputs[:, :1], dtype=torch.bool)
        return (*_answer(self.model, outputs, real), *(following[name] for name in self.names))

    def example(self, clips: int, frames: int) -> tuple[Tensor, ...]:
        """Draw a frame of each clip, and a state."""
        x = _like_training(self.model.head, (clips, *self.model.in_shape))
        return (x, *(torch.rand_like(value) - 0.5 for value in self.model.head.first_state(clips).values()))


def _answer_names(model: PainModel) -> tuple[str, ...]:
    of_frames = model.level == "frame"
    if model.predicts_values:
        return ("value", "frame_values") if of_frames else ("value",)
    return ("label", "probabilities", "votes", "frame_probabilities") if of_frames else ("label", "probabilities")


def _answer(model: PainModel, outputs: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """From the head's outputs to the answer, by what the model itself does."""
    unadjusted = model.objective.predictions(outputs)
    found = model.answered(model.adjusted(unadjusted), unadjusted, mask)
    return tuple(found[name] for name in _answer_names(model))


def graphs_of(model: PainModel) -> tuple[GraphName, ...]:
    """Return the graphs that a model consists of."""
    takes_features = model.extractor is not None and not model.takes_crops and "cnn" in model.streams
    extractor: Sequence[GraphName] = ["extractor"] if takes_features else []
    step: Sequence[GraphName] = ["head_step"] if model.head.steps else []
    return (*extractor, "head", *step)


def graph_of(model: PainModel, name: GraphName) -> Graph:
    """Make one of `graphs_of` a model.

    Raises:
        PainseqError: the model does not have it.
    """
    if name not in graphs_of(model):
        raise PainseqError(f"This model has no graph {name!r}, only {', '.join(graphs_of(model))}.")
    if name == "extractor":
        assert model.extractor is not None
        return ExtractorGraph(model.extractor)
    return HeadGraph(model) if name == "head" else StepGraph(model)


def _like_training(head: Head, shape: tuple[int, ...]) -> Tensor:
    """Draw rows around the mean of the training data, if the head keeps it."""
    mean = head.training_mean()
    if mean is None:
        return torch.randn(shape)
    sd = head.sd if isinstance(head, Standardised) else mean.abs().clamp(min=0.1)
    return mean + sd * torch.randn(shape)
