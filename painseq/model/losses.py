"""What a head is fitted with, and how its outputs become class logits.

Cross entropy takes a logit a class. CORN (Shi, Cao and Raschka 2021, "Deep neural networks for rank-consistent ordinal
regression based on conditional probabilities") takes K - 1 logits for K ordered levels of pain: the k-th says whether
a level is above k, given that it is above k - 1. Any head serves both; only the number of its outputs differs. For
regression a head has one output, the share of the scale, and learns by squared error.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from painseq.data.labels import Scale
from painseq.model.record import Loss


def num_outputs(loss: Loss, num_classes: int) -> int:
    """How many outputs a head has for `num_classes` classes; one for regression."""
    if loss == "mse":
        return 1
    return num_classes - 1 if loss == "corn" else num_classes


def values(outputs: Tensor, scale: Scale) -> Tensor:
    """A head's outputs (..., 1), shares of a scale, as numbers on it; they can lie beyond its ends."""
    return scale.low + (scale.high - scale.low) * outputs.float()


def shares(target: Tensor, scale: Scale) -> Tensor:
    """Numbers on a scale as shares of it: what a head learns by squared error."""
    return (target - scale.low) / (scale.high - scale.low)


def class_logits(loss: Loss, outputs: Tensor) -> Tensor:
    """A head's outputs as logits of the classes: their softmax is the classes' probabilities.

    Args:
        outputs: (..., K) for cross entropy, (..., K - 1) for CORN.

    Returns:
        (..., K): the outputs themselves, or the log-probabilities of the levels.
    """
    if loss == "cross_entropy":
        return outputs
    outputs = outputs.float()
    # Not torch.cumsum, which has no deterministic kernel on a GPU (--trainer.deterministic true).
    above = torch.stack([*accumulate(logsigmoid(outputs).unbind(-1))], dim=-1)
    zero = torch.zeros_like(above[..., :1])
    return torch.cat([zero, above], dim=-1) + torch.cat([logsigmoid(-outputs), zero], dim=-1)


def loss_sums(
    loss: Loss, outputs: Tensor, target: Tensor, weight: Tensor, smooth: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The weighted sum of a loss over rows, and what to divide it by.

    The two are kept apart so that a mean over batches, or over processes, is that of all their rows together. Nothing
    waits for the device: a row that does not count has weight 0.

    Args:
        outputs: (n, K), (n, K - 1) or (n, 1) of a head.
        target: (n,) int64 class indices, or for "mse" float shares of the scale; anything valid where the weight is 0.
        weight: (n,) how much each row counts.
        smooth: (K,) share of each class in a smoothed target, for cross entropy: a row's target distribution is
            `smooth` plus what it lacks to 1 on the row's class. None: all on the class.

    Returns:
        Two scalars. For CORN each row counts once for each question that it answers, as in the paper.
    """
    outputs, weight = outputs.float(), weight.float()
    if loss == "mse":
        return ((outputs[:, 0] - target) ** 2 * weight).sum(), weight.sum()
    if loss == "corn":
        level = torch.arange(outputs.shape[-1], device=outputs.device)
        asked = (target[:, None] >= level) * weight[:, None]
        said = torch.where(target[:, None] > level, logsigmoid(outputs), logsigmoid(-outputs))
        return -(asked * said).sum(), asked.sum()
    logarithm = outputs.log_softmax(dim=-1)
    rows = -logarithm.gather(1, target[:, None])[:, 0]
    if smooth is not None:
        rows = (1 - smooth.sum()) * rows - (logarithm * smooth).sum(dim=-1)
    return (rows * weight).sum(), weight.sum()
