"""Run an extractor on a batch of clips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from painseq.batch import Batch
from painseq.extractors.extractor import Extractor
from painseq.extractors.pixels import Pixels


def batch_features(extractor: Extractor | None, batch: Batch) -> Tensor:
    """Return (B, T, *F) float: the features of a batch, or `frame_features` of its crops."""
    if batch.features is not None:
        return batch.features.float()
    assert batch.video is not None
    return frame_features(extractor, batch.video, batch.mask, batch.extra)


def frame_features(extractor: Extractor | None, x: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
    """Run an extractor on the crops of a batch of clips.

    Args:
        extractor: None, or `Pixels`, if the head takes the crops themselves.
        x: (B, T, 3, H, W) crops, uint8 or float 0..255.
        mask: (B, T) bool; only real frames are passed to the network.
        extra: (B, T, E) streams that accompany the crops, appended to the features.

    Returns:
        (B, T, *F) float, zero in masked frames unless they are the crops.

    Raises:
        PainseqError: the crops do not have the extractor's input size.
    """
    if extractor is None:
        return x.float()
    if isinstance(extractor, Pixels):
        extractor.check_crops(x.flatten(0, 1))
        return x.float()
    crops = x[mask]
    if extractor.training and len(crops) == 1 and not _syncs_batch_norm(extractor):
        # A single frame has no variance for batch norm: normalise it with the running statistics.
        extractor.eval()
        real: Tensor = extractor(crops)
        extractor.train()
    else:
        real = extractor(crops)
    out = real.new_zeros((*mask.shape, *real.shape[1:]))
    out[mask] = real
    return out if extra is None else torch.cat([out, extra.to(out.dtype)], dim=-1)


def _syncs_batch_norm(extractor: Extractor) -> bool:
    """Whether batch norm is synchronised across processes, so that every process must take part."""
    return any(isinstance(module, nn.SyncBatchNorm) for module in extractor.modules())
