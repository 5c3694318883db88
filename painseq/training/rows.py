"""All of a part at once, for heads that are not fitted by gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from painseq.batch import Batch
from painseq.data.datamodule import PainDataModule
from painseq.extractors.frames import batch_features
from painseq.heads.head import Rows
from painseq.records import UNKNOWN, Part
from painseq.training.classifier import PainClassifier


@torch.no_grad()
def rows_of(model: PainClassifier, data: PainDataModule, part: Part) -> Rows | None:
    """What the head of a bound classifier learns from a part.

    Rows are what counts in the loss of other heads: real frames of a frame head, clips with a real frame of a video
    head; neither of hidden labels. Crops pass the extractor, once.

    Returns:
        None where the part has no such row.
    """
    parts = [_rows_of_batch(model, batch.to(model.device)) for batch in data.loader(part)]
    if not sum(len(rows.target) for rows in parts):
        return None
    longest = max(rows.mask.shape[1] for rows in parts) if parts[0].mask.ndim == 2 else 0
    return Rows(
        x=torch.cat([_padded(rows.x, longest) for rows in parts]),
        mask=torch.cat([_padded(rows.mask, longest) for rows in parts]),
        target=torch.cat([rows.target for rows in parts]),
        weights=torch.cat([rows.weights for rows in parts]),
    )


def _rows_of_batch(model: PainClassifier, batch: Batch) -> Rows:
    assert model.head is not None
    x, mask, target = batch_features(model.extractor, batch), batch.mask, batch.target
    if model.head.level == "frame":
        x, target, mask = x.flatten(0, 1), target[:, None].expand_as(mask).flatten(), mask.flatten()
        real = mask
    else:
        real = mask.any(dim=1)
    kept = real & (target != UNKNOWN)
    target = target[kept]
    weights = model.objective.row_weights(target, model.loss_weights).float()
    return Rows(x[kept].cpu(), mask[kept].cpu(), model.objective.targets(target).cpu(), weights.cpu())


def _padded(tensor: Tensor, length: int) -> Tensor:
    """Clips with zeros at their ends, up to so many frames; rows of frames (0) as they are."""
    missing = length - tensor.shape[1] if length else 0
    if missing <= 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((len(tensor), missing, *tensor.shape[2:]))], dim=1)
