"""Methods that speak of frames: which of them decided."""

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
    """How much the head attends to each frame (`Head.frame_attention`), (T,), summing to 1; it does not know classes.

    For averaged models the mean of theirs.

    Raises:
        PainseqError: the head has no attention over time.
    """
    heads = heads_of(scorer.model)
    for head in heads:
        if "frames" not in head.attends_to:
            raise PainseqError(
                f"{type(head).__name__} has no attention over time; AttentionMIL, BiLSTMAttention, TwoStream and ViViT "
                "have. Choose another method."
            )
    with torch.no_grad():
        x, mask = scorer.head_input(scorer.known_features), scorer.mask
        return torch.stack([head.frame_attention(x, mask)[0] for head in heads]).mean(dim=0)


def votes(scorer: Scorer) -> Tensor:
    """A frame head's votes for the class, (T,): each frame that votes for it counts 1 / (real frames); the sum decides.

    Raises:
        PainseqError: the head does not vote, or gives numbers.
    """
    model = scorer.model
    if model.head.level != "frame" or model.predicts_values:
        raise PainseqError(
            f"{type(model.head).__name__} does not vote frame by frame for classes here; only frame heads do."
        )
    with torch.no_grad():
        logits = scorer.outputs(scorer.known_features, scorer.mask)[0]
    # Each frame as a clip of its own: its label is its vote.
    ballots = decide("frame", logits[:, None], scorer.mask[0][:, None], model.objective.rule)
    return (ballots.label == scorer.target).float() / len(scorer.real)
