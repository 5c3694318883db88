"""From logits to a clip's label and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from painseq.batch import masked_mean
from painseq.model.prediction import NO_PREDICTION


@dataclass(frozen=True)
class Decision:
    """Predicted classes of a batch of clips.

    Args:
        label: (B,) int64, `NO_PREDICTION` for a clip without a valid frame.
        probabilities: (B, K), rows sum to 1; NaN rows where there is no prediction.
        votes: (B, K) share of the frames that vote for each class, for frame heads; None for video heads.
    """

    label: Tensor
    probabilities: Tensor
    votes: Tensor | None


def decide(
    level: Literal["frame", "video"],
    logits: Tensor,
    mask: Tensor,
    rule: Literal["mode", "median"] = "mode",
    threshold: float | None = None,
) -> Decision:
    """Return labels and probabilities of a batch of clips.

    Frame heads: the label is the majority vote of the valid frames; the probabilities are the mean of their softmax,
    which also breaks ties. Video heads: softmax and its largest entry. With a tuned threshold the label of either is
    the second class if the clip's probability of it is at least the threshold; votes are then only counted.

    Args:
        level: level of the head.
        logits: (B, T, K) or (B, K), class logits.
        mask: (B, T) bool, true for valid frames.
        rule: how probabilities become a label, or a frame's vote. "mode": the most probable class. "median": the
            highest class that is reached with a probability above one half, the decision rule of CORN.
        threshold: of the second class's probability, for K = 2; None: the label follows the rule.
    """
    assert threshold is None or logits.shape[-1] == 2
    logits = logits.float()
    votes = None
    if level == "frame":
        frames = logits.softmax(dim=-1)
        probabilities = masked_mean(frames, mask)
        ballots = torch.nn.functional.one_hot(_choose(frames, rule), logits.shape[-1]).to(frames.dtype)
        votes = masked_mean(ballots, mask)
        tied = votes >= votes.max(dim=-1, keepdim=True).values - 1e-6
        label = torch.where(tied, probabilities, -torch.ones_like(probabilities)).argmax(dim=-1)
    else:
        probabilities = logits.softmax(dim=-1)
        label = _choose(probabilities, rule)
    if threshold is not None:
        # In double precision: rounded to float32, a threshold between two probabilities could be one of them.
        label = (probabilities[:, 1].double() >= threshold).long()
    empty = ~mask.any(dim=1)
    nan = torch.full_like(probabilities, float("nan"))
    return Decision(
        label=torch.where(empty, torch.full_like(label, NO_PREDICTION), label),
        probabilities=torch.where(empty[:, None], nan, probabilities),
        votes=None if votes is None else torch.where(empty[:, None], nan, votes),
    )


def estimate(level: Literal["frame", "video"], values: Tensor, mask: Tensor) -> Tensor:
    """Return the predicted numbers of a batch of clips, (B,), for regression; NaN for a clip without a valid frame.

    Frame heads: the mean over the valid frames.

    Args:
        level: level of the head.
        values: (B, T, 1) or (B, 1), on the scale.
        mask: (B, T) bool, true for valid frames.
    """
    number = (masked_mean(values.float(), mask) if level == "frame" else values.float())[:, 0]
    return torch.where(mask.any(dim=1), number, torch.full_like(number, float("nan")))


def _choose(probabilities: Tensor, rule: Literal["mode", "median"]) -> Tensor:
    if rule == "mode":
        return probabilities.argmax(dim=-1)
    # Not torch.cumsum, which has no deterministic kernel on a GPU (--trainer.deterministic true).
    reached = torch.stack([*accumulate(probabilities.flip(-1).unbind(-1))], dim=-1)[..., :-1]
    return (reached > 0.5).sum(dim=-1)
