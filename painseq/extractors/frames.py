"""Crops of a batch of clips through an extractor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from painseq.extractors.extractor import Extractor


def frame_features(extractor: Extractor | None, x: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
    """Features of a batch of clips, whichever view it is in.

    Args:
        extractor: None where frames are features already.
        x: (B, T, 3, H, W) crops, uint8 or float 0..255, or (B, T, *F) features, which pass.
        mask: (B, T) bool; only real frames go through the network.
        extra: (B, T, E) streams beside the crops, put behind the features.

    Returns:
        (B, T, *F) float, zero in masked frames if they came from crops.
    """
    if extractor is None or x.ndim != 5 or tuple(x.shape[2:]) == tuple(extractor.out_shape):
        return x.float()
    crops = x[mask]
    if extractor.training and len(crops) == 1 and not _counts_over_processes(extractor):
        # A single frame has no variance for batch norm: it is normalised as in prediction.
        extractor.eval()
        real: Tensor = extractor(crops)
        extractor.train()
    else:
        real = extractor(crops)
    out = real.new_zeros((*mask.shape, *real.shape[1:]))
    out[mask] = real
    return out if extra is None else torch.cat([out, extra.to(out.dtype)], dim=-1)


def _counts_over_processes(extractor: Extractor) -> bool:
    """Whether batch norm counts the frames of all processes together, so that each must come to it with its own."""
    return any(isinstance(module, nn.SyncBatchNorm) for module in extractor.modules())
