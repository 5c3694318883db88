import torch

from painseq.heads import AttentionMIL


def test_equals_the_papers_formula_on_the_real_frames():
    torch.manual_seed(0)
    head = AttentionMIL((6,), 3, hidden=8, attention=5).eval()
    x = torch.randn(1, 7, 6)
    mask = torch.tensor([[True, False, True, True, False, True, True]])
    h = (x[0, mask[0]] @ head.embed[0].weight.T + head.embed[0].bias).relu()
    content = torch.tanh(h @ head.content[0].weight.T + head.content[0].bias)
    gate = torch.sigmoid(h @ head.gate[0].weight.T + head.gate[0].bias)
    score = ((content * gate) @ head.score.weight.T + head.score.bias)[:, 0].exp()
    weights = score / score.sum()
    torch.testing.assert_close(head.frame_attention(x, mask)[0, mask[0]], weights)
    torch.testing.assert_close(head(x, mask)[0], head.classify(weights @ h))


def test_attention_to_frames_sums_to_one_over_real_frames_and_are_zero_elsewhere():
    torch.manual_seed(0)
    head = AttentionMIL((6,), 3).eval()
    x, mask = torch.randn(4, 9, 6), torch.rand(4, 9) > 0.4
    mask[3] = False
    x[~mask] = torch.nan
    weights = head.frame_attention(x, mask)
    assert weights.shape == (4, 9)
    assert (weights[~mask] == 0).all() and (weights[mask] > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.tensor([1.0, 1, 1, 0]))


def test_training_finds_the_frame_that_carries_the_pain():
    torch.manual_seed(0)
    head = AttentionMIL((6,), 2, hidden=16, attention=8, dropout=0.0)
    target, where = torch.arange(64) % 2, torch.randint(0, 9, (64,))
    x, mask = 0.3 * torch.randn(64, 9, 6), torch.ones(64, 9, dtype=torch.bool)
    x[torch.arange(64), where, target] += 3
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(x, mask), target).backward()
        optimizer.step()
    assert (head.eval().frame_attention(x, mask).argmax(dim=1) == where).float().mean() > 0.95
