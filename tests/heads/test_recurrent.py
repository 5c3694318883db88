"""Recurrence without packing, against `torch.nn.LSTM` on packed sequences."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from painseq.batch import real_frames_first
from painseq.heads import StackedLSTM
from painseq.heads.recurrent import ClipLSTM


def clips(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole, padded, gaps, one frame, starts late, no frame."""
    torch.manual_seed(1)
    mask = torch.ones(6, 9, dtype=torch.bool)
    mask[1, 6:] = False
    mask[2, [1, 2, 5]] = False
    mask[3, 1:] = False
    mask[4, :4] = False
    mask[5] = False
    return torch.randn(6, 9, width), mask


def packed(x: torch.Tensor, mask: torch.Tensor) -> PackedSequence:
    return pack_sequence([clip[real] for clip, real in zip(x, mask, strict=True)], enforce_sorted=False)


def named(ours: ClipLSTM) -> dict[str, torch.nn.Parameter]:
    """Its parameters, under the names that they have in `torch.nn.LSTM`."""
    return {
        f"{name[:-1]}{depth}{suffix}": value
        for direction, suffix in ((ours.ahead, ""), (ours.back, "_reverse"))
        for depth, one in enumerate(direction)
        for name, value in one.named_parameters()
    }


def reference(ours: ClipLSTM, width: int, layers: int, bidirectional: bool) -> nn.LSTM:
    theirs = nn.LSTM(width, ours.units, layers, batch_first=True, bidirectional=bidirectional)
    theirs.load_state_dict(named(ours))
    return theirs


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_equals_packed_sequences(layers, bidirectional):
    torch.manual_seed(0)
    ours = ClipLSTM(5, 4, layers, bidirectional)
    theirs = reference(ours, 5, layers, bidirectional)
    x, mask = clips(5)
    some = mask.any(dim=1)
    moved, lengths = real_frames_first(x, mask)
    real = torch.arange(9) < lengths[:, None]
    out = ours(moved, real)
    outputs, (hidden, _) = theirs(packed(x[some], mask[some]))
    expected = pad_packed_sequence(outputs, batch_first=True)[0]
    torch.testing.assert_close(out[some][real[some]], expected[real[some]])
    ends = hidden[-2:].transpose(0, 1).flatten(1) if bidirectional else hidden[-1]
    torch.testing.assert_close(ours.ends(out, real)[some], ends)
    weights = torch.randn(ends.shape)
    (ours.ends(out, real)[some] * weights).sum().backward()
    (ends * weights).sum().backward()
    for name, value in named(ours).items():
        torch.testing.assert_close(value.grad, theirs.get_parameter(name).grad)


def test_dropout_acts_between_the_layers_and_only_there():
    torch.manual_seed(0)
    x, mask = torch.randn(2, 9, 5), torch.ones(2, 9, dtype=torch.bool)
    one, two = ClipLSTM(5, 4, 1, dropout=0.5), ClipLSTM(5, 4, 2, dropout=0.5)
    assert torch.equal(one(x, mask), one(x, mask))
    assert not torch.equal(two(x, mask), two(x, mask))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_stacked_lstm_reads_both_ends_of_the_real_frames(bidirectional):
    torch.manual_seed(0)
    head = StackedLSTM((5,), 3, units=4, layers=2, bidirectional=bidirectional).eval()
    x, mask = clips(5)
    some = mask.any(dim=1)
    normed = head.norm(x, mask)
    _, (hidden, _) = reference(head.lstm, 5, 2, bidirectional)(packed(normed[some], mask[some]))
    ends = hidden[-2:].transpose(0, 1).flatten(1) if bidirectional else hidden[-1]
    torch.testing.assert_close(head(x, mask)[some], head.classify(ends))
