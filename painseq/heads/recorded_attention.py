"""Recording of attention weights during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from painseq.errors import PainseqError


class _Recorder(TorchFunctionMode):
    """Computes the weights of fused attention, which does not return them, from the same arguments."""

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
    *_: object,
    scale: float | None = None,
    **__: object,
) -> Tensor:
    scores = query.float() @ key.float().transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(dim=-1).mean(dim=1)


@contextmanager
def recorded_attention() -> Iterator[list[Tensor]]:
    """Record the weights of every layer of fused attention: (N, L, L), mean over heads; rows sum to 1.

    Example:
        >>> with recorded_attention() as layers:  # doctest: +SKIP
        ...     head(x, mask)
    """
    with _Recorder() as recorder, torch.no_grad():
        yield recorder.layers


def rolled_out(layers: Sequence[Tensor]) -> Tensor:
    """Attention rollout, (N, L, L): share of each input token in each output token; rows sum to 1.

    Abnar and Zuidema 2020. Each layer's weights are averaged with the identity, for the residual connection, and the
    layers are multiplied. It ignores dense layers and does not depend on the class.

    Args:
        layers: (N, L, L) of each layer, from input to output.

    Raises:
        PainseqError: no layers.
    """
    if not layers:
        raise PainseqError("No fused attention was computed, so it cannot be rolled out (is TIMM_FUSED_ATTN=0 set?).")
    rolled = torch.eye(layers[0].shape[-1], device=layers[0].device).expand_as(layers[0])
    for weights in layers:
        rolled = (weights @ rolled + rolled) / 2
    return rolled


def last_attention(head: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Attention that each frame receives in a head's last self-attention, (B, T); sums to 1 over real frames.

    It is the mean over attention heads and over the real frames that attend.

    Args:
        head: called with x and mask; in its last attention, real frames come first (`batch.real_frames_first`).
        x: (B, T, *F) frames.
        mask: (B, T) bool.
    """
    with recorded_attention() as layers:
        head(x, mask)
    received = torch.zeros(mask.shape, device=mask.device)
    for weights, real, row in zip(layers[-1], mask, received, strict=True):
        count = int(real.sum())
        row[real] = weights[:count, :count].mean(dim=0)
    return received


def spread_over_pixels(grid: Tensor, side: int) -> Tensor:
    """Convert (N, h, w) shares of patches to (N, S, S) shares of their pixels, with the same sum."""
    pixels = F.interpolate(grid[:, None], size=(side, side), mode="nearest")[:, 0]
    return pixels * (grid.shape[-2] * grid.shape[-1] / side**2)
