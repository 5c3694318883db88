"""ViViT against transformers, against timm's image transformer, and against itself written out without masks."""

import re
from functools import partial

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn
from transformers import VivitConfig, VivitForVideoClassification, VivitImageProcessor

from painseq.errors import PainseqError
from painseq.heads.vivit import ViViT

K, S = 5, 32
SMALL = {"frames": 8, "tubelet": (2, 8), "width": 32, "depth": 2, "heads": 4, "temporal_depth": 2}
KINDS = [(encoder, pool) for encoder in ("joint", "factorised") for pool in ("cls", "mean")]


def small(num_classes=K, size_px=S, **changes) -> ViViT:
    torch.manual_seed(0)
    head = ViViT((3, size_px, size_px), num_classes, **{**SMALL, **changes})
    return randomise(head).eval()


def randomise(network):
    """Biases and norms that are not 0 and 1, positions that matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def clips(batch=3, frames=8, size_px=S):
    torch.manual_seed(2)
    return torch.randint(0, 256, (batch, frames, 3, size_px, size_px)).float()


def of_transformers(**changes) -> VivitForVideoClassification:
    config = {
        "image_size": S, "num_frames": 8, "tubelet_size": [2, 8, 8], "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 128, "num_labels": K,
    }  # fmt: skip
    return randomise(VivitForVideoClassification(VivitConfig(**{**config, **changes}))).eval()


def all_real(x):
    return torch.ones(x.shape[:2], dtype=torch.bool)


# The network written out: clip by clip, on the real tokens alone, with plain attention.


def attention(block, x):
    q, k, v = block.qkv(x).chunk(3, dim=-1)
    size = q.shape[-1] // block.heads
    heads = []
    for first in range(0, q.shape[-1], size):
        part = slice(first, first + size)
        heads.append(torch.softmax(q[:, part] @ k[:, part].T / size**0.5, dim=-1) @ v[:, part])
    return block.proj(torch.cat(heads, dim=-1))


def encode(encoder, tokens):
    x = torch.cat([encoder.cls[0], tokens])
    for block in encoder.blocks:
        x = x + attention(block, block.norm1(x))
        hidden = block.fc1(block.norm2(x))
        x = x + block.fc2(0.5 * hidden * (1 + torch.tanh((2 / np.pi) ** 0.5 * (hidden + 0.044715 * hidden**3))))
    x = encoder.norm(x)
    return x[0] if encoder.pool == "cls" else x[1:].mean(dim=0)


def written_out(head, x, mask):
    length = head.tubelet[0]
    logits = []
    for clip, real in zip(x, mask, strict=True):
        joint, moments = [], []
        for moment, first in enumerate(range(0, len(clip), length)):
            frames = clip[first : first + length][real[first : first + length]]
            if not len(frames):
                continue
            whole = torch.stack([frames.mean(dim=0)] * length)
            for index, there in enumerate(real[first : first + length]):
                if there:
                    whole[index] = clip[first + index]
            tokens = head.embed((whole / 255 - 0.5).div(0.5).transpose(0, 1))[:, 0].flatten(1).T
            if head.time is None:
                joint.append(tokens + head.space.positions[moment].flatten(0, 1))
            else:
                place = encode(head.space, tokens + head.space.positions[0].flatten(0, 1))
                moments.append(place + head.time.positions[moment, 0, 0])
        video = encode(head.space, torch.cat(joint)) if head.time is None else encode(head.time, torch.stack(moments))
        logits.append(head.classifier(video))
    return torch.stack(logits)


@pytest.mark.parametrize(("encoder", "pool"), KINDS)
def test_equals_the_network_written_out_on_the_real_tokens_alone(encoder, pool):
    head, x = small(encoder=encoder, pool=pool), clips(5, 7)
    mask = all_real(x)
    mask[1, 2:4] = False  # a whole tubelet
    mask[2, 1] = mask[2, 4] = False  # halves of two
    mask[3, 3:] = False  # padding that starts within one
    mask[4, :5] = False  # no face before the fifth frame
    torch.testing.assert_close(head(x, mask), written_out(head, x, mask), atol=1e-5, rtol=1e-5)


def test_tubelets_of_three_frames_average_their_real_ones():
    head, x = small(tubelet=(3, 8), frames=9), clips(2, 8)
    mask = all_real(x)
    mask[0, 1] = mask[1, 3] = mask[1, 5] = False
    torch.testing.assert_close(head(x, mask), written_out(head, x, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("encoder", "pool"), KINDS)
def test_what_stands_in_masked_frames_changes_neither_logits_nor_gradients(encoder, pool):
    head, x = small(encoder=encoder, pool=pool), clips()
    mask = all_real(x)
    mask[0, 3], mask[1, 2:4], mask[2, 5:] = False, False, False
    results = []
    for garbage in (0.0, 1e6, float("nan"), float("inf")):
        dirty = torch.where(mask[..., None, None, None], x, torch.tensor(garbage)).requires_grad_()
        logits = head(dirty, mask)
        logits.square().sum().backward()
        results.append((logits.detach(), dirty.grad))
    for logits, gradient in results:
        assert torch.equal(logits, results[0][0]) and torch.equal(gradient, results[0][1])
        assert (gradient[~mask] == 0).all() and (gradient[mask].abs().sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize(("encoder", "pool"), KINDS)
def test_a_short_clip_alone_equals_the_clip_in_a_batch(encoder, pool):
    head, x = small(encoder=encoder, pool=pool), clips()
    mask = all_real(x)
    mask[0, 3:], mask[1, 5:] = False, False
    together = head(x, mask)
    for row, end in enumerate((3, 5, 8)):
        alone = head(x[row : row + 1, :end], mask[row : row + 1, :end])
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("encoder", "pool"), KINDS)
def test_a_clip_without_a_real_frame_gives_finite_logits_and_gradients(encoder, pool):
    head, x = small(encoder=encoder, pool=pool).train(), clips(2)
    mask = all_real(x)
    mask[1] = False
    logits = head(x, mask)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("encoder", ["joint", "factorised"])
def test_no_step_waits_for_a_value(encoder):
    with torch.device("meta"):
        head = ViViT((3, S, S), K, **SMALL, encoder=encoder, pool="mean")
        x, mask = torch.empty(2, 7, 3, S, S), torch.empty(2, 7, dtype=torch.bool)
        head(x, mask).sum().backward()
    assert head.embed.weight.grad.is_meta


def test_bytes_are_taken_as_they_are():
    head, x = small(), clips()
    assert torch.equal(head(x.to(torch.uint8), all_real(x)), head(x, all_real(x)))


def test_dropout_acts_in_training_alone():
    head, x = small(dropout=0.5), clips()
    torch.testing.assert_close(head(x, all_real(x)), small()(x, all_real(x)))
    head.train()
    assert not torch.allclose(head(x, all_real(x)), head(x, all_real(x)))


@pytest.mark.parametrize(("given", "mean", "std"), [({"do_normalize": False}, 0.5, 0.5), ({}, 0.75, 0.25)])
def test_sees_what_the_image_processor_gives(given, mean, std):
    processor = VivitImageProcessor(
        do_resize=False, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3, **given
    )
    x = clips(1)
    expected = processor(list(x[0].byte().permute(0, 2, 3, 1).numpy()), return_tensors="pt")["pixel_values"]
    head = small(mean=(mean,) * 3, std=(std,) * 3)
    torch.testing.assert_close((x - head.pixel_mean) / head.pixel_std, expected, atol=1e-5, rtol=0)


# Starting from transformers.


@pytest.mark.parametrize("names", ["of today's classes", "of published files"])
def test_equals_transformers_on_the_same_weights(names, tmp_path):
    from safetensors.torch import load_file

    reference, head, x = of_transformers(), small(), clips()
    tensors = reference.state_dict()
    if names == "of published files":
        reference.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        assert "vivit.encoder.layer.0.attention.attention.query.weight" in tensors
    assert set(head.start(tensors)) == set(head.state_dict())
    with torch.no_grad():
        expected = reference(pixel_values=x / 127.5 - 1).logits
        torch.testing.assert_close(head(x, all_real(x)), expected, atol=1e-4, rtol=0)


def test_the_published_network_fits_the_defaults_tensor_by_tensor():
    with torch.device("meta"):
        published = VivitForVideoClassification(VivitConfig(num_labels=400))
        head = ViViT((3, 224, 224), 400)
        assert set(head.start(published.state_dict())) == set(head.state_dict())
    assert head.space.positions.shape == (16, 14, 14, 768)
    cls_position = 768  # one parameter with the CLS token here
    assert sum(p.numel() for p in head.parameters()) == sum(p.numel() for p in published.parameters()) - cls_position


def test_a_classifier_for_other_classes_is_left_out():
    head = small(num_classes=3)
    before = head.classifier.bias.detach().clone()
    taken = head.start(of_transformers().state_dict())
    assert set(head.state_dict()) - set(taken) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(head.classifier.bias, before)


def test_a_kernel_for_other_tubelets_is_left_out():
    taken = small(tubelet=(4, 8)).start(of_transformers().state_dict())
    assert "embed.weight" not in taken and "space.blocks.1.fc2.bias" in taken


def test_published_positions_fit_other_lengths_and_sizes():
    source = of_transformers(image_size=112, num_frames=4).state_dict()  # 2 x 14 x 14
    grid = source["vivit.embeddings.position_embeddings"][:, 1:]
    head = small(size_px=56, frames=6)
    assert "space.positions" in head.start(source)
    halves = [resample_abs_pos_embed(half, [7, 7], num_prefix_tokens=0) for half in grid.chunk(2, dim=1)]
    first, second = (half.reshape(7, 7, 32) for half in halves)
    # Moments of the longer clip lie at -1/6, 1/2 and 7/6 of the way from the first to the second.
    expected = torch.stack([first, (first + second) / 2, second])
    torch.testing.assert_close(head.space.positions.detach(), expected, atol=1e-5, rtol=0)


def test_positions_of_no_known_grid_stay_random():
    head = small(size_px=48)
    before = head.space.positions.detach().clone()
    assert "space.positions" not in head.start(of_transformers().state_dict())
    assert torch.equal(head.space.positions, before)


# Starting from an image transformer.


def image_transformer(size_px=S, **changes):
    tanh = partial(nn.GELU, approximate="tanh")
    return randomise(
        timm.create_model(
            "vit_tiny_patch16_224", pretrained=False, img_size=size_px, patch_size=8, embed_dim=32, depth=2,
            num_heads=4, act_layer=tanh, num_classes=7, **changes,
        )
    ).eval()  # fmt: skip


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("encoder", ["joint", "factorised"])
def test_a_still_video_is_embedded_as_the_image(encoder, length):
    image, head = image_transformer(), small(encoder=encoder, tubelet=(length, 8))
    taken = head.start(image.state_dict())
    left = {name.split(".")[0] for name in head.state_dict().keys() - set(taken)}
    assert left == ({"classifier"} if encoder == "joint" else {"classifier", "time"})
    still = clips(1, 1).expand(-1, length, -1, -1, -1)
    tubelet = (still / 127.5 - 1).transpose(1, 2)
    expected = image.patch_embed(still[:, 0] / 127.5 - 1)
    torch.testing.assert_close(head.embed(tubelet).flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", ["joint", "factorised"])
@pytest.mark.parametrize("changes", [{}, {"no_embed_class": True}, {"qkv_bias": False}])
def test_a_moment_is_encoded_as_its_central_frame_is_by_the_image_transformer(encoder, changes):
    image, head = image_transformer(**changes), small(encoder=encoder)
    with torch.no_grad():
        for block in head.space.blocks:
            block.qkv.bias.zero_()  # as a new network has it
    head.start(image.state_dict())
    x = clips(2, 2)
    seen = []
    (head.classifier if encoder == "joint" else head.time).register_forward_hook(lambda _, args, __: seen.append(args))
    head(x, all_real(x))
    expected = image.forward_features(x[:, 1] / 127.5 - 1)[:, 0]
    torch.testing.assert_close(seen[0][0].reshape(2, 32), expected, atol=1e-4, rtol=1e-4)


def test_an_images_positions_are_resized_in_space_and_repeated_in_time():
    image, head = image_transformer(48), small(size_px=80)
    head.start(image.state_dict())
    expected = resample_abs_pos_embed(image.pos_embed[:, 1:], [10, 10], num_prefix_tokens=0).reshape(10, 10, 32)
    torch.testing.assert_close(head.space.positions, expected.expand(4, -1, -1, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(head.space.cls[0, 0], (image.cls_token + image.pos_embed[:, :1])[0, 0])


def test_an_images_positions_of_the_same_size_are_taken_as_they_are():
    image, head = image_transformer(), small()
    head.start(image.state_dict())
    assert torch.equal(head.space.positions[2].flatten(0, 1), image.pos_embed[0, 1:])


def test_blocks_of_another_kind_are_an_error():
    with pytest.raises(PainseqError, match=r"(?s)(?=.*ls1\.gamma)(?=.*ls2\.gamma)"):
        small().start(image_transformer(init_values=0.1).state_dict())


# Starting from another ViViT.


@pytest.mark.parametrize("encoder", ["joint", "factorised"])
def test_starts_from_its_own_weights(encoder):
    source, head, x = small(encoder=encoder), ViViT((3, S, S), K, **SMALL, encoder=encoder).eval(), clips()
    assert set(head.start(source.state_dict())) == set(head.state_dict())
    assert torch.equal(head(x, all_real(x)), source(x, all_real(x)))


@pytest.mark.parametrize("frames", [4, 6, 20])
def test_positions_in_time_are_interpolated_linearly(frames):
    source, head = small(encoder="factorised"), small(encoder="factorised", frames=frames)
    assert set(head.start(source.state_dict())) == set(head.state_dict())
    moments = (np.arange(frames // 2) + 0.5) * 4 / (frames // 2) - 0.5
    known = source.time.positions.detach().flatten(1).numpy()
    expected = np.stack([np.interp(moments, np.arange(4), column) for column in known.T], axis=1)
    np.testing.assert_allclose(head.time.positions.detach().flatten(1), expected, atol=1e-5)


def test_a_network_of_another_width_gives_nothing():
    before = {name: value.clone() for name, value in small(width=16).state_dict().items()}
    head = small(width=16)
    assert head.start(small().state_dict()) == []
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


# Mistakes.


def test_features_instead_of_pixels_are_an_error():
    for shape in ((512,), (1, 32, 32), (3, 32, 24)):
        with pytest.raises(PainseqError, match=rf"(?s)(?=.*ViViT)(?=.*{re.escape(str(shape))})"):
            ViViT(shape, K)


def test_sizes_that_do_not_divide_are_an_error():
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b100\b)(?=.*\b16\b)"):
        ViViT((3, 100, 100), K)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b32\b)(?=.*\b5\b)"):
        small(heads=5)


def test_a_clip_that_is_too_long_is_an_error():
    head, x = small(), clips(1, 9)
    assert head.max_frames == 8
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b8\b)(?=.*\b9\b)(?=.*\bframes\b)"):
        head(x, all_real(x))
