"""Methods that attribute to frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.explain.score import Scorer, heads_of
from painseq.model.decision import decide


def frame_occlusion(
    scorer: Scorer, frames_together: int | None = None, on_progress: Callable[[float], None] | None = None
) -> Tensor:
    """Return how much the score falls without each frame, as if no face had been found in it, (T,).

    Args:
        frames_together: number of consecutive frames to leave out, centred on each frame; None: 1. Neighbouring frames
            are nearly equal, so that leaving out one changes the score little.

    Raises:
        PainseqError: no frame with a face would be left, and so no score.
    """
    together = frames_together or 1
    frames = torch.arange(len(scorer.clip), device=scorer.mask.device)
    out = torch.zeros(len(scorer.clip), device=scorer.mask.device)
    features = scorer.known_features
    done = 0
    for batch in torch.split(scorer.real, scorer.copies_at_once()):
        # For an even number, one more frame follows than precedes.
        offset = frames - batch[:, None]
        without = scorer.mask & ((offset < -((together - 1) // 2)) | (offset > together // 2))
        if not without.any(dim=1).all():
            raise PainseqError(
                f"Frame occlusion leaves out {together} frame(s) at a time, and would leave none of this clip's "
                f"{len(scorer.real)} with a face. Choose another method, such as integrated_gradients."
            )
        with torch.no_grad():
            out[batch] = scorer.score - scorer.of_features(features.expand(len(batch), *features.shape[1:]), without)
        done += len(batch)
        if on_progress is not None:
            on_progress(done / len(scorer.real))
    return out


def attention(scorer: Scorer) -> Tensor:
    """Return the head's attention to each frame (`Head.frame_attention`), (T,), summing to 1; the same for all classes.

    For averaged models it is the mean over the members.

    Raises:
        PainseqError: the head has no attention over time.
    """
    heads = heads_of(scorer.model)
    for head in heads:
        if "frames" not in head.attends_to:
            raise PainseqError(
                f"{head.name} has no attention over time; AttentionMIL, BiLSTMAttention, TwoStream and ViViT "
                "do. Choose another method."
            )
    with torch.no_grad():
        x, mask = scorer.head_input(scorer.known_features), scorer.mask
        return torch.stack([head.frame_attention(x, mask)[0] for head in heads]).mean(dim=0)


def votes(scorer: Scorer) -> Tensor:
    """Return a frame head's votes for the class, (T,): 1 / (number of frames with a face) for each frame with its vote.

    Raises:
        PainseqError: the head does not vote, or predicts values, or a tuned threshold decides instead.
    """
    model = scorer.model
    if model.threshold is not None:
        raise PainseqError(
            f"The label of this model follows its tuned threshold ({model.threshold:.4f}) of the mean probability, not "
            "the votes of frames. Choose another method."
        )
    if model.head.level != "frame" or model.predicts_values:
        raise PainseqError(
            f"{model.head.name} does not vote frame by frame for classes; only frame heads of classes do."
        )
    with torch.no_grad():
        logits = scorer.outputs(scorer.known_features, scorer.mask)[0]
    # Each frame is decided as a clip by itself: its label is its vote.
    decisions = decide("frame", logits[:, None], scorer.mask[0][:, None], model.objective.rule)
    return (decisions.label == scorer.target).float() / len(scorer.real)
