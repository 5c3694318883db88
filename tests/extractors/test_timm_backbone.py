"""What is peculiar to timm's networks."""

import huggingface_hub.constants
import pytest
import timm
import torch

from painseq.errors import PainseqError
from painseq.extractors import TimmBackbone


def test_equals_timm_with_its_own_normalisation(tmp_path):
    network = timm.create_model("test_resnet", num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    extractor = TimmBackbone("test_resnet", str(tmp_path / "net.pth"), input_size_px=48)
    x = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    config = network.pretrained_cfg
    normal = (x / 255 - torch.tensor(config["mean"])[:, None, None]) / torch.tensor(config["std"])[:, None, None]
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(normal), pre_logits=True)
    torch.testing.assert_close(extractor(x), expected, rtol=1e-4, atol=1e-5)
    assert "fc.bias" in extractor.loaded and "fc.weight" in extractor.loaded


@pytest.mark.parametrize(("model", "width"), [("mobilenetv3_small_050", 1024), ("test_vit", 64), ("test_convnext", 64)])
def test_the_width_is_that_of_the_output(model, width):
    assert TimmBackbone(model, input_size_px=64).out_shape == (width,)


def test_a_network_of_fixed_size_is_built_for_the_crops():
    assert TimmBackbone("test_vit", input_size_px=64)(torch.zeros(1, 3, 64, 64)).shape == (1, 64)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*test_vit)(?=.*\b65\b)"):
        TimmBackbone("test_vit", input_size_px=65)


def test_an_unknown_model_gets_suggestions():
    with pytest.raises(PainseqError, match=r"(?s)(?=.*'resnet_18')(?=.*\bresnet18\b)"):
        TimmBackbone("resnet_18")


def test_hub_weights_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PainseqError, match=r"\btest_resnet\b"):
        TimmBackbone("test_resnet", "hub")


def test_other_normalisation_is_another_fingerprint():
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    before = extractor.fingerprint()
    extractor.backbone.pretrained_cfg["mean"] = (0.0, 0.0, 0.0)
    assert extractor.fingerprint() != before


def test_new_blocks_start_from_random(tmp_path):
    given = TimmBackbone("test_resnet", input_size_px=32, seed=1)
    torch.save(given.network.state_dict(), tmp_path / "net.pt")
    extractor = TimmBackbone("test_resnet", str(tmp_path / "net.pt"), input_size_px=32, seed=2, new=["layer4"])
    fresh = TimmBackbone("test_resnet", input_size_px=32, seed=2)
    for name, tensor in extractor.network.state_dict().items():
        source = fresh if name.startswith("layer4.") else given
        assert torch.equal(tensor, source.network.state_dict()[name])
    assert "layer4." in extractor.loaded and "layer3." not in extractor.loaded


def test_what_the_network_is_fed_with_stands_beside_what_timm_states():
    extractor = TimmBackbone("resnet18", input_size_px=64)
    before = extractor.fingerprint()
    record = extractor.input_record()
    assert (record["size_px"], record["interpolation"]) == (64, "bilinear")
    assert (record["timm"]["size_px"], record["timm"]["interpolation"]) == (224, "bicubic")
    assert record["mean"] == record["timm"]["mean"] == [0.485, 0.456, 0.406]
    assert "input" not in extractor.record() and extractor.fingerprint() == before
