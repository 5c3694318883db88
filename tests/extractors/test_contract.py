"""What every extractor promises, on each of them."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from painseq.errors import PainseqError
from painseq.extractors import VGG16, Extractor, Pixels, TimmBackbone, read_weights, rebuild, save_weights
from painseq.extractors.frames import frame_features
from painseq.extractors.weights import card_of
from painseq.spec import build

SIZE_PX = 32

MAKERS: dict[str, Callable[..., Extractor]] = {
    "vgg16": lambda **args: VGG16(input_size_px=SIZE_PX, **args),
    "vgg16_fc": lambda **args: VGG16(fc=True, input_size_px=SIZE_PX, preprocessing="caffe", **args),
    "resnet": lambda **args: TimmBackbone("test_resnet", input_size_px=SIZE_PX, **args),
    "mobilenet": lambda **args: TimmBackbone("mobilenetv3_small_050", input_size_px=SIZE_PX, **args),
    "vit": lambda **args: TimmBackbone("test_vit", input_size_px=SIZE_PX, **args),
}
LAST_BLOCK = {"vgg16": "block5", "vgg16_fc": "fc", "resnet": "layer4", "mobilenet": "conv_head", "vit": "blocks.5"}
FIRST_BLOCK = {
    "vgg16": "block1",
    "vgg16_fc": "block1",
    "resnet": "conv1",
    "mobilenet": "conv_stem",
    "vit": "patch_embed",
}


@pytest.fixture(scope="module")
def extractors() -> dict[str, Extractor]:
    return {name: make() for name, make in MAKERS.items()} | {"pixels": Pixels(SIZE_PX)}


@pytest.fixture(params=[*MAKERS, "pixels"])
def extractor(request, extractors) -> Extractor:
    return extractors[request.param]


def crops(n: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, SIZE_PX, SIZE_PX), dtype=torch.uint8, generator=generator)


def test_gives_its_out_shape_the_same_each_time(extractor):
    x = crops()
    out = extractor(x)
    assert out.shape == (3, *extractor.out_shape)
    assert torch.equal(out, extractor(x))


def test_uint8_and_float_input_agree(extractor):
    assert torch.equal(extractor(crops()).float(), extractor(crops().float()))


def test_a_frame_alone_gives_what_it_gives_in_a_batch(extractor):
    x = crops(4)
    alone = torch.cat([extractor(frame[None]) for frame in x]).float()
    torch.testing.assert_close(alone, extractor(x).float(), rtol=1e-5, atol=1e-5)


def test_channels_last_gives_the_same(extractor):
    x = crops()
    expected = extractor(x).float()
    other = rebuild(extractor.spec(), dict(extractor.network.state_dict())).to(memory_format=torch.channels_last)
    torch.testing.assert_close(other(x.to(memory_format=torch.channels_last)).float(), expected, rtol=1e-4, atol=1e-5)
    assert other.fingerprint() == extractor.fingerprint()


def test_another_crop_size_is_refused_with_both_sizes(extractor):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b32\b)(?=.*\b48\b)"):
        extractor(torch.zeros(1, 3, 48, 48))


def test_frozen_in_training_mode_yet_gradients_reach_the_input(extractor):
    extractor.train()
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    x = crops().float().requires_grad_()
    extractor(x).float().sum().backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in extractor.parameters())
    assert not any(module.training for module in extractor.modules())
    assert all(torch.equal(before[name], value) for name, value in extractor.state_dict().items())
    extractor.eval()


def test_its_specification_builds_it_again(extractor):
    built = build(extractor.spec(), Extractor)
    built.load_state_dict(extractor.state_dict())
    assert built.fingerprint() == extractor.fingerprint()
    assert torch.equal(built(crops()), extractor(crops()))


def test_saved_weights_come_back_with_whom_they_saw_and_their_card(extractor, tmp_path):
    path, fingerprint = tmp_path / "w.safetensors", extractor.fingerprint()
    card = {"data": {"name": "biovid"}, "validation": {"val_loss": 0.25}, "note": 'ä, "quoted"', "augment": None}
    extractor.trained_on, extractor.card = ("biovid/071309_w_21", 'biovid/ä, "quoted"'), card
    try:
        assert extractor.fingerprint() == fingerprint
        save_weights(extractor, path)
    finally:
        del extractor.trained_on, extractor.card
    tensors, metadata = read_weights(str(path))
    assert metadata["fingerprint"] == extractor.fingerprint()
    restored = rebuild(extractor.spec(), tensors, card=card_of(metadata, "w"))
    assert restored.fingerprint() == fingerprint and restored.card == card
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    if not isinstance(extractor, Pixels):
        again = build(
            {**extractor.spec(), "init_args": {**extractor.spec()["init_args"], "weights": str(path)}}, Extractor
        )
        assert again.trained_on == ("biovid/071309_w_21", 'biovid/ä, "quoted"') and again.card == card
        assert again.fingerprint() == extractor.fingerprint()  # Where the weights came from does not count.
        assert str(path) in again.loaded and "random" in extractor.loaded.lower()


def test_batch_features_are_zero_where_masked(extractor):
    x, mask = crops(6).reshape(2, 3, 3, SIZE_PX, SIZE_PX), torch.tensor([[1, 0, 1], [0, 0, 1]]).bool()
    out = frame_features(extractor, x, mask)
    if not isinstance(extractor, Pixels):
        assert bool((out[~mask] == 0).all())
    torch.testing.assert_close(out[mask], extractor(x[mask]).float(), rtol=1e-5, atol=1e-5)


def test_a_batch_with_a_single_frame_trains():
    extractor = TimmBackbone("test_resnet", input_size_px=SIZE_PX, trainable=["all"]).train()
    x, mask = crops(2).reshape(1, 2, 3, SIZE_PX, SIZE_PX), torch.tensor([[False, True]])
    frame_features(extractor, x, mask).sum().backward()
    assert extractor.training and any(p.grad is not None for p in extractor.parameters())


@pytest.mark.parametrize("name", MAKERS)
def test_random_start_depends_on_the_seed_alone(name, extractors):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    same = MAKERS[name](seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same.fingerprint() == extractors[name].fingerprint()
    assert MAKERS[name](seed=1).fingerprint() != same.fingerprint()


@pytest.mark.parametrize("name", MAKERS)
def test_only_trainable_blocks_train(name, extractors):
    block = LAST_BLOCK[name]
    extractor = MAKERS[name](trainable=[block])
    # Lightning does not call train() before a fit: what is to train must be in training mode from the start.
    assert any(module.training for key, module in extractor.network.named_modules() if extractor.in_block(key, block))
    extractor.train()
    assert extractor.fingerprint() == extractors[name].fingerprint()  # How it trains is not what it computes.
    extractor(crops().float()).sum().backward()
    with_gradient = {key for key, p in extractor.network.named_parameters() if p.grad is not None}
    expected = {key for key, _ in extractor.network.named_parameters() if extractor.in_block(key, block)}
    assert with_gradient == expected != set()
    assert not any(extractor.in_block(key, FIRST_BLOCK[name]) for key in with_gradient)
    assert any(module.training for key, module in extractor.network.named_modules() if extractor.in_block(key, block))
    assert not any(
        module.training
        for key, module in extractor.network.named_modules()
        if key and not extractor.in_block(key, block)
    )


def test_all_blocks_train_batch_norm_included():
    extractor = MAKERS["resnet"](trainable=["all"]).train()
    norm = extractor.network.get_submodule("bn1")
    before = norm.running_mean.clone()
    extractor(crops().float()).sum().backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())
    assert not torch.equal(norm.running_mean, before)
    fixed = MAKERS["resnet"](trainable=["layer4"]).train()
    before = fixed.network.get_submodule("bn1").running_mean.clone()
    fixed(crops())
    assert torch.equal(fixed.network.get_submodule("bn1").running_mean, before)


@pytest.mark.parametrize("name", MAKERS)
def test_an_unknown_block_is_named_with_the_known_ones(name):
    with pytest.raises(PainseqError, match=rf"(?s)(?=.*'block9')(?=.*{FIRST_BLOCK[name]})"):
        MAKERS[name](trainable=["block9"])
    with pytest.raises(PainseqError, match=r"'block9'"):
        MAKERS[name](new=["block9"])


@pytest.mark.parametrize("name", MAKERS)
def test_the_fingerprint_follows_the_weights(name, extractors):
    extractor = rebuild(extractors[name].spec(), dict(extractors[name].network.state_dict()))
    before = extractor.fingerprint()
    with torch.no_grad():
        next(extractor.parameters()).view(-1)[0] += 1
    assert extractor.fingerprint() != before


@pytest.mark.parametrize("name", MAKERS)
def test_pooled_maps_are_the_features(name, extractors):
    extractor = extractors[name]
    torch.testing.assert_close(extractor.pool(extractor.maps(crops())), extractor(crops()))


@pytest.mark.parametrize("sync", [False, True])
def test_a_single_frame_is_left_out_of_batch_norm_but_where_processes_count_together(monkeypatch, sync):
    extractor: Extractor = TimmBackbone("test_resnet", input_size_px=32, trainable=["layer4"])
    seen = []
    if sync:
        extractor = nn.SyncBatchNorm.convert_sync_batchnorm(extractor)
        # On a GPU it waits for the other processes there, which one that stays away would leave waiting.
        monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, x: seen.append(self.training) or x)
    else:
        for module in extractor.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(lambda norm, _: seen.append(norm.training))
    extractor.train()
    frame_features(extractor, torch.zeros(1, 1, 3, 32, 32), torch.ones(1, 1, dtype=torch.bool))
    assert any(seen) == sync and seen
