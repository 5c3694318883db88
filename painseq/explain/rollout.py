"""Attention rollout: what a transformer's output has looked at, through all of its layers (Abnar and Zuidema 2020)."""

from __future__ import annotations

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.explain.score import FRAMES_AT_ONCE, Scorer, heads_of
from painseq.extractors import TimmBackbone
from painseq.heads.recorded_attention import recorded_attention, rolled_out, spread_over_pixels


def rollout(scorer: Scorer) -> Tensor:
    """Attention rollout of a head on pixels, or of a ViT that is the extractor: (T, S, S), the same over a patch.

    A head (`Head.pixel_attention`): all frames sum to what is not the CLS token's own share. A ViT looks at frames one
    by one, so that each frame sums to its own, and says nothing of which frame counts. Neither knows classes.

    Raises:
        PainseqError: neither head nor extractor is such a transformer; crops are needed.
    """
    if not scorer.clip.are_pixels:
        raise PainseqError("Attention rollout speaks of places in the face: it needs crops, not features.")
    with torch.no_grad():
        if not scorer.pixels_through:
            heads = heads_of(scorer.model)
            if all("pixels" in head.attends_to for head in heads):
                maps = [head.pixel_attention(scorer.x[None], scorer.mask)[0] for head in heads]
                return torch.stack(maps).mean(dim=0)
        elif is_vit(scorer.model.extractor):
            assert isinstance(scorer.model.extractor, TimmBackbone)
            some = torch.split(scorer.x[scorer.real], FRAMES_AT_ONCE)
            out = torch.zeros_like(scorer.x[:, 0])
            out[scorer.real] = torch.cat([vit_rollout(scorer.model.extractor, crops) for crops in some])
            return out
    raise PainseqError(
        "Attention rollout needs a head that attends to pixels, as ViViT does, or a vision transformer of timm as "
        "extractor that reads its CLS token or the mean of its tokens; this model has "
        f"{type(scorer.model.head).__name__} on {type(scorer.model.extractor).__name__}."
    )


def is_vit(extractor: nn.Module | None) -> bool:
    """Whether an extractor is a vision transformer that rollout knows."""
    if not isinstance(extractor, TimmBackbone):
        return False
    network = extractor.backbone
    plain = isinstance(network, VisionTransformer) and not isinstance(network, VisionTransformerDistilled)
    return bool(plain) and network.global_pool in ("token", "avg")


def vit_rollout(extractor: TimmBackbone, crops: Tensor) -> Tensor:
    """Of each frame by itself: (N, 3, S, S) to (N, S, S)."""
    network = extractor.backbone
    with recorded_attention() as layers:
        extractor(crops)
    rolled = rolled_out(layers)
    prefix = network.num_prefix_tokens
    row = rolled[:, 0] if network.global_pool == "token" else rolled[:, prefix:].mean(dim=1)
    height, width = network.patch_embed.grid_size
    return spread_over_pixels(row[:, prefix:].reshape(-1, height, width), crops.shape[-1])
