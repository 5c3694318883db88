"""Attention rollout: what a transformer's output has looked at, through all of its layers (Abnar and Zuidema 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from painseq.errors import PainseqError
from painseq.explain.score import FRAMES_AT_ONCE, Scorer, heads_of
from painseq.extractors import TimmBackbone
from painseq.heads import ViViT


class _Recorder(TorchFunctionMode):
    """Fused attention does not hand out its weights: here they are computed beside it, from the same arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.layers.append(_weights(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: object,
) -> Tensor:
    scores = query.float() @ key.float().transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(dim=-1).mean(dim=1)


@contextmanager
def recorded_attention() -> Iterator[list[Tensor]]:
    """Within, every layer of fused attention appends its weights, (N, L, L), the mean over its heads; rows sum to 1."""
    with _Recorder() as recorder, torch.no_grad():
        yield recorder.layers


def rolled_out(layers: Sequence[Tensor]) -> Tensor:
    """(N, L, L): how much of each token of the input is in each token of the output; rows sum to 1.

    Each layer's weights are mixed half and half with the identity, which stands for the residual connection, and the
    layers are multiplied. Attention alone: what the dense layers do to a token is left out, and so is the class.

    Args:
        layers: (N, L, L) of each layer, from input to output.
    """
    if not layers:
        raise PainseqError("No fused attention was computed, so there is none to roll out (is TIMM_FUSED_ATTN=0 set?).")
    rolled = torch.eye(layers[0].shape[-1], device=layers[0].device).expand_as(layers[0])
    for weights in layers:
        rolled = (weights @ rolled + rolled) / 2
    return rolled


def rollout(scorer: Scorer) -> Tensor:
    """Attention rollout of a ViViT head, or of a ViT that is the extractor: (T, S, S), the same over a patch.

    ViViT: all frames sum to what is not the CLS token's own share. A ViT looks at frames one by one, so that each frame
    sums to its own, and says nothing of which frame counts. Neither knows classes.

    Raises:
        PainseqError: neither head nor extractor is such a transformer; crops are needed.
    """
    if not scorer.clip.are_pixels:
        raise PainseqError("Attention rollout speaks of places in the face: it needs crops, not features.")
    with torch.no_grad():
        if not scorer.pixels_through:
            heads = [head for head in heads_of(scorer.model) if isinstance(head, ViViT)]
            maps = [vivit_rollout(head, scorer.x[None], scorer.mask)[0] for head in heads]
            if maps:
                return torch.stack(maps).mean(dim=0)
        elif is_vit(scorer.model.extractor):
            assert isinstance(scorer.model.extractor, TimmBackbone)
            some = torch.split(scorer.x[scorer.real], FRAMES_AT_ONCE)
            out = torch.zeros_like(scorer.x[:, 0])
            out[scorer.real] = torch.cat([vit_rollout(scorer.model.extractor, crops) for crops in some])
            return out
    raise PainseqError(
        f"Attention rollout needs a ViViT head, or a vision transformer of timm as extractor that reads its CLS token "
        f"or the mean of its tokens; this model has {type(scorer.model.head).__name__} on "
        f"{type(scorer.model.extractor).__name__}."
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
    return _spread(row[:, prefix:].reshape(-1, height, width), crops.shape[-1])


def vivit_rollout(head: ViViT, x: Tensor, mask: Tensor) -> Tensor:
    """(B, T, 3, S, S) and (B, T) to (B, T, S, S); a tubelet's share is divided among its real frames."""
    with recorded_attention() as layers:
        head(x, mask)
    (batch, frames), places = mask.shape, head.in_shape[-1] // head.tubelet[1]
    length = head.tubelet[0]
    real = F.pad(mask, (0, -frames % length)).reshape(batch, -1, length)
    moments = real.any(dim=2)
    if head.time is None:
        counted = moments[:, :, None].expand(-1, -1, places**2).flatten(1)
        grid = _read(rolled_out(layers), counted, head.pool).reshape(batch, -1, places, places)
    else:
        depth = len(head.space.blocks)
        everywhere = torch.ones_like(moments.flatten()[:, None]).expand(-1, places**2)
        of_space = _read(rolled_out(layers[:depth]), everywhere, head.pool)
        of_time = _read(rolled_out(layers[depth:]), moments, head.pool)
        grid = of_time[..., None, None] * of_space.reshape(batch, -1, places, places)
    share = real / real.sum(dim=2, keepdim=True).clamp(min=1)
    shared = (grid[:, :, None] * share[..., None, None]).flatten(1, 2)[:, :frames]
    return _spread(shared.flatten(0, 1), x.shape[-1]).reshape(*mask.shape, *x.shape[-2:])


def _read(rolled: Tensor, counted: Tensor, pool: str) -> Tensor:
    """What an encoder hands on has looked at: (N, 1 + L, 1 + L), CLS first, to (N, L); `counted`, (N, L), are real."""
    if pool == "cls":
        return rolled[:, 0, 1:] * counted
    rows = rolled[:, 1:, 1:] * counted[:, :, None]
    return rows.sum(dim=1) / counted.sum(dim=1, keepdim=True).clamp(min=1) * counted


def _spread(grid: Tensor, side: int) -> Tensor:
    """(N, h, w) shares of patches to (N, S, S) shares of their pixels, with the same sum."""
    pixels = F.interpolate(grid[:, None], size=(side, side), mode="nearest")[:, 0]
    return pixels * (grid.shape[-2] * grid.shape[-1] / side**2)
