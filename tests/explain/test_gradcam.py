"""Grad-CAM against a computation with hooks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from painseq.checkpoint import PainModel
from painseq.errors import PainseqError
from painseq.explain import grad_cam
from painseq.extractors import VGG16, Pixels, TimmBackbone
from painseq.heads import LSTM, FrameANN, LinearFrames

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["no_pain", "low_pain", "high_pain"]
HEADS = [FrameANN, LinearFrames, LSTM]


@pytest.fixture(scope="module")
def extractors(one_thread) -> dict[str, VGG16 | TimmBackbone]:
    return {
        "vgg16": VGG16(input_size_px=32, seed=1).eval(),
        "vgg16 with fc": VGG16(fc=True, input_size_px=32, seed=1).eval(),
        "timm": TimmBackbone("test_resnet", input_size_px=64, seed=1).eval(),
    }


def model_of(extractor, head: type) -> PainModel:
    torch.manual_seed(0)
    record = {"class_names": NAMES, "sampling": {"fps": 5.0}, "loss": "cross_entropy", "streams": ["cnn"]}
    record["baseline_clips"] = 0
    return PainModel(record, head(tuple(extractor.out_shape), 3), extractor, None)


def clip(size_px: int) -> tuple[Tensor, Tensor]:
    """Seven frames, of which the third and the last show no face."""
    crops = torch.randint(0, 256, (7, 3, size_px, size_px), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    return crops, torch.tensor([1, 1, 0, 1, 1, 1, 0]).bool()


def by_hooks(model: PainModel, layer: nn.Module, crops: Tensor, present: Tensor, target: int) -> Tensor:
    """Grad-CAM as its paper writes it, from the activations and gradients at a layer of the whole model."""
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: object, out: Tensor) -> None:
        seen["maps"] = out
        out.retain_grad()

    handle = layer.register_forward_hook(keep)
    pixels = crops[None].float().requires_grad_()
    logits = model(pixels, present[None])
    handle.remove()
    if model.head.level == "frame":
        score = torch.log(logits[0, present].softmax(dim=1)[:, target]).sum() / present.sum()
    else:
        score = logits[0, target]
    score.backward()
    model.zero_grad(set_to_none=True)
    maps, gradient = seen["maps"].detach(), seen["maps"].grad
    assert gradient is not None
    weights = gradient.sum(dim=(2, 3)) / (maps.shape[2] * maps.shape[3])
    cam = torch.einsum("nc,nchw->nhw", weights, maps).clamp(min=0)
    cam = cam / cam.max()
    resized = nn.functional.interpolate(cam[:, None], crops.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    out = torch.zeros(len(crops), *crops.shape[-2:])
    out[present] = resized
    return out


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["vgg16", "vgg16 with fc", "timm"])
def test_equals_the_computation_with_hooks(extractors, name, head):
    extractor = extractors[name]
    model = model_of(extractor, head)
    crops, present = clip(extractor.input_size_px)
    layer = extractor.features if isinstance(extractor, VGG16) else extractor.backbone.layer4
    some = 0
    for target in range(3):
        expected = by_hooks(model, layer, crops, present, target)
        heat = grad_cam(model, crops, present, target)
        if not torch.isfinite(expected).all():
            # Nothing speaks for the class: 0 / 0 there, zeros here.
            assert not heat.any()
            continue
        some += 1
        assert heat.shape == (7, *crops.shape[-2:])
        np.testing.assert_allclose(heat.numpy(), expected.numpy(), atol=1e-4)
        assert float(heat.min()) >= 0 and float(heat.max()) <= 1 + 1e-6
        assert not heat[~present].any() and heat[present].any()
    assert some


@pytest.mark.parametrize("head", HEADS)
def test_what_stands_in_masked_frames_does_not_matter_and_no_weight_gets_a_gradient(extractors, head):
    model = model_of(extractors["timm"], head)
    crops, present = clip(64)
    heat = grad_cam(model, crops, present, 1)
    crops[~present] = 255 - crops[~present]
    torch.testing.assert_close(grad_cam(model, crops, present, 1), heat)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frames_in_several_passes_give_the_same(extractors, monkeypatch):
    model = model_of(extractors["timm"], LSTM)
    crops, present = clip(64)
    heat = grad_cam(model, crops, present, 0)
    monkeypatch.setattr("painseq.explain.gradcam.FRAMES_AT_ONCE", 2)
    torch.testing.assert_close(grad_cam(model, crops, present, 0), heat, rtol=1e-4, atol=1e-5)


def test_a_class_that_looks_at_one_corner_is_explained_there(extractors):
    """The last maps of a frame are zeroed but for one corner: the heat can lie only there."""
    extractor = extractors["vgg16"]
    model = model_of(extractor, LinearFrames)
    crops, present = clip(32)

    def corner(module: nn.Module, args: object, out: Tensor) -> Tensor:
        mask = torch.zeros_like(out)
        mask[..., 0, 0] = 1
        return out * mask

    handle = extractor.features.register_forward_hook(corner)
    heats = [grad_cam(model, crops, present, target) for target in range(3)]
    handle.remove()
    heat = max(heats, key=lambda heat: float(heat.sum()))
    # Two by two maps on 32 pixels: the centre of the first cell is pixel 8.
    assert float(heat[0, 7, 7]) > 0.1 and float(heat[0, 24:, 24:].max()) == 0


def test_pixels_have_no_maps():
    class Flat(LinearFrames):
        def pooled_shape(self):
            return (3 * 8 * 8,)

    model = model_of(Pixels(8), Flat)
    with pytest.raises(PainseqError, match=r"Grad-CAM needs a convolutional extractor .*this model has Pixels"):
        grad_cam(model, *clip(8), 0)


def test_a_clip_without_a_face_cannot_be_explained(extractors):
    crops, present = clip(64)
    with pytest.raises(PainseqError, match="No face found in any frame"):
        grad_cam(model_of(extractors["timm"], LSTM), crops, torch.zeros_like(present), 0)
