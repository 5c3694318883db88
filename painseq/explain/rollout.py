"""Attention rollout: how much a transformer's output attends to each place over all layers (Abnar and Zuidema 2020)."""

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
    """Return the attention rollout of a head on pixels, or of a ViT extractor, (T, S, S), constant over a patch.

    For a head (`Head.pixel_attention`), the sum over all frames is 1 minus the CLS token's share. A ViT processes
    frames one by one, so that the sum is per frame, and does not rate frames. Both are the same for all classes.

    Raises:
        PainseqError: neither head nor extractor is such a transformer, or the clip has no crops.
    """
    if not scorer.clip.are_pixels:
        raise PainseqError("Attention rollout makes maps of the face, so it needs crops, not features.")
    with torch.no_grad():
        if not scorer.pixels_through:
            heads = heads_of(scorer.model)
            if all("pixels" in head.attends_to for head in heads):
                maps = [head.pixel_attention(scorer.x[None], scorer.mask)[0] for head in heads]
                return torch.stack(maps).mean(dim=0)
        elif is_vit(scorer.model.extractor):
            assert isinstance(scorer.model.extractor, TimmBackbone)
            batches = torch.split(scorer.x[scorer.real], FRAMES_AT_ONCE)
            out = torch.zeros_like(scorer.x[:, 0])
            out[scorer.real] = torch.cat([vit_rollout(scorer.model.extractor, crops) for crops in batches])
            return out
    raise PainseqError(
        "Attention rollout needs a head that attends to pixels, such as ViViT, or a timm vision transformer as "
        "extractor whose features are the CLS token or the mean of its tokens; this model has "
        f"{scorer.model.head.name} on {type(scorer.model.extractor).__name__}."
    )


def is_vit(extractor: nn.Module | None) -> bool:
    """Whether an extractor is a vision transformer that rollout supports."""
    if not isinstance(extractor, TimmBackbone):
        return False
    network = extractor.backbone
    plain = isinstance(network, VisionTransformer) and not isinstance(network, VisionTransformerDistilled)
    return bool(plain) and network.global_pool in ("token", "avg")


def vit_rollout(extractor: TimmBackbone, crops: Tensor) -> Tensor:
    """Return the rollout of each frame by itself, (N, S, S), for crops (N, 3, S, S)."""
    network = extractor.backbone
    with recorded_attention() as layers:
        extractor(crops)
    rolled = rolled_out(layers)
    prefix = network.num_prefix_tokens
    row = rolled[:, 0] if network.global_pool == "token" else rolled[:, prefix:].mean(dim=1)
    height, width = network.patch_embed.grid_size
    return spread_over_pixels(row[:, prefix:].reshape(-1, height, width), crops.shape[-1])
