"""Objectives: cross entropy, CORN or squared error, and how a head's outputs become predictions.

Cross entropy takes one logit per class. CORN (Shi, Cao and Raschka 2021, "Deep neural networks for rank-consistent
ordinal regression based on conditional probabilities") takes K - 1 logits for K ordered levels of pain: the k-th
estimates whether a level is above k, given that it is above k - 1. Squared error takes one output, the share of a
scale. Every head works with all three; only the number of its outputs differs.

The rest of the code sees only predictions: class logits, whose softmax gives probabilities, or numbers on the scale.
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
    """A loss and everything that depends on it."""

    loss: ClassVar[Loss]
    predicts_values: ClassVar[bool] = False
    """Whether predictions are numbers on a scale, not logits of classes."""
    smooths: ClassVar[bool] = False
    """Whether a target can be spread over the classes (label smoothing)."""
    rule: ClassVar[Literal["mode", "median"]] = "mode"
    """How probabilities become a label; see `painseq.model.decision.decide`."""
    metric_name: ClassVar[str] = "val_balanced_accuracy"
    """Name under which the validation score is logged."""

    names: tuple[str, ...]
    """Column names of predictions: the classes, or the scale."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Number of outputs of a head."""

    @property
    @abstractmethod
    def chance(self) -> float | None:
        """Validation score at chance level; None if undefined."""

    @abstractmethod
    def loss_sums(
        self, outputs: Tensor, target: Tensor, weight: Tensor, smooth: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the loss over rows, and the weight to divide it by.

        The two are separate so that a mean over batches, or over processes, is the mean over all their rows.
        There is no host-device synchronisation: excluded rows have weight 0.

        Args:
            outputs: (n, num_outputs), of a head.
            target: (n,) int64 class indices, or numbers on the scale; any valid value where the weight is 0.
            weight: (n,) weight of each row.
            smooth: (K,) share of each class in a smoothed target, for cross entropy: a row's target distribution is
                `smooth`, with the remainder to 1 added to the row's class. None: no smoothing.

        Returns:
            Two scalars. For CORN each row counts once for each binary task that it belongs to, as in the paper.
        """

    def targets(self, target: Tensor) -> Tensor:
        """Convert (n,) labels to a head's terms: class indices, or shares of the scale."""
        return target

    @abstractmethod
    def row_weights(self, target: Tensor, by_class: Tensor) -> Tensor:
        """Return the (n,) weights of rows with these targets, from class weights (K,); all 1 for numbers."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """Convert a head's outputs (..., num_outputs) to predictions (..., len(names)).

        Predictions are class logits (for CORN the log-probabilities of the levels), or numbers, which can exceed the
        ends of the scale.
        """

    @abstractmethod
    def shown(self, predictions: Tensor) -> Tensor:
        """Convert predictions for display: to probabilities, or to numbers within the scale."""

    @abstractmethod
    def log_scores(self, predictions: Tensor) -> Tensor:
        """Convert predictions to what explanations average over frames: log-probabilities, or the numbers."""

    @abstractmethod
    def mean(self, predictions: Sequence[Tensor]) -> Tensor:
        """Average the predictions of several models: the log of the mean probabilities, or the mean of the numbers."""

    @abstractmethod
    def answer(self, level: Level, predictions: Tensor, mask: Tensor) -> Tensor:
        """Return (B,) labels, or numbers within the scale, of clips with at least one valid frame each.

        Args:
            level: level of the head.
            predictions: (B, T, len(names)) or (B, len(names)).
            mask: (B, T) bool, true for valid frames.
        """

    @abstractmethod
    def metric(self) -> Metric:
        """Return the metric that scores `answer` in validation."""


class BalancedAccuracy(MulticlassRecall):
    """Mean recall of the classes that occur in the truth.

    The macro average of torchmetrics also counts, as 0, a class that is only ever predicted.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none")

    def compute(self) -> Tensor:
        """Scalar; 0 without any clip."""
        hits, _, _, misses = self._final_state()
        occurs = (hits + misses) > 0
        recall: Tensor = super().compute()
        return (recall * occurs / occurs.sum().clamp(min=1)).sum()


class _ClassObjective(Objective):
    """Base of the losses for classes.

    Args:
        names: class names, in order of pain.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @property
    def chance(self) -> float | None:
        """Balanced accuracy at chance level."""
        return 1 / len(self.names)

    def row_weights(self, target: Tensor, by_class: Tensor) -> Tensor:
        """Weight of each row's class."""
        return by_class[target]

    def shown(self, predictions: Tensor) -> Tensor:
        """Probabilities."""
        return predictions.float().softmax(dim=-1)

    def log_scores(self, predictions: Tensor) -> Tensor:
        """Log-probabilities."""
        return predictions.log_softmax(dim=-1)

    def mean(self, predictions: Sequence[Tensor]) -> Tensor:
        """Log of the mean probabilities."""
        log_probabilities = torch.stack([logits.log_softmax(dim=-1) for logits in predictions])
        return log_probabilities.logsumexp(dim=0) - math.log(len(predictions))

    def answer(self, level: Level, predictions: Tensor, mask: Tensor) -> Tensor:
        """Labels, by `decide`."""
        return decide(level, predictions, mask, self.rule).label

    def metric(self) -> Metric:
        """Balanced accuracy, as evaluations have it."""
        return BalancedAccuracy(len(self.names))


class CrossEntropy(_ClassObjective):
    """Cross entropy: one logit per class."""

    loss = "cross_entropy"
    smooths = True

    @property
    def num_outputs(self) -> int:
        """One per class."""
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


class Corn(_ClassObjective):
    """CORN, for ordered levels: K - 1 conditional logits; the label is the median level."""

    loss = "corn"
    rule = "median"

    @property
    def num_outputs(self) -> int:
        """One per level except the lowest."""
        return len(self.names) - 1

    def loss_sums(
        self, outputs: Tensor, target: Tensor, weight: Tensor, smooth: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Objective.loss_sums`; a row counts in each binary task up to its own level."""
        outputs = outputs.float()
        level = torch.arange(outputs.shape[-1], device=outputs.device)
        in_task = (target[:, None] >= level) * weight.float()[:, None]
        rows = torch.where(target[:, None] > level, logsigmoid(outputs), logsigmoid(-outputs))
        return -(in_task * rows).sum(), in_task.sum()

    def predictions(self, outputs: Tensor) -> Tensor:
        """Log-probabilities of the levels."""
        outputs = outputs.float()
        # Not torch.cumsum, which has no deterministic kernel on a GPU (--trainer.deterministic true).
        above = torch.stack([*accumulate(logsigmoid(outputs).unbind(-1))], dim=-1)
        zero = torch.zeros_like(above[..., :1])
        return torch.cat([zero, above], dim=-1) + torch.cat([logsigmoid(-outputs), zero], dim=-1)


class SquaredError(Objective):
    """Squared error, for labels that are numbers: one output, the share of the scale.

    Args:
        scale: range of the numbers.
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
        """None: squared error has no chance level."""
        return None

    def loss_sums(
        self, outputs: Tensor, target: Tensor, weight: Tensor, smooth: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Objective.loss_sums`; errors are in shares of the scale."""
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
        """Mean squared error of whole clips, in squared units of the scale; a frame head's loss is per frame."""
        return MeanSquaredError()


def kind_of(loss: Loss) -> type[Objective]:
    """Return the objective class of a loss, before the data are known."""
    kinds: dict[Loss, type[Objective]] = {"cross_entropy": CrossEntropy, "corn": Corn, "mse": SquaredError}
    return kinds[loss]


def objective_of(loss: Loss, class_names: Sequence[str], scale: Scale | None) -> Objective:
    """Return the objective of a loss, for these classes or this scale.

    Raises:
        PainseqError: a loss for classes with a scale, or the reverse.
    """
    kind = kind_of(loss)
    if kind.predicts_values != (scale is not None):
        labels = "classes" if scale is None else f"numbers on a scale ({scale})"
        suitable = "cross_entropy (or corn)" if scale is None else "mse"
        raise PainseqError(
            f"The labels are {labels}, but the loss is {loss}. Set --model.loss {suitable}, or choose other labels: "
            "--data.options.labels."
        )
    if scale is not None:
        return SquaredError(scale)
    return Corn(class_names) if kind is Corn else CrossEntropy(class_names)
