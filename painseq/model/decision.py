"""From logits to a clip's label and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from painseq.batch import masked_mean

NO_PREDICTION = -1
"""Label of a clip without any real frame."""


@dataclass(frozen=True)
class Decision:
    """What a head says of each clip of a batch.

    Args:
        label: (B,) int64, `NO_PREDICTION` for a clip without a real frame.
        probabilities: (B, K), rows sum to 1; NaN rows without a prediction.
        votes: (B, K) share of the frames that vote for each class, for frame heads; else None.
    """

    label: Tensor
    probabilities: Tensor
    votes: Tensor | None


def decide(
    level: Literal["frame", "video"], logits: Tensor, mask: Tensor, rule: Literal["mode", "median"] = "mode"
) -> Decision:
    """Labels and probabilities of a batch of clips.

    Frame heads: the label is the majority vote of the real frames, the probabilities are the mean of their
    softmax, which also settles a tied vote. Video heads: softmax and its largest entry.

    Args:
        level: the head's.
        logits: (B, T, K) or (B, K), of the classes.
        mask: (B, T) bool.
        rule: from probabilities to a label, or to a frame's vote. "mode": the most probable class. "median": the
            highest class that is reached with a probability above one half, as CORN decides between ordered levels.
    """
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
    empty = ~mask.any(dim=1)
    nan = torch.full_like(probabilities, float("nan"))
    return Decision(
        label=torch.where(empty, torch.full_like(label, NO_PREDICTION), label),
        probabilities=torch.where(empty[:, None], nan, probabilities),
        votes=None if votes is None else torch.where(empty[:, None], nan, votes),
    )


def estimate(level: Literal["frame", "video"], values: Tensor, mask: Tensor) -> Tensor:
    """Numbers of a batch of clips, (B,), for regression; NaN for a clip without a real frame.

    Frame heads: the mean over the real frames.

    Args:
        level: the head's.
        values: (B, T, 1) or (B, 1), on the scale.
        mask: (B, T) bool.
    """
    number = (masked_mean(values.float(), mask) if level == "frame" else values.float())[:, 0]
    return torch.where(mask.any(dim=1), number, torch.full_like(number, float("nan")))


def _choose(probabilities: Tensor, rule: Literal["mode", "median"]) -> Tensor:
    if rule == "mode":
        return probabilities.argmax(dim=-1)
    # Not torch.cumsum, which has no deterministic kernel on a GPU (--trainer.deterministic true).
    reached = torch.stack([*accumulate(probabilities.flip(-1).unbind(-1))], dim=-1)[..., :-1]
    return (reached > 0.5).sum(dim=-1)
