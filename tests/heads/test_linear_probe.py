import torch
from torch import nn

from painseq.heads import LinearProbe


def test_is_linear_in_the_mean_of_the_real_frames_and_sees_nothing_else():
    torch.manual_seed(0)
    head, norm = LinearProbe((6,), 3), nn.BatchNorm1d(6)
    x, mask = torch.randn(8, 7, 6) + 2, torch.rand(8, 7) > 0.3
    mask[:, 0] = True
    means = torch.stack([clip[real].mean(dim=0) for clip, real in zip(x, mask, strict=True)])
    torch.testing.assert_close(head(x, mask), head.classify(norm(means)))
    head.eval(), norm.eval()
    order = torch.randperm(7)
    torch.testing.assert_close(head(x[:, order], mask[:, order]), head.classify(norm(means)))
