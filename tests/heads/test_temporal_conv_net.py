import torch
from torch.nn import functional as F

from painseq.heads import TemporalConvNet


def test_equals_convolutions_written_out_frame_by_frame():
    torch.manual_seed(0)
    head = TemporalConvNet((6,), 3, channels=4, blocks=2).eval()
    x = torch.randn(1, 8, 6)
    mask = torch.tensor([[True, True, False, True, True, True, False, False]])

    def layer(layer, frames, dilation):
        norm = layer.finish[0]
        out = []
        for t in range(8):
            total = layer.conv.bias.clone()
            for tap in range(3):
                at = t + (tap - 1) * dilation
                if 0 <= at < 8 and mask[0, at]:
                    total = total + layer.conv.weight[:, :, tap] @ frames[at]
            out.append(F.layer_norm(total, (4,), norm.weight, norm.bias).relu())
        return out

    enter, norm = head.enter
    frames = [F.layer_norm(enter(frame), (4,), norm.weight, norm.bias) for frame in x[0]]
    for block in range(2):
        change = layer(head.second[block], layer(head.first[block], frames, 2**block), 2**block)
        frames = [(old + new).relu() for old, new in zip(frames, change, strict=True)]
    mean = torch.stack(frames)[mask[0]].mean(dim=0)
    torch.testing.assert_close(head(x, mask)[0], head.classify(mean), atol=1e-6, rtol=1e-5)


def test_a_gap_is_time_that_passes():
    torch.manual_seed(0)
    head = TemporalConvNet((6,), 3, channels=4, blocks=2).eval()
    x = torch.randn(1, 8, 6)
    mask = torch.tensor([[True, True, False, False, True, True, True, True]])
    closed_up = head(x[:, mask[0]], torch.ones(1, 6, dtype=torch.bool))
    assert not torch.allclose(head(x, mask), closed_up)
