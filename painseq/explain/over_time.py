"""Methods that speak of frames: which of them decided."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.explain.rollout import recorded_attention, vivit_rollout
from painseq.explain.score import Scorer, heads_of, rule_of
from painseq.heads import AttentionMIL, BiLSTMAttention, Head, TwoStream, ViViT
from painseq.model.decision import decide


def frame_occlusion(
    scorer: Scorer, frames_together: int | None = None, on_progress: Callable[[float], None] | None = None
) -> Tensor:
    """How the score falls without a frame, as if no face had been found in it: (T,).

    Args:
        frames_together: so many consecutive frames, it in their middle, are left out; None: it alone. Neighbours show
            nearly the same, so that one alone is hardly missed.

    Raises:
        PainseqError: somewhere no frame with a face would be left, and so no score.
    """
    together = frames_together or 1
    frames = torch.arange(len(scorer.clip), device=scorer.mask.device)
    out = torch.zeros(len(scorer.clip), device=scorer.mask.device)
    features = scorer.known_features
    done = 0
    for some in torch.split(scorer.real, scorer.copies_at_once()):
        # Of an even number one more lies behind the frame than before it.
        after = frames - some[:, None]
        without = scorer.mask & ((after < -((together - 1) // 2)) | (after > together // 2))
        if not without.any(dim=1).all():
            raise PainseqError(
                f"Frame occlusion leaves {together} frame(s) out at a time, and of this clip's {len(scorer.real)} with "
                "a face none would be left. Choose another method, such as integrated_gradients."
            )
        with torch.no_grad():
            out[some] = scorer.score - scorer.of_features(features.expand(len(some), *features.shape[1:]), without)
        done += len(some)
        if on_progress is not None:
            on_progress(done / len(scorer.real))
    return out


def attention(scorer: Scorer) -> Tensor:
    """How much the head attends to each frame, (T,), summing to 1; it does not know classes.

    AttentionMIL: the weights of its pooling. BiLSTMAttention, TwoStream: what a frame gets of the last self-attention,
    mean over its heads and over the real frames that ask. ViViT: attention rollout, summed over the places of a moment.
    For averaged models the mean of theirs.

    Raises:
        PainseqError: the head has no attention over time.
    """
    with torch.no_grad():
        return torch.stack([_attention(head, scorer) for head in heads_of(scorer.model)]).mean(dim=0)


def votes(scorer: Scorer) -> Tensor:
    """A frame head's votes for the class, (T,): each frame that votes for it counts 1 / (real frames); the sum decides.

    Raises:
        PainseqError: the head does not vote, or gives numbers.
    """
    model = scorer.model
    if model.head.level != "frame" or model.scale is not None:
        raise PainseqError(
            f"{type(model.head).__name__} does not vote frame by frame for classes here; only frame heads do."
        )
    with torch.no_grad():
        logits = scorer.outputs(scorer.known_features, scorer.mask)[0]
    # Each frame as a clip of its own: its label is its vote.
    ballots = decide("frame", logits[:, None], scorer.mask[0][:, None], rule_of(model))
    return (ballots.label == scorer.target).float() / len(scorer.real)


def _attention(head: Head, scorer: Scorer) -> Tensor:
    x, mask = scorer.head_input(scorer.known_features), scorer.mask
    if isinstance(head, AttentionMIL):
        return head.frame_weights(x, mask)[0]
    if isinstance(head, ViViT):
        rolled = vivit_rollout(head, x, mask)[0].flatten(1).sum(dim=1)
        return rolled / rolled.sum()
    if isinstance(head, BiLSTMAttention | TwoStream):
        with recorded_attention() as layers:
            head(x, mask)
        # Real frames stand first there, and each of them asks.
        count = len(scorer.real)
        out = torch.zeros(len(scorer.clip), device=mask.device)
        out[scorer.real] = layers[-1][0, :count, :count].mean(dim=0)
        return out
    raise PainseqError(
        f"{type(head).__name__} has no attention over time; AttentionMIL, BiLSTMAttention, TwoStream and ViViT have."
    )
