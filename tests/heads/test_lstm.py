"""The LSTM head against plain PyTorch with packed sequences."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from painseq.heads import LSTM
from painseq.heads.masked_norm import MaskedBatchNorm


def test_equals_packed_sequences_and_plain_batch_norm():
    torch.manual_seed(0)
    head = LSTM((6,), 3)
    head.train()
    head(torch.randn(8, 7, 6) + 2, torch.ones(8, 7, dtype=torch.bool))
    head.eval()
    x, lengths = torch.randn(4, 7, 6), torch.tensor([7, 3, 5, 1])
    mask = torch.arange(7) < lengths[:, None]

    def norm(module: MaskedBatchNorm, value: torch.Tensor) -> torch.Tensor:
        scale = module.weight / (module.running_var + module.eps).sqrt()
        return (value - module.running_mean) * scale + module.bias

    def run(lstm: nn.LSTM, value: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(value, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=7)[0]

    out = norm(head.norm_first, run(head.lstm_first, norm(head.norm_in, x)))
    out = run(head.lstm_second, out)[torch.arange(4), lengths - 1]
    expected = head.classify(norm(head.norm_second, out))
    torch.testing.assert_close(head(x, mask), expected, atol=1e-6, rtol=1e-5)


def test_a_gap_is_left_out_not_read_as_zeros():
    torch.manual_seed(0)
    head = LSTM((6,), 3).eval()
    x = torch.randn(1, 8, 6)
    mask = torch.tensor([[True, True, False, False, True, True, False, True]])
    together = head(x[:, mask[0]], torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(head(x, mask), together)
