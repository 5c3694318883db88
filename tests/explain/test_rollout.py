"""Attention rollout against layers computed by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from painseq.explain import Frames, explain, space_methods
from painseq.explain.rollout import vit_rollout
from painseq.extractors import TimmBackbone
from painseq.heads import LSTM, LinearFrames
from painseq.heads.recorded_attention import recorded_attention, rolled_out


def test_recorded_weights_are_those_that_attention_uses():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 8)
    mask = torch.rand(2, 1, 1, 5) > 0.3
    mask[..., 0] = True
    with recorded_attention() as layers:
        for bias in (None, mask, torch.randn(2, 4, 5, 5)):
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
            one = F.scaled_dot_product_attention(query[:, :1], key[:, :1], value[:, :1], attn_mask=None)
    assert len(layers) == 6 and out.shape == value.shape
    torch.testing.assert_close(layers[1] @ value[:, 0], one[:, 0])
    for weights in layers:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))
    assert (layers[2].masked_select(~mask[:, 0].expand(-1, 5, -1)) == 0).all()
    F.scaled_dot_product_attention(query, key, value)
    assert len(layers) == 6


def test_rows_sum_to_one_and_attention_to_nothing_else_stays():
    torch.manual_seed(0)
    layers = [torch.rand(2, 6, 6).softmax(-1) for _ in range(4)]
    rolled = rolled_out(layers)
    torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 6))
    by_hand = torch.eye(6)
    for weights in layers:
        by_hand = (0.5 * weights[0] + 0.5 * torch.eye(6)) @ by_hand
    torch.testing.assert_close(rolled[0], by_hand)
    assert torch.equal(rolled_out([torch.eye(6)[None]] * 3)[0], torch.eye(6))


@pytest.mark.parametrize("name", ["vivit", "vivit_mean", "vivit_factorised"])
def test_vivit_frames_sum_to_what_is_not_the_class_token(made, name):
    model, clip = made(name)
    found = explain(model, clip, "rollout").values
    assert (found >= 0).all() and 0.1 < float(found.sum()) <= 1 + 1e-5
    # Two frames of a tubelet share alike; where one shows no face, the other has it all.
    torch.testing.assert_close(found[0], found[1])
    assert float(found[3].sum()) > 1.3 * float(found[[0, 1]].sum(0).sum()) / 2
    # Patches of 8 pixels.
    assert torch.equal(found, F.interpolate(found[:, None, ::8, ::8], scale_factor=8)[:, 0])


def test_joint_vivit_equals_its_layers_by_hand(made):
    model, clip = made("vivit")
    head, seen = model.head, []
    handles = [
        block.norm1.register_forward_hook(lambda _, __, out, block=block: seen.append((block, out)))
        for block in head.space.blocks
    ]
    x = torch.where(clip.present[:, None, None, None], clip.x.float(), 0.0)[None]
    with torch.no_grad():
        head(x, clip.present[None])
    for handle in handles:
        handle.remove()
    # Frames 2 and 7 show no face, but each tubelet has a real frame; the padding of the last is none.
    rolled = torch.eye(1 + 5 * 16)
    for block, normed in seen:
        query, key, _ = block.qkv(normed).reshape(81, 3, 2, 8).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) / 8**0.5).softmax(-1).mean(0)
        rolled = (weights + torch.eye(81)) / 2 @ rolled
    found = head.pixel_attention(x, clip.present[None])[0].detach()
    grid = rolled[0, 1:].reshape(5, 4, 4).detach()
    torch.testing.assert_close(found[0, ::8, ::8] * 64 * 2, grid[0])
    torch.testing.assert_close(found[3, ::8, ::8] * 64, grid[1])
    torch.testing.assert_close(found[8, ::8, ::8] * 64, grid[4])


@pytest.mark.parametrize("head", [LSTM, LinearFrames])
def test_a_vision_transformer_looks_at_each_frame_by_itself(make_model, head):
    vit = TimmBackbone("test_vit", input_size_px=32, seed=0)
    model = make_model(vit, head(vit.out_shape, 3).eval())
    crops = torch.randint(0, 256, (4, 3, 32, 32)).to(torch.uint8)
    clip = Frames(crops, torch.tensor([1, 0, 1, 1]).bool(), torch.arange(4) / 5)
    assert space_methods(model)[0] == "rollout"
    found = explain(model, clip, "rollout").values
    torch.testing.assert_close(found[2], vit_rollout(vit, crops[2:3])[0])
    assert not found[1].any() and ((found[[0, 2, 3]].sum((1, 2)) > 0.1) & (found[[0, 2, 3]].sum((1, 2)) <= 1)).all()


def test_fused_or_not_makes_no_difference():
    vit = TimmBackbone("test_vit", input_size_px=32, seed=0)
    crops = torch.randint(0, 256, (2, 3, 32, 32)).to(torch.uint8)
    found = vit_rollout(vit, crops)
    seen: list[torch.Tensor] = []
    for block in vit.backbone.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop = Keep(seen)
    vit(crops)
    rolled = torch.eye(seen[0].shape[-1])
    for weights in seen:
        rolled = (weights.mean(1) + torch.eye(weights.shape[-1])) / 2 @ rolled
    side = found.shape[-1] // vit.backbone.patch_embed.grid_size[0]
    expected = rolled[:, 0, vit.backbone.num_prefix_tokens :].reshape(2, *vit.backbone.patch_embed.grid_size)
    torch.testing.assert_close(found[:, ::side, ::side] * side**2, expected)


class Keep(nn.Module):
    def __init__(self, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach())
        return x
