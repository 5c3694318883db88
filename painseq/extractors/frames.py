"""Crops of a batch of clips through an extractor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from painseq.batch import Batch
from painseq.extractors.extractor import Extractor
from painseq.extractors.pixels import Pixels


def batch_features(extractor: Extractor | None, batch: Batch) -> Tensor:
    """(B, T, *F) float: the features of a batch, or what `frame_features` makes of its crops."""
    if batch.features is not None:
        return batch.features.float()
    assert batch.video is not None
    return frame_features(extractor, batch.video, batch.mask, batch.extra)


def frame_features(extractor: Extractor | None, x: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
    """What an extractor makes of the crops of a batch of clips.

    Args:
        extractor: None, or `Pixels`, where the head takes the crops themselves.
        x: (B, T, 3, H, W) crops, uint8 or float 0..255.
        mask: (B, T) bool; only real frames go through the network.
        extra: (B, T, E) streams beside the crops, put behind the features.

    Returns:
        (B, T, *F) float, zero in masked frames unless they are the crops.

    Raises:
        PainseqError: crops of another size than the extractor takes.
    """
    if extractor is None:
        return x.float()
    if isinstance(extractor, Pixels):
        extractor.check_crops(x.flatten(0, 1))
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
