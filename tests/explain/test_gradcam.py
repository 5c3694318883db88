"""Grad-CAM against the package `grad-cam`, and against a computation with hooks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.explain import Frames, MethodOptions, default_layer, explain, list_layers, space_methods
from painseq.extractors import VGG16, TimmBackbone
from painseq.heads import LSTM, FrameANN, LinearFrames
from painseq.model.pain_model import PainModel

HEADS = [FrameANN, LinearFrames, LSTM]


@pytest.fixture(scope="module")
def extractors() -> dict[str, VGG16 | TimmBackbone]:
    return {
        "vgg16": VGG16(input_size_px=32, seed=1).eval(),
        "vgg16 with fc": VGG16(fc=True, input_size_px=32, seed=1).eval(),
        "timm": TimmBackbone("test_resnet", input_size_px=64, seed=1).eval(),
    }


LAYERS = {"vgg16": ("block5", "block3"), "vgg16 with fc": ("block5", "block4"), "timm": ("layer4", "layer2")}


@pytest.fixture
def model_with(extractors, make_model):
    def make(name: str, head: type) -> PainModel:
        torch.manual_seed(0)
        return make_model(extractors[name], head(tuple(extractors[name].out_shape), 3))

    return make


def clip(size_px: int) -> Frames:
    """Seven frames, of which the third and the last show no face."""
    crops = torch.randint(0, 256, (7, 3, size_px, size_px), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    return Frames(crops, torch.tensor([1, 1, 0, 1, 1, 1, 0]).bool(), torch.arange(7) / 5)


def module_of(extractor: VGG16 | TimmBackbone, layer: str) -> nn.Module:
    last_relus = {"block3": 15, "block4": 22, "block5": 29}
    return extractor.features[last_relus[layer]] if isinstance(extractor, VGG16) else getattr(extractor.backbone, layer)


def by_hooks(model: PainModel, batch_of, layer: nn.Module, frames: Frames, target: int) -> Tensor:
    """Grad-CAM as its paper writes it, from the activations and gradients at a layer of the whole model."""
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: object, out: Tensor) -> Tensor:
        # ReLUs that follow work in place.
        seen["maps"] = out.clone()
        seen["maps"].retain_grad()
        return seen["maps"].clone()

    handle = layer.register_forward_hook(keep)
    present = frames.present
    logits = model(batch_of(frames, frames.x.float().requires_grad_()))
    handle.remove()
    if model.head.level == "frame":
        score = torch.log(logits[0, present].softmax(dim=1)[:, target]).sum() / present.sum()
    else:
        score = logits[0, target]
    score.backward()
    model.zero_grad(set_to_none=True)
    maps, gradient = seen["maps"].detach(), seen["maps"].grad
    weights = gradient.sum(dim=(2, 3)) / (maps.shape[2] * maps.shape[3])
    cam = torch.einsum("nc,nchw->nhw", weights, maps).clamp(min=0)
    resized = nn.functional.interpolate(cam[:, None], frames.x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    out = torch.zeros(len(present), *frames.x.shape[-2:])
    out[present] = resized
    return out


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", LAYERS)
def test_equals_the_computation_with_hooks_at_each_layer(extractors, model_with, name, head, batch_of):
    model, frames = model_with(name, head), clip(extractors[name].input_size_px)
    some = 0
    for layer in LAYERS[name]:
        for target in range(3):
            expected = by_hooks(model, batch_of, module_of(extractors[name], layer), frames, target)
            found = explain(model, frames, "gradcam", target, MethodOptions(layer=layer))
            assert found.layer == layer
            scale = float(expected.max())
            np.testing.assert_allclose(found.values.numpy(), expected.numpy(), atol=1e-4 * max(scale, 1e-6))
            some += scale > 0
            heat = found.heat()
            assert not scale or float(heat.max()) == 1
            assert (heat > 0).any() == (scale > 0)
    assert some


class Whole(nn.Module):
    """A clip's frames as the images of a batch, to the clip's score, (1, 1)."""

    def __init__(self, model: PainModel, batch_of, target: int) -> None:
        super().__init__()
        self.model, self.batch_of, self.target = model, batch_of, target

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(self.batch_of(Frames(x, torch.ones(len(x), dtype=torch.bool), torch.arange(len(x))), x))[0]
        return (logits.log_softmax(-1).mean(0) if self.model.head.level == "frame" else logits)[None, [self.target]]


@pytest.mark.parametrize("head", [LinearFrames, LSTM])
@pytest.mark.parametrize(("name", "layer"), [("vgg16", "block4"), ("vgg16", "block5"), ("timm", "layer3")])
def test_equals_the_package_grad_cam(extractors, model_with, name, layer, head, batch_of):
    package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, frames = model_with(name, head), clip(extractors[name].input_size_px)
    real = Frames(frames.x[frames.present], torch.ones(5, dtype=torch.bool), torch.arange(5) / 5)
    some = 0
    for target in range(3):
        found = explain(model, real, "gradcam", target, MethodOptions(layer=layer)).values.numpy()
        with package.GradCAM(Whole(model, batch_of, target), [module_of(extractors[name], layer)]) as cam:
            expected = cam(real.x.float().requires_grad_(), [ClassifierOutputTarget(0)])
        for ours, theirs in zip(found, expected, strict=True):
            # The package puts each frame on a scale of its own, from its lowest to its highest place before resizing.
            if not theirs.any():
                assert not ours.any() or np.ptp(ours) < 1e-6 * ours.max()
                continue
            slope, lowest = np.polyfit(theirs.ravel(), ours.ravel(), 1)
            assert slope > 0 and lowest >= -1e-6 * slope
            np.testing.assert_allclose(ours, slope * theirs + lowest, atol=1e-4 * slope)
            some += 1
    assert some


def test_a_class_that_looks_at_one_corner_is_explained_there(extractors, model_with):
    """The last maps of a frame are zeroed but for one corner: the heat can lie only there."""
    model, frames = model_with("vgg16", LinearFrames), clip(32)

    def corner(module: nn.Module, args: object, out: Tensor) -> Tensor:
        mask = torch.zeros_like(out)
        mask[..., 0, 0] = 1
        return out * mask

    handle = extractors["vgg16"].features[29].register_forward_hook(corner)
    heats = [explain(model, frames, "gradcam", target, MethodOptions(layer="block5")).heat() for target in range(3)]
    handle.remove()
    heat = max(heats, key=lambda heat: float(heat.sum()))
    # Two by two maps on 32 pixels: the centre of the first cell is pixel 8.
    assert float(heat[0, 7, 7]) > 0.1 and float(heat[0, 24:, 24:].max()) == 0


def test_layers_go_by_name_and_the_default_is_not_coarse(extractors, model_with):
    assert list_layers(extractors["vgg16"]) == {
        "block1": (64, 32, 32),
        "block2": (128, 16, 16),
        "block3": (256, 8, 8),
        "block4": (512, 4, 4),
        "block5": (512, 2, 2),
    }
    resnet = list_layers(extractors["timm"])
    assert list(resnet) == ["act1", "layer1", "layer2", "layer3", "layer4"] and resnet["layer3"][1:] == (4, 4)
    assert default_layer(resnet) == "layer2" and default_layer(list_layers(extractors["vgg16"])) == "block3"
    assert default_layer({"a": (8, 14, 14), "b": (8, 7, 7)}) == "b"
    assert default_layer({"a": (8, 5, 5), "b": (8, 3, 3)}) == "a"
    model, frames = model_with("timm", LSTM), clip(64)
    assert explain(model, frames, "gradcam", 0).layer == "layer2"
    # Any module that gives maps.
    assert explain(model, frames, "gradcam", 0, MethodOptions(layer="layer3.0.conv2")).values.shape == (7, 64, 64)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer9", "'layer9'.*act1, layer1, layer2, layer3, layer4"),
        ("global_pool", "'global_pool'.*act1, layer1, layer2, layer3, layer4"),
    ],
)
def test_a_layer_that_cannot_be(model_with, layer, message):
    with pytest.raises(PainseqError, match=f"(?s){message}"):
        explain(model_with("timm", LSTM), clip(64), "gradcam", 0, MethodOptions(layer=layer))


def test_transformers_have_no_maps(make_model):
    vit = TimmBackbone("test_vit", input_size_px=32, seed=0)
    with pytest.raises(PainseqError, match=r"(?s)test_vit.*rollout"):
        explain(make_model(vit, LSTM(vit.out_shape, 3).eval()), clip(32), "gradcam", 0)


def test_a_network_that_only_looks_like_a_cnn_gets_another_default(make_model):
    levit = TimmBackbone("levit_128s", input_size_px=64, seed=0)
    assert space_methods(make_model(levit, LSTM(levit.out_shape, 3).eval()))[0] == "integrated_gradients"


class Permuted(nn.Module):
    """The dimensions in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def test_maps_with_the_channels_last_are_not_taken_for_maps(make_model):
    network = TimmBackbone("test_resnet", input_size_px=64, seed=0).eval()
    model = make_model(network, LSTM(network.out_shape, 3).eval())
    assert space_methods(model)[0] == "gradcam"
    # As VOLO's stages give them, (N, h, w, C), though it does not say so.
    inner = network.backbone
    inner.layer4 = nn.Sequential(inner.layer4, Permuted(0, 2, 3, 1))
    inner.global_pool = nn.Sequential(Permuted(0, 3, 1, 2), inner.global_pool)
    assert space_methods(model)[0] == "integrated_gradients"
    with pytest.raises(PainseqError, match=r"(?s)test_resnet.*rollout"):
        explain(model, clip(64), "gradcam", 0)


class Branches(nn.Module):
    """Maps at several scales, as HRNet's stages give them."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, x[..., ::2, ::2]]


class Finest(nn.Module):
    """The first of them."""

    def forward(self, several: list[Tensor]) -> Tensor:
        return several[0]


def test_a_network_of_buffers_alone_has_layers():
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    expected = list_layers(extractor)
    for module in list(extractor.modules()):
        for name, parameter in list(module._parameters.items()):
            del module._parameters[name]
            if parameter is None:
                module.register_parameter(name, None)
            else:
                module.register_buffer(name, parameter.detach())
    assert not list(extractor.parameters()) and list_layers(extractor) == expected


def test_layers_that_give_several_maps_are_left_out(make_model):
    branching = TimmBackbone("test_resnet", input_size_px=64, seed=1).eval()

    branching.backbone.layer3 = nn.Sequential(branching.backbone.layer3, Branches(), Finest())
    model = make_model(branching, LSTM(branching.out_shape, 3).eval())
    with pytest.raises(PainseqError, match=r"'layer3\.1'"):
        explain(model, clip(64), "gradcam", 0, MethodOptions(layer="layer3.1"))
    assert explain(model, clip(64), "gradcam", 0, MethodOptions(layer="layer3")).layer == "layer3"
