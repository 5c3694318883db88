"""Grad-CAM through extractor and head: where in the face, in each frame, a class's score comes from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from painseq.checkpoint import PainModel
from painseq.errors import PainseqError
from painseq.extractors import VGG16, TimmBackbone

FRAMES_AT_ONCE = 32


def grad_cam(model: PainModel, crops: Tensor, present: Tensor, target: int, extra: Tensor | None = None) -> Tensor:
    """Class activation maps of one clip (Selvaraju et al. 2017), on the extractor's last maps.

    The gradient flows from the class's score through time to every frame. The score is the logit of a video head;
    for a frame head, whose label is a vote, it is the mean log-probability of the class over the real frames.

    Args:
        crops: (T, 3, S, S) uint8.
        present: (T,) bool; frames without a face get a map of zeros.
        target: class index.
        extra: (T, E) streams that the head is given beside the features; they are held as they are.

    Returns:
        (T, S, S) float in 0..1, on one scale over the clip: 1 is its strongest place. All zeros where nothing
        speaks for the class.

    Raises:
        PainseqError: the extractor has no maps, or no frame has a face.
    """
    if "cnn" not in model.streams:
        raise PainseqError(
            f"This model is not given the face's picture (its streams: {', '.join(model.streams)}), so there is no map "
            "of it to draw."
        )
    if model.record["baseline_clips"]:
        raise PainseqError(
            "This model takes features relative to each subject's own, which Grad-CAM here does not know."
        )
    extractor = model.extractor
    if not isinstance(extractor, VGG16 | TimmBackbone):
        raise PainseqError(
            f"Grad-CAM needs a convolutional extractor (VGG16, TimmBackbone); this model has "
            f"{type(extractor).__name__}."
        )
    real = present.nonzero()[:, 0]
    if not len(real):
        raise PainseqError("No face found in any frame, so there is nothing to explain.")
    with torch.no_grad():
        starts = range(0, len(real), FRAMES_AT_ONCE)
        frames = [crops[real[start : start + FRAMES_AT_ONCE]].to(model.device) for start in starts]
        maps = torch.cat([extractor.maps(some).float() for some in frames])
    if maps.ndim != 4:
        raise PainseqError(f"{type(extractor).__name__} gives no maps in space: {tuple(maps.shape[1:])} a frame.")
    maps.requires_grad_()
    features = extractor.pool(maps)
    clip = features.new_zeros((1, len(crops), *features.shape[1:])).index_put((torch.zeros_like(real), real), features)
    mask = present[None].to(model.device)
    if extra is not None:
        clip = torch.cat([clip, extra[None].to(clip)], dim=-1)
    # cuDNN's recurrent kernels have no backward pass in eval mode.
    with torch.backends.cudnn.flags(enabled=False):
        logits = model.classify(clip, mask)[0]
        score = logits.log_softmax(-1)[real, target].mean() if model.head.level == "frame" else logits[target]
        (gradient,) = torch.autograd.grad(score, maps)
    with torch.no_grad():
        cam = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu()
        cam = cam / cam.max().clamp(min=torch.finfo(cam.dtype).tiny)
        cam = nn.functional.interpolate(cam, size=crops.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        out = torch.zeros((len(crops), *crops.shape[-2:]))
        out[real] = cam.cpu()
    return out
