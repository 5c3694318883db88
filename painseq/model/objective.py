"""What a head is fitted for: cross entropy, CORN or squared error, and how its outputs become what a model predicts.

Cross entropy takes a logit a class. CORN (Shi, Cao and Raschka 2021, "Deep neural networks for rank-consistent ordinal
regression based on conditional probabilities") takes K - 1 logits for K ordered levels of pain: the k-th says whether
a level is above k, given that it is above k - 1. Squared error takes one output, the share of a scale. Any head serves
all three; only the number of its outputs differs.

Behind an objective everything sees predictions: logits of the classes, whose softmax is their probabilities, or numbers
on the scale.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchmetrics import Metric
from torchmetrics.classification import MulticlassRecall
from torchmetrics.regression import MeanSquaredError

from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.model.decision import decide, estimate
from painseq.model.record import Loss

Level = Literal["frame", "video"]


class Objective(ABC):
    """One loss, with all that depends on it."""

    loss: ClassVar[Loss]
    predicts_values: ClassVar[bool] = False
    """Whether predictions are numbers on a scale, not logits of classes."""
    smooths: ClassVar[bool] = False
    """Whether a target can be spread over the classes (label smoothing)."""
    rule: ClassVar[Literal["mode", "median"]] = "mode"
    """From probabilities to a label; see `painseq.model.decision.decide`."""
    metric_name: ClassVar[str] = "val_balanced_accuracy"
    """Under what name the score of validation is logged."""

    names: tuple[str, ...]
    """Of the columns of predictions: the classes, or the scale."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """How many outputs a head has."""

    @property
    @abstractmethod
    def chance(self) -> float | None:
        """The validation score of guessing; None where there is none."""

    @abstractmethod
    def loss_sums(
        self, outputs: Tensor, target: Tensor, weight: Tensor, smooth: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of the loss over rows, and what to divide it by.

        The two are kept apart so that a mean over batches, or over processes, is that of all their rows together.
        Nothing waits for the device: a row that does not count has weight 0.

        Args:
            outputs: (n, num_outputs) of a head.
            target: (n,) int64 class indices, or numbers on the scale; anything valid where the weight is 0.
            weight: (n,) how much each row counts.
            smooth: (K,) share of each class in a smoothed target, for cross entropy: a row's target distribution is
                `smooth` plus what it lacks to 1 on the row's class. None: all on the class.

        Returns:
            Two scalars. For CORN each row counts once for each question that it answers, as in the paper.
        """

    def targets(self, target: Tensor) -> Tensor:
        """(n,) labels in the terms of a head's outputs: class indices, or shares of the scale."""
        return target

    @abstractmethod
    def row_weights(self, target: Tensor, by_class: Tensor) -> Tensor:
        """(n,) how much rows with these targets count, by the weights of the classes, (K,); all 1 for numbers."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """A head's outputs (..., num_outputs) as predictions (..., len(names)).

        Logits of the classes (under CORN the log-probabilities of the levels), or numbers, which can lie beyond the
        ends of the scale.
        """

    @abstractmethod
    def shown(self, predictions: Tensor) -> Tensor:
        """Predictions as one shows them: probabilities, or numbers within the scale."""

    @abstractmethod
    def log_scores(self, predictions: Tensor) -> Tensor:
        """Predictions as what is averaged over frames where they are explained: log-probabilities, or the numbers."""

    @abstractmethod
    def mean(self, predictions: Sequence[Tensor]) -> Tensor:
        """Of several models: logarithms of the mean probabilities, or the mean of the numbers."""

    @abstractmethod
    def answer(self, level: Level, predictions: Tensor, mask: Tensor) -> Tensor:
        """(B,) labels, or numbers within the scale, of a batch of clips that have a real frame each.

        Args:
            level: the head's.
            predictions: (B, T, len(names)) or (B, len(names)).
            mask: (B, T) bool.
        """

    @abstractmethod
    def metric(self) -> Metric:
        """The score of answers in validation."""


class _OfClasses(Objective):
    """What the losses of classes share.

    Args:
        names: of the classes, in order of pain.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @property
    def chance(self) -> float | None:
        """Balanced accuracy of guessing."""
        return 1 / len(self.names)

    def row_weights(self, target: Tensor, by_class: Tensor) -> Tensor:
        """Each row's class's."""
        return by_class[target]

    def shown(self, predictions: Tensor) -> Tensor:
        """Probabilities."""
        return predictions.float().softmax(dim=-1)

    def log_scores(self, predictions: Tensor) -> Tensor:
        """Log-probabilities."""
        return predictions.log_softmax(dim=-1)

    def mean(self, predictions: Sequence[Tensor]) -> Tensor:
        """Logarithms of the mean probabilities."""
        each = torch.stack([one.log_softmax(dim=-1) for one in predictions])
        return each.logsumexp(dim=0) - math.log(len(predictions))

    def answer(self, level: Level, predictions: Tensor, mask: Tensor) -> Tensor:
        """Labels, by `decide`."""
        return decide(level, predictions, mask, self.rule).label

    def metric(self) -> Metric:
        """Balanced accuracy."""
        return MulticlassRecall(len(self.names), average="macro")


class CrossEntropy(_OfClasses):
    """A logit a class."""

    loss = "cross_entropy"
    smooths = True

    @property
    def num_outputs(self) -> int:
        """One a class."""
        return len(self.names)

    def loss_sums(
        self, outputs: Tensor, target: Tensor, weight: Tensor, smooth: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Objective.loss_sums`."""
        weight = weight.float()
        logarithm = outputs.float().log_softmax(dim=-1)
        rows = -logarithm.gather(1, target[:, None])[:, 0]
        if smooth is not None:
            rows = (1 - smooth.sum()) * rows - (logarithm * smooth).sum(dim=-1)
        return (rows * weight).sum(), weight.sum()

    def predictions(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs


class Corn(_OfClasses):
    """For ordered levels: K - 1 conditional logits, and the median decides."""

    loss = "corn"
    rule = "median"

    @property
    def num_outputs(self) -> int:
        """One a level but the lowest."""
        return len(self.names) - 1

    def loss_sums(
        self, outputs: Tensor, target: Tensor, weight: Tensor, smooth: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """A row answers a question a level, up to the first no."""
        outputs = outputs.float()
        level = torch.arange(outputs.shape[-1], device=outputs.device)
        asked = (target[:, None] >= level) * weight.float()[:, None]
        rows = torch.where(target[:, None] > level, logsigmoid(outputs), logsigmoid(-outputs))
        return -(asked * rows).sum(), asked.sum()

    def predictions(self, outputs: Tensor) -> Tensor:
        """Log-probabilities of the levels."""
        outputs = outputs.float()
        # Not torch.cumsum, which has no deterministic kernel on a GPU (--trainer.deterministic true).
        above = torch.stack([*accumulate(logsigmoid(outputs).unbind(-1))], dim=-1)
        zero = torch.zeros_like(above[..., :1])
        return torch.cat([zero, above], dim=-1) + torch.cat([logsigmoid(-outputs), zero], dim=-1)


class SquaredError(Objective):
    """For labels that are numbers: one output, the share of the scale.

    Args:
        scale: the numbers.
    """

    loss = "mse"
    predicts_values = True
    metric_name = "val_mse"

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.names = (scale.name,)

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    @property
    def chance(self) -> float | None:
        """None: there is no guessing."""
        return None

    def loss_sums(
        self, outputs: Tensor, target: Tensor, weight: Tensor, smooth: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Of shares of the scale."""
        weight = weight.float()
        return ((outputs.float()[:, 0] - self.targets(target)) ** 2 * weight).sum(), weight.sum()

    def targets(self, target: Tensor) -> Tensor:
        """Shares of the scale."""
        return (target - self.scale.low) / (self.scale.high - self.scale.low)

    def row_weights(self, target: Tensor, by_class: Tensor) -> Tensor:
        """All 1."""
        return torch.ones_like(target, dtype=by_class.dtype)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Numbers on the scale."""
        return self.scale.low + (self.scale.high - self.scale.low) * outputs.float()

    def shown(self, predictions: Tensor) -> Tensor:
        """Numbers within the scale."""
        return predictions.float().clamp(self.scale.low, self.scale.high)

    def log_scores(self, predictions: Tensor) -> Tensor:
        """The numbers."""
        return predictions

    def mean(self, predictions: Sequence[Tensor]) -> Tensor:
        """The mean of the numbers."""
        return torch.stack(list(predictions)).mean(dim=0)

    def answer(self, level: Level, predictions: Tensor, mask: Tensor) -> Tensor:
        """Numbers, by `estimate`."""
        return self.shown(estimate(level, predictions, mask))

    def metric(self) -> Metric:
        """Squared error of whole clips, in the scale's units; a frame head's loss is that of frames."""
        return MeanSquaredError()


def kind_of(loss: Loss) -> type[Objective]:
    """The objective of a name, before the data are known."""
    kinds: dict[Loss, type[Objective]] = {"cross_entropy": CrossEntropy, "corn": Corn, "mse": SquaredError}
    return kinds[loss]


def objective_of(loss: Loss, class_names: Sequence[str], scale: Scale | None) -> Objective:
    """The objective of a name, for these classes or this scale.

    Raises:
        PainseqError: a loss of classes for a scale, or the other way round.
    """
    kind = kind_of(loss)
    if kind.predicts_values != (scale is not None):
        what = "classes" if scale is None else f"numbers on a scale ({scale})"
        wanted = "cross_entropy (or corn)" if scale is None else "mse"
        raise PainseqError(
            f"The labels are {what}, and the loss is {loss}. Set --model.loss {wanted}, or choose other labels: "
            "--data.options.labels."
        )
    if scale is not None:
        return SquaredError(scale)
    return Corn(class_names) if kind is Corn else CrossEntropy(class_names)
