"""The real ImageNet VGG16 on a real face."""

import re

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from painseq.extractors import VGG16

FILE = "weights/backbone/vgg16_imagenet_features_tvnorm_fp16.safetensors"


@pytest.fixture(scope="module")
def face(assets) -> torch.Tensor:
    """(1, 3, 224, 224) uint8: the middle of the picture, where the face is."""
    image = Image.open(assets / "images" / "single_face.jpg").convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.resize((224, 224), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]


def test_features_of_a_real_face_equal_torchvision(assets, face):
    extractor = VGG16(str(assets / FILE))
    assert {"26", "float16", "float32"} <= set(re.findall(r"\w+", extractor.loaded))
    assert "classifier" not in extractor.loaded
    network = torchvision.models.vgg16(weights=None, init_weights=False).eval()
    state = {name.removeprefix("features."): value.float() for name, value in load_file(assets / FILE).items()}
    network.features.load_state_dict(state)
    normal = torchvision.transforms.functional.normalize(
        face.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        features = extractor(face)
        expected = torch.nn.functional.adaptive_avg_pool2d(network.features[:30](normal), 1).flatten(1)
    assert features.shape == (1, 512) and bool(torch.isfinite(features).all())
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert float(features.std()) > 0.1 and 0.3 < float((features > 0).float().mean()) <= 1
    upside_down = extractor(face.flip(2))
    assert float(torch.nn.functional.cosine_similarity(features, upside_down)) < 0.99


def test_the_heat_pain_layer_starts_anew_on_real_weights(assets, face):
    extractor = VGG16(str(assets / FILE), fc=True, new=["fc"], trainable=["block5", "fc"])
    assert extractor(face).shape == (1, 1024)
    assert "fc_1024.bias" in extractor.loaded and "fc_1024.weight" in extractor.loaded
