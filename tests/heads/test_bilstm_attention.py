"""Attention over time and the Bi-LSTM head, against PyTorch's own modules on packed and selected frames."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from painseq.heads import BiLSTMAttention
from painseq.heads.attention import TimeAttention


def as_torch(ours: TimeAttention, width: int) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(width, ours.heads, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.to_qkv.weight,
            "in_proj_bias": ours.to_qkv.bias,
            "out_proj.weight": ours.to_out.weight,
            "out_proj.bias": ours.to_out.bias,
        }
    )
    return theirs


def test_attention_equals_pytorchs_where_the_widths_allow_it():
    torch.manual_seed(0)
    ours = TimeAttention(8, heads=2, head_width=4)
    x, mask = torch.randn(3, 7, 8), torch.rand(3, 7) > 0.4
    expected = as_torch(ours, 8)(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
    torch.testing.assert_close(ours(x, mask)[mask], expected[mask])


def test_attention_of_heads_narrower_than_the_width_equals_its_formula():
    torch.manual_seed(0)
    ours = TimeAttention(10, heads=2, head_width=3)
    x = torch.randn(1, 7, 10)
    mask = torch.tensor([[True, False, True, True, False, True, True]])
    query, key, value = ours.to_qkv(x[0, mask[0]]).chunk(3, dim=-1)
    seen = []
    for head in (slice(0, 3), slice(3, 6)):
        seen.append((query[:, head] @ key[:, head].T / 3**0.5).softmax(dim=-1) @ value[:, head])
    torch.testing.assert_close(ours(x, mask)[0, mask[0]], ours.to_out(torch.cat(seen, dim=-1)))


def test_the_head_equals_packed_sequences_attention_and_a_mean_over_real_frames():
    torch.manual_seed(0)
    head = BiLSTMAttention((6,), 3, units=4, heads=2, head_width=4, dense=5)
    head.train()
    head(torch.randn(8, 7, 6) + 2, torch.ones(8, 7, dtype=torch.bool))
    head.eval()
    x = torch.randn(3, 7, 6)
    mask = torch.tensor([[True] * 7, [True, False, False, True, True, False, True], [False] * 4 + [True] * 3])

    over_time = head.layers.over_time
    lstm = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    forward, backward = over_time.lstm.ahead[0].state_dict(), over_time.lstm.back[0].state_dict()
    lstm.load_state_dict(forward | {f"{name}_reverse": value for name, value in backward.items()})

    def norm(module, value):
        return (value - module.running_mean) * module.weight / (module.running_var + module.eps).sqrt() + module.bias

    clips = pack_sequence([clip[real] for clip, real in zip(x, mask, strict=True)], enforce_sorted=False)
    frames, lengths = pad_packed_sequence(lstm(clips)[0], batch_first=True)
    attention = as_torch(over_time.attention, 8)
    pooled = []
    for clip, length in zip(norm(over_time.norm, frames), lengths, strict=True):
        real = clip[None, :length]
        pooled.append(attention(real, real, real, need_weights=False)[0][0].mean(dim=0))
    dense = norm(head.layers.norm, head.layers.dense(torch.stack(pooled)))
    torch.testing.assert_close(head(x, mask), head.layers.classify[-1](dense.relu()), atol=1e-6, rtol=1e-5)


def test_its_size_is_the_papers():
    head = BiLSTMAttention((512,), 5)
    over_time = head.layers.over_time
    assert (over_time.lstm.ahead[0].hidden_size, over_time.attention.heads, head.dropout) == (128, 8, 0.4)
    assert over_time.attention.to_qkv.weight.shape == (3 * 8 * 16, 256)
