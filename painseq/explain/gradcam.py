"""Grad-CAM through extractor and head: where in the face, in each frame, a class's score comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.explain.score import FRAMES_AT_ONCE, Scorer
from painseq.extractors import VGG16, Extractor, TimmBackbone

FEWEST_PLACES = 7
"""Along a side of the maps of the default layer: below this a map cannot tell the eyes from the brows. Seven is what
most networks have at the end on crops of 224 pixels."""


def list_layers(extractor: Extractor | None) -> dict[str, tuple[int, int, int]]:
    """The layers that Grad-CAM can look at, from input to output, and the shape (C, h, w) of their maps.

    VGG16: block1 .. block5, the last ReLU of each. timm: the stages that the network lists (`feature_info`), by timm's
    module names. Any other module by its name (`named_modules`) that gives maps (N, C, h, w) serves too.

    Raises:
        PainseqError: the extractor has no maps in space.
    """
    if not isinstance(extractor, VGG16 | TimmBackbone):
        raise PainseqError(
            f"Grad-CAM needs a convolutional extractor (VGG16, TimmBackbone); this model has "
            f"{type(extractor).__name__}."
        )
    modules = _modules(extractor)
    shapes: dict[str, tuple[int, int, int]] = {}
    side = extractor.input_size_px
    parameter = next(extractor.parameters())
    with torch.no_grad():
        for name, module in modules.items():
            with _outputs_of(module) as seen:
                extractor(torch.zeros(1, 3, side, side, device=parameter.device))
            if seen and seen[-1].ndim == 4 and min(seen[-1].shape[2:]) > 1:
                shapes[name] = (seen[-1].shape[1], seen[-1].shape[2], seen[-1].shape[3])
    # Transformers that keep a grid have the channels last, and not all of them say so.
    stages = {stage["module"]: stage["num_chs"] for stage in getattr(extractor.network, "feature_info", ())}
    channels_last = getattr(extractor.network, "output_fmt", "NCHW") == "NHWC" or any(
        channels != stages.get(name, channels) == width for name, (channels, _, width) in shapes.items()
    )
    if not shapes or channels_last:
        raise PainseqError(
            f"{type(extractor).__name__} {getattr(extractor, 'model', '')} gives no maps in space, so Grad-CAM has "
            "nothing to look at. Choose another method: rollout for a vision transformer, integrated_gradients for any."
        )
    return shapes


def default_layer(layers: Mapping[str, tuple[int, int, int]]) -> str:
    """The last layer whose maps have at least `FEWEST_PLACES` places along a side; if none has, the one with most.

    The features are the mean over the last maps, so that these are coarse on small crops: 3 x 3 places for a ResNet on
    crops of 80 pixels.
    """
    fine = [name for name, (_, height, width) in layers.items() if min(height, width) >= FEWEST_PLACES]
    return fine[-1] if fine else max(layers, key=lambda name: min(layers[name][1:]))


def grad_cam(
    scorer: Scorer, layer: str | None = None, on_progress: Callable[[float], None] | None = None
) -> tuple[Tensor, str]:
    """Class activation maps of one clip (Selvaraju et al. 2017).

    The gradient flows from the score through time to every frame. Its mean over the places of a map is the map's
    weight; the weighted sum, where it is positive, is resized to the crop.

    Crops go through the extractor twice, portion by portion: once for the features, which the head reads together, and
    once for the maps. So memory does not grow with the clip, whichever layer is looked at.

    Args:
        layer: a name of `list_layers`, or of any module with maps; None: `default_layer`.

    Returns:
        (T, S, S), all zeros where nothing speaks for the class, and the layer's name.

    Raises:
        PainseqError: no crops, an extractor without maps, an unknown layer.
    """
    extractor = scorer.model.extractor
    if not scorer.clip.are_pixels:
        raise PainseqError("Grad-CAM speaks of places in the face: it needs crops, not features.")
    layers = list_layers(extractor)
    assert extractor is not None
    name = default_layer(layers) if layer is None else layer
    module = _modules(extractor).get(name) or dict(extractor.network.named_modules()).get(name)
    if module is None:
        raise PainseqError(f"{type(extractor).__name__} has no layer {name!r}; its layers: {', '.join(layers)}.")
    features = scorer.known_features.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(scorer.of_features(features).sum(), features)
    size = scorer.x.shape[-2:]
    out = torch.zeros_like(scorer.x[:, 0])
    done = 0
    for some in torch.split(scorer.real, FRAMES_AT_ONCE):
        with _outputs_of(module) as seen:
            of_frames = extractor(scorer.x[some])
        maps = seen[-1] if seen else None
        if maps is None or maps.ndim != 4:
            raise PainseqError(f"Layer {name!r} gives no maps in space; layers that do: {', '.join(layers)}.")
        (gradient,) = torch.autograd.grad(of_frames, maps, wanted[0, some], allow_unused=True)
        if gradient is None:
            raise PainseqError(f"Layer {name!r} plays no part in the features; layers that do: {', '.join(layers)}.")
        with torch.no_grad():
            cam = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu()
            out[some] = nn.functional.interpolate(cam, size=size, mode="bilinear", align_corners=False)[:, 0]
        done += len(some)
        if on_progress is not None:
            on_progress(done / len(scorer.real))
    return out, name


def _modules(extractor: Extractor) -> dict[str, nn.Module]:
    """The listed layers; a VGG16 block's is its last ReLU, since a pooling stands behind it."""
    if isinstance(extractor, VGG16):
        relus = [(f"features.{n}", m) for n, m in extractor.features.named_children() if isinstance(m, nn.ReLU)]
        blocks = [block for block in extractor.block_names() if block != "fc"]
        return {block: [m for name, m in relus if extractor.in_block(name, block)][-1] for block in blocks}
    known = dict(extractor.network.named_modules())
    stages = [stage["module"] for stage in getattr(extractor.network, "feature_info", ())]
    return {name: known[name] for name in stages if name in known}


@contextmanager
def _outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what a module gives, if it is one tensor; the graph of gradients begins there."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: object, out: object) -> object:
        if not isinstance(out, Tensor):
            return out
        seen.append(out.detach().requires_grad_(torch.is_grad_enabled()))
        # A copy goes on, since the next layer may work in place.
        return seen[-1].clone()

    handle = module.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
