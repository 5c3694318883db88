"""All rows of a part at once, for heads that are not fitted by gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from painseq.batch import Batch
from painseq.data.datamodule import PainDataModule
from painseq.extractors.frames import batch_features
from painseq.heads.head import Rows
from painseq.records import UNKNOWN, Part
from painseq.training.classifier import PainClassifier


@torch.no_grad()
def rows_of(
    model: PainClassifier, data: PainDataModule, part: Part, change: Callable[[Rows], Rows] | None = None
) -> Rows | None:
    """Return the rows of a part that the head of a bound classifier learns from.

    Rows are what counts in the loss of other heads: for a frame head, frames with a face; for a video head, clips with
    such a frame; in both cases only with a known label. Crops pass through the extractor once.

    Args:
        change: is applied to the rows of each batch.

    Returns:
        The rows; None if the part has none.
    """
    batches = []
    for batch in data.loader(part):
        rows = _rows_of_batch(model, batch.to(model.device))
        if len(rows.target):
            batches.append(rows if change is None else change(rows))
    if not batches:
        return None
    longest = max(rows.mask.shape[1] for rows in batches) if batches[0].mask.ndim == 2 else 0
    return Rows(
        x=torch.cat([_padded(rows.x, longest) for rows in batches]),
        mask=torch.cat([_padded(rows.mask, longest) for rows in batches]),
        target=torch.cat([rows.target for rows in batches]),
        weights=torch.cat([rows.weights for rows in batches]),
    )


def _rows_of_batch(model: PainClassifier, batch: Batch) -> Rows:
    assert model.head is not None
    x, mask, target = batch_features(model.extractor, batch), batch.mask, batch.target
    if model.head.level == "frame":
        x, target, mask = x.flatten(0, 1), target[:, None].expand_as(mask).flatten(), mask.flatten()
        valid = mask
    else:
        valid = mask.any(dim=1)
    kept = valid & (target != UNKNOWN)
    target = target[kept]
    weights = model.objective.row_weights(target, model.loss_weights).float()
    return Rows(x[kept].cpu(), mask[kept].cpu(), model.objective.targets(target).cpu(), weights.cpu())


def _padded(tensor: Tensor, length: int) -> Tensor:
    """Pad clips at the end with zeros to `length` frames; 0 leaves them unchanged."""
    missing = length - tensor.shape[1] if length else 0
    if missing <= 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((len(tensor), missing, *tensor.shape[2:]))], dim=1)
