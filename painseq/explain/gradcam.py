"""Grad-CAM through extractor and head: maps of the places in each frame that contribute to a class's score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.explain.score import FRAMES_AT_ONCE, Scorer
from painseq.extractors import VGG16, Extractor, TimmBackbone

FEWEST_PLACES = 7
"""Smallest side of the maps of the default layer: coarser maps cannot separate eyes and brows. Most networks have 7 at
the end, for crops of 224 pixels."""


def list_layers(extractor: Extractor | None) -> dict[str, tuple[int, int, int]]:
    """List the layers for Grad-CAM, from input to output, with the shape (C, h, w) of their maps.

    For VGG16: block1 .. block5, the last ReLU of each. For timm: the stages in the network's `feature_info`, by module
    name. Any other module with maps (N, C, h, w) can be used by its name in `named_modules`.

    Raises:
        PainseqError: the extractor has no spatial maps.
    """
    if not isinstance(extractor, VGG16 | TimmBackbone):
        raise PainseqError(
            f"Grad-CAM needs a convolutional extractor (VGG16, TimmBackbone); this model has "
            f"{type(extractor).__name__}."
        )
    modules = _modules(extractor)
    shapes: dict[str, tuple[int, int, int]] = {}
    side = extractor.input_size_px
    # A network that is not trained may have buffers alone.
    tensor = next(chain(extractor.parameters(), extractor.buffers()), torch.zeros(0))
    with torch.no_grad():
        for name, module in modules.items():
            with _outputs_of(module) as outputs:
                extractor(torch.zeros(1, 3, side, side, device=tensor.device))
            if outputs and outputs[-1].ndim == 4 and min(outputs[-1].shape[2:]) > 1:
                _, channels, height, width = outputs[-1].shape
                shapes[name] = (channels, height, width)
    # Transformers with a grid have the channels last, but not all of them declare it.
    stages = {stage["module"]: stage["num_chs"] for stage in getattr(extractor.network, "feature_info", ())}
    channels_last = getattr(extractor.network, "output_fmt", "NCHW") == "NHWC" or any(
        channels != stages.get(name, channels) == width for name, (channels, _, width) in shapes.items()
    )
    if not shapes or channels_last:
        raise PainseqError(
            f"{type(extractor).__name__} {getattr(extractor, 'model', '')} gives no spatial maps, which Grad-CAM "
            "needs. Choose another method: rollout for a vision transformer, integrated_gradients for any."
        )
    return shapes


def default_layer(layers: Mapping[str, tuple[int, int, int]]) -> str:
    """Return the last layer whose maps have a side of at least `FEWEST_PLACES`, or else the layer with the finest maps.

    The last maps of a network are coarse for small crops: 3 x 3 places for a ResNet on crops of 80 pixels.
    """
    fine = [name for name, (_, height, width) in layers.items() if min(height, width) >= FEWEST_PLACES]
    return fine[-1] if fine else max(layers, key=lambda name: min(layers[name][1:]))


def grad_cam(
    scorer: Scorer, layer: str | None = None, on_progress: Callable[[float], None] | None = None
) -> tuple[Tensor, str]:
    """Compute class activation maps of one clip (Selvaraju et al. 2017).

    The gradient flows from the score through time to every frame. Its mean over the places of a map is the map's
    weight; the positive part of the weighted sum is resized to the crop.

    Crops pass the extractor twice, in batches: once for the features, which the head reads together, and once for the
    maps. So memory does not grow with the clip, for any layer.

    Args:
        layer: name from `list_layers`, or of any module with maps; None: `default_layer`.
        on_progress: called with the finished share.

    Returns:
        (T, S, S), zero where nothing contributes to the class, and the layer's name.

    Raises:
        PainseqError: no crops, an extractor without maps, an unknown layer.
    """
    extractor = scorer.model.extractor
    if not scorer.clip.are_pixels:
        raise PainseqError("Grad-CAM makes maps of the face, so it needs crops, not features.")
    layers = list_layers(extractor)
    assert extractor is not None
    name = default_layer(layers) if layer is None else layer
    module = _modules(extractor).get(name) or dict(extractor.network.named_modules()).get(name)
    if module is None:
        raise PainseqError(f"{type(extractor).__name__} has no layer {name!r}; its layers: {', '.join(layers)}.")
    features = scorer.known_features.clone().requires_grad_()
    (feature_gradient,) = torch.autograd.grad(scorer.of_features(features).sum(), features)
    size = scorer.x.shape[-2:]
    out = torch.zeros_like(scorer.x[:, 0])
    done = 0
    for batch in torch.split(scorer.real, FRAMES_AT_ONCE):
        with _outputs_of(module) as outputs:
            batch_features = extractor(scorer.x[batch])
        maps = outputs[-1] if outputs else None
        if maps is None or maps.ndim != 4:
            raise PainseqError(f"Layer {name!r} gives no spatial maps; layers that do: {', '.join(layers)}.")
        (gradient,) = torch.autograd.grad(batch_features, maps, feature_gradient[0, batch], allow_unused=True)
        if gradient is None:
            raise PainseqError(f"Layer {name!r} does not affect the features; layers that do: {', '.join(layers)}.")
        with torch.no_grad():
            cam = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu()
            out[batch] = nn.functional.interpolate(cam, size=size, mode="bilinear", align_corners=False)[:, 0]
        done += len(batch)
        if on_progress is not None:
            on_progress(done / len(scorer.real))
    return out, name


def _modules(extractor: Extractor) -> dict[str, nn.Module]:
    """Return the listed layers; a VGG16 block is its last ReLU, before the pooling."""
    if isinstance(extractor, VGG16):
        relus = [(f"features.{n}", m) for n, m in extractor.features.named_children() if isinstance(m, nn.ReLU)]
        blocks = [block for block in extractor.block_names() if block != "fc"]
        return {block: [m for name, m in relus if extractor.in_block(name, block)][-1] for block in blocks}
    known = dict(extractor.network.named_modules())
    stages = [stage["module"] for stage in getattr(extractor.network, "feature_info", ())]
    return {name: known[name] for name in stages if name in known}


@contextmanager
def _outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of a module that are tensors; the gradient graph begins there."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: object, out: object) -> object:
        if not isinstance(out, Tensor):
            return out
        outputs.append(out.detach().requires_grad_(torch.is_grad_enabled()))
        # A copy is passed on, since the next layer may work in place.
        return outputs[-1].clone()

    handle = module.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()
