"""VGG16 against torchvision's, and what its arguments mean."""

import re

import pytest
import torch
import torchvision

from painseq.errors import PainseqError
from painseq.extractors import VGG16, save_weights
from painseq.extractors.weights import write_safetensors


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    """A whole torchvision VGG16, with a classifier made small: its names are what matters."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.vgg16(weights=None, init_weights=False).eval()
    network.classifier = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
    path = tmp_path_factory.mktemp("tv") / "vgg16.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_equals_torchvision_up_to_the_last_pooling(torchvision_file):
    network, path = torchvision_file
    extractor = VGG16(str(path), input_size_px=64)
    x = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = (x / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = network.features[:30](normal).mean((2, 3))
        torch.testing.assert_close(extractor(x), expected, rtol=1e-4, atol=1e-6)
    assert re.search(r"\b26\b", extractor.loaded) and "classifier.0.bias" in extractor.loaded


def test_preprocessings():
    x = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    for name in ("unit", "caffe"):
        extractor = VGG16(input_size_px=16, preprocessing=name)
        extractor.features[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        extractor(x)
    torch.testing.assert_close(seen[0], x / 255)
    bgr = x.float()[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    torch.testing.assert_close(seen[1], bgr)


def test_preprocessing_and_size_are_in_the_fingerprint():
    prints = {
        VGG16(input_size_px=16, preprocessing=name).fingerprint() for name in ("torchvision", "caffe", "unit")
    } | {VGG16(input_size_px=32).fingerprint()}
    assert len(prints) == 4
    with pytest.raises(PainseqError, match=r"(?s)(?=.*'imagenet')(?=.*\btorchvision\b)(?=.*\bcaffe\b)(?=.*\bunit\b)"):
        VGG16(preprocessing="imagenet")  # type: ignore[arg-type]


def test_image_net_weights_need_the_dense_layer_named_as_new(torchvision_file):
    _, path = torchvision_file
    with pytest.raises(PainseqError, match=r"(?s)(?=.*fc_1024\.bias)(?=.*fc_1024\.weight)(?=.*\bnew\b)"):
        VGG16(str(path), fc=True, input_size_px=16)
    extractor = VGG16(str(path), fc=True, input_size_px=16, new=["fc"])
    assert "fc_1024.weight" in extractor.loaded and "features." not in extractor.loaded
    assert extractor.published_as is None


def test_the_pooled_features_of_a_network_with_dense_layer(tmp_path):
    whole = VGG16(fc=True, input_size_px=16, seed=5)
    save_weights(whole, tmp_path / "heat.safetensors")
    pooled = VGG16(str(tmp_path / "heat.safetensors"), input_size_px=16)
    assert "fc_1024.weight" in pooled.loaded
    assert torch.equal(whole.features[0].weight, pooled.features[0].weight)


def test_blocks_cover_every_parameter_once():
    extractor = VGG16(fc=True, input_size_px=16)
    blocks = [
        [block for block in extractor.block_names() if extractor.in_block(name, block)]
        for name, _ in extractor.named_parameters()
    ]
    assert [names[0] for names in blocks] == [
        *["block1"] * 4, *["block2"] * 4, *["block3"] * 6, *["block4"] * 6, *["block5"] * 6, "fc", "fc",
    ]  # fmt: skip
    assert all(len(names) == 1 for names in blocks)


def test_weights_of_another_network_are_refused(tmp_path):
    write_safetensors(tmp_path / "other.safetensors", {"conv1.weight": torch.zeros(3)}, {})
    with pytest.raises(PainseqError, match=r"(?s)(?=.*other\.safetensors)(?=.*features\.0\.bias)(?=.*conv1\.weight)"):
        VGG16(str(tmp_path / "other.safetensors"), input_size_px=16)
    state = VGG16(input_size_px=16).state_dict()
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    write_safetensors(tmp_path / "grey.safetensors", state, {})
    with pytest.raises(PainseqError, match=r"(?s)(?=.*features\.0\.weight)(?=.*\(64, 1, 3, 3\))(?=.*\(64, 3, 3, 3\))"):
        VGG16(str(tmp_path / "grey.safetensors"), input_size_px=16)
