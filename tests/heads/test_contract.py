"""What every head must do. A new head is one row in HEADS."""

import io

import pytest
import torch

from painseq.heads import LSTM, FrameANN, Head, LinearFrames
from painseq.heads.decision import NO_PREDICTION, decide
from painseq.spec import build, spec_of

D, K, T = 12, 3, 9

HEADS = {
    "frame_ann": lambda: FrameANN((D,), K, hidden=(16, 8)),
    "linear_frames": lambda: LinearFrames((D,), K),
    "lstm": lambda: LSTM((D,), K),
}


@pytest.fixture(params=HEADS)
def head(request) -> Head:
    torch.manual_seed(0)
    made = HEADS[request.param]()
    # Statistics other than 0 and 1, as after training.
    made.train()
    for _ in range(3):
        made(torch.randn(6, T, D) * 2 + 1, torch.ones(6, T, dtype=torch.bool))
    return made.eval()


@pytest.fixture
def clips():
    """Five clips: whole, padded, gaps in the middle, one frame, starts late."""
    torch.manual_seed(1)
    mask = torch.ones(5, T, dtype=torch.bool)
    mask[1, 6:] = False
    mask[2, 2:5] = False
    mask[3, 1:] = False
    mask[4, :4] = False
    return torch.randn(5, T, D), mask


def logits_of(head, x, mask):
    """One row a clip, comparable between frame and video heads."""
    out = head(x, mask)
    return out.masked_fill(~mask[..., None], 0.0) if head.level == "frame" else out


def test_output_has_a_row_of_logits_a_clip_or_a_frame(head, clips):
    x, mask = clips
    assert head(x, mask).shape == ((5, T, K) if head.level == "frame" else (5, K))


def test_what_stands_in_masked_frames_does_not_matter(head, clips):
    x, mask = clips
    garbage = torch.where(mask[..., None], x, torch.full_like(x, 1e4))
    torch.testing.assert_close(logits_of(head, garbage, mask), logits_of(head, x, mask), atol=1e-5, rtol=0)


def test_garbage_in_masked_frames_does_not_matter_in_training_either(head, clips):
    x, mask = clips
    head.train()
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    state = {key: value.clone() for key, value in head.state_dict().items()}
    clean = logits_of(head, x, mask)
    after_clean = {key: value.clone() for key, value in head.state_dict().items()}
    head.load_state_dict(state)
    dirty = logits_of(head, torch.where(mask[..., None], x, torch.full_like(x, 1e4)), mask)
    torch.testing.assert_close(dirty, clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(dict(head.state_dict()), after_clean)


def test_a_clip_alone_equals_the_clip_in_a_batch(head, clips):
    x, mask = clips
    together = logits_of(head, x, mask)
    for row in range(len(x)):
        end = int(mask[row].nonzero().max()) + 1
        alone = logits_of(head, x[row : row + 1, :end], mask[row : row + 1, :end])
        expected = together[row : row + 1, :end] if head.level == "frame" else together[row : row + 1]
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)


def test_the_order_of_clips_in_a_batch_does_not_matter(head, clips):
    x, mask = clips
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(head(x[order], mask[order]), head(x, mask)[order], atol=1e-5, rtol=0)


def test_eval_mode_is_deterministic(head, clips):
    assert torch.equal(head(*clips), head(*clips))


def test_a_clip_of_one_frame(head):
    out = head(torch.randn(1, 1, D), torch.ones(1, 1, dtype=torch.bool))
    assert torch.isfinite(out).all()


def test_training_takes_a_batch_of_one_clip_of_one_frame(head):
    head.train()
    out = head(torch.randn(1, 1, D), torch.ones(1, 1, dtype=torch.bool))
    out.sum().backward()
    assert torch.isfinite(out).all()


def test_a_clip_without_a_real_frame_gets_no_prediction(head, clips):
    x, mask = clips
    mask = mask.clone()
    mask[2] = False
    decision = decide(head.level, head(x, mask), mask)
    assert decision.label[2] == NO_PREDICTION
    assert decision.probabilities[2].isnan().all()
    others = [0, 1, 3, 4]
    assert (decision.label[others] >= 0).all()
    torch.testing.assert_close(decision.probabilities[others].sum(1), torch.ones(4))


def test_gradient_reaches_every_real_frame(head, clips):
    x, mask = clips
    x = x.clone().requires_grad_()
    logits_of(head, x, mask).square().sum().backward()
    size = x.grad.abs().sum(-1)
    assert (size[mask] > 0).all()
    assert (size[~mask] == 0).all()


def test_round_trip_through_a_weights_only_file(head, clips):
    buffer = io.BytesIO()
    torch.save({"spec": spec_of(head), "state": head.state_dict()}, buffer)
    buffer.seek(0)
    content = torch.load(buffer, weights_only=True)
    again = build(content["spec"], Head).eval()
    again.load_state_dict(content["state"])
    assert torch.equal(again(*clips), head(*clips))


@pytest.mark.parametrize("name", HEADS)
def test_learns_a_small_separable_set(name):
    torch.manual_seed(0)
    head = HEADS[name]()
    target = torch.arange(60) % K
    centres = torch.randn(K, D) * 2
    x = centres[target][:, None] + 0.5 * torch.randn(60, T, D)
    mask = torch.rand(60, T) > 0.2
    mask[:, 0] = True
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        out = head(x, mask)
        if head.level == "frame":
            loss = torch.nn.functional.cross_entropy(out[mask], target[:, None].expand_as(mask)[mask])
        else:
            loss = torch.nn.functional.cross_entropy(out, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    label = decide(head.eval().level, head(x, mask), mask).label
    assert (label == target).float().mean() >= 0.95


REGRESSION = {"frame_ann": -0.28381, "linear_frames": 0.44973, "lstm": -0.41386}


@pytest.mark.parametrize("name", HEADS)
def test_a_stored_value_still_comes_out(name):
    head = HEADS[name]().eval()
    with torch.no_grad():
        for index, parameter in enumerate(head.parameters()):
            steps = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
            parameter.copy_(torch.sin(steps * 0.7 + index) / parameter.shape[-1] ** 0.5)
    x = torch.cos(torch.arange(2 * T * D, dtype=torch.float32) * 0.3).reshape(2, T, D)
    mask = torch.ones(2, T, dtype=torch.bool)
    mask[1, 3:5] = False
    value = logits_of(head, x, mask)[..., 0].mean().item()
    assert value == pytest.approx(REGRESSION[name], abs=2e-4)


def test_the_class_can_be_built_by_its_specification_only_if_it_is_a_head():
    from painseq.errors import PainseqError

    with pytest.raises(PainseqError, match="is not a Head"):
        build({"class_path": "painseq.records.Clip", "init_args": {}}, Head)
    with pytest.raises(PainseqError, match="trust"):
        build({"class_path": "os.system", "init_args": {}}, Head)
