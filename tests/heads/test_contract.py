"""What every head must do. A new head is one row in HEADS."""

import io
import math
import sys

import numpy as np
import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

import painseq.heads
from painseq.errors import PainseqError
from painseq.files import shipped_configs
from painseq.heads import (
    LSTM,
    AdaBoost,
    AttentionMIL,
    BiLSTMAttention,
    DeepAdaBoost,
    FrameANN,
    GradientBoosting,
    Head,
    HistogramBoosting,
    LinearFrames,
    LinearProbe,
    RandomForest,
    StackedLSTM,
    TemporalConvNet,
    TwoStream,
    ViViT,
)
from painseq.heads.head import Rows
from painseq.heads.standardised import Standardised
from painseq.model.decision import NO_PREDICTION, decide
from painseq.moments import Moments
from painseq.spec import build, spec_of

D, K, T = 12, 3, 9
PIXELS = (3, 16, 16)
VIVIT = {"frames": 10, "tubelet": (2, 8), "width": 16, "depth": 2, "heads": 2}


def standardised(head: Head) -> Standardised:
    wrapped = Standardised(head)
    wrapped.measure(Moments(50, np.linspace(-1, 1, D), np.linspace(10, 100, D)))
    return wrapped


HEADS = {
    "frame_ann": lambda k: FrameANN((D,), k, hidden=(16, 8)),
    "linear_frames": lambda k: LinearFrames((D,), k),
    "linear_probe": lambda k: LinearProbe((D,), k),
    "lstm": lambda k: LSTM((D,), k),
    "stacked_lstm": lambda k: StackedLSTM((D,), k, units=8, layers=2),
    "stacked_lstm_forward": lambda k: StackedLSTM((D,), k, units=8, layers=1, bidirectional=False),
    "stacked_lstm_deep": lambda k: StackedLSTM((D,), k, units=4, layers=3, bidirectional=False),
    "bilstm_attention": lambda k: BiLSTMAttention((D,), k, units=8, heads=2, head_width=4, dense=16),
    "temporal_conv_net": lambda k: TemporalConvNet((D,), k, channels=16, blocks=2),
    "attention_mil": lambda k: AttentionMIL((D,), k, hidden=16, attention=8),
    "two_stream": lambda k: TwoStream((D,), k, landmarks=3, units=8, heads=2, head_width=4, ratio=2, dense_cnn=8),
    "two_stream_cnn": lambda k: TwoStream((D,), k, 3, "cnn", units=8, heads=2, head_width=4, ratio=2, dense_cnn=8),
    "two_stream_landmarks": lambda k: TwoStream((D,), k, 6, "landmarks", units=8, heads=2, head_width=4),
    "histogram_boosting": lambda k: HistogramBoosting((D,), k, trees=20, learning_rate=0.3, min_rows=2),
    "histogram_boosting_frames": lambda k: HistogramBoosting((D,), k, "frame", trees=20, learning_rate=0.3),
    "gradient_boosting": lambda k: GradientBoosting((D,), k, trees=10, learning_rate=0.3),
    "random_forest": lambda k: RandomForest((D,), k, "frame", trees=20),
    "adaboost": lambda k: AdaBoost((D,), k, trees=20, max_depth=2),
    "deep_adaboost": lambda k: DeepAdaBoost((D,), k, lambda shape, n: LSTM(shape, n, units=(8, 8)), trees=20),
    "deep_adaboost_frames": lambda k: DeepAdaBoost((D,), k, lambda shape, n: FrameANN(shape, n, (16, 8)), max_depth=2),
    "standardised": lambda k: standardised(BiLSTMAttention((D,), k, units=8, heads=2, head_width=4, dense=16)),
    "standardised_lstm": lambda k: standardised(LSTM((D,), k)),
    "standardised_frames": lambda k: standardised(FrameANN((D,), k, hidden=(16, 8))),
    "standardised_forest": lambda k: standardised(RandomForest((D,), k, "frame", trees=20)),
    "vivit": lambda k: ViViT(PIXELS, k, **VIVIT),
    "vivit_factorised": lambda k: ViViT(PIXELS, k, **VIVIT, encoder="factorised", temporal_depth=1),
}

BY_GRADIENTS = [name for name, make in HEADS.items() if make(K).fitted_by_gradients]


def frames(head: Head, clips: int, length: int = T) -> torch.Tensor:
    x = torch.randn(clips, length, *head.in_shape)
    return x if len(head.in_shape) == 1 else x * 50 + 128


def all_real(clips: int, length: int = T) -> torch.Tensor:
    return torch.ones(clips, length, dtype=torch.bool)


def like_frames(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return mask.reshape(*mask.shape, *[1] * (x.ndim - 2))


def with_garbage(x: torch.Tensor, mask: torch.Tensor, garbage: float) -> torch.Tensor:
    return torch.where(like_frames(mask, x), x, garbage)


def logits_of(head: Head, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What counts of a head's output: logits of masked frames do not."""
    out = head(x, mask)
    return out.masked_fill(~mask[..., None], 0.0) if head.level == "frame" else out


def loss_of(head: Head, x: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the real frames, or of the clips that have one."""
    out = head(x, mask)
    rows = mask if head.level == "frame" else mask.any(dim=1)
    target = target.reshape(-1, *[1] * (rows.ndim - 1)).expand_as(rows)
    each = cross_entropy(out.float().flatten(0, -2), target.flatten(), reduction="none")
    return (each * rows.flatten()).sum() / rows.sum().clamp(min=1)


def without_dropout(head: Head) -> Head:
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return head


def fit_at_once(head: Head, x: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> None:
    """Fit a head that is not fitted by gradients."""
    if isinstance(head, DeepAdaBoost):  # Here the deep head is as it was drawn.
        head.eval()
        x = head.deep.penultimate(x, mask).detach()
        x, mask = (x, mask) if head.level == "frame" else (x[:, None], mask.any(dim=1, keepdim=True))
        head = head.boosted
    if head.level == "frame":
        x, target, mask = x[mask], target[:, None].expand_as(mask)[mask], mask[mask]
    head.fit_rows(Rows(x, mask, target, torch.ones(len(target))), None)


@pytest.fixture(params=HEADS)
def head(request) -> Head:
    torch.manual_seed(0)
    made = HEADS[request.param](K)
    if not made.fitted_by_gradients:
        fit_at_once(made, frames(made, 30), all_real(30), torch.arange(30) % K)
        return made.eval()
    # Statistics other than 0 and 1, as after training.
    made.train()
    for _ in range(3):
        made(frames(made, 6) * 2 + 1, all_real(6))
    return made.eval()


@pytest.fixture
def clips(head):
    """Five clips: whole, padded, gaps in the middle, one frame, starts late."""
    torch.manual_seed(1)
    mask = all_real(5)
    mask[1, 6:] = False
    mask[2, 2:5] = False
    mask[3, 1:] = False
    mask[4, :4] = False
    return frames(head, 5), mask


@pytest.mark.parametrize("name", HEADS)
def test_attention_that_is_offered_is_given_to_real_frames_alone(name):
    torch.manual_seed(0)
    head = HEADS[name](K).eval()
    x, mask = frames(head, 2), torch.tensor([[1] * T, [0, 1, 1, 0, 0, 1, 0, 0, 0]]).bool()
    offered = {"frames": head.frame_attention, "pixels": head.pixel_attention}
    for what, attention in offered.items():
        if what not in head.attends_to:
            with pytest.raises(NotImplementedError, match=head.name):
                attention(x, mask)
            continue
        found = attention(x, mask)
        of_frames = found if what == "frames" else found.flatten(2).sum(dim=2)
        assert found.shape[:2] == mask.shape and (found >= 0).all() and not of_frames[~mask].any()
        assert (of_frames.sum(dim=1) <= 1 + 1e-5).all()
        if what == "frames":
            torch.testing.assert_close(of_frames.sum(dim=1), torch.ones(2))
        torch.testing.assert_close(attention(with_garbage(x, mask, math.nan), mask), found)


def test_every_exported_head_is_in_the_table():
    exported = {getattr(painseq.heads, name) for name in painseq.heads.__all__} - {Head}
    assert {type(make(K)) for make in HEADS.values()} == exported | {Standardised}


def test_output_has_a_row_of_logits_a_clip_or_a_frame(head, clips):
    x, mask = clips
    assert head(x, mask).shape == ((5, T, K) if head.level == "frame" else (5, K))


@pytest.mark.parametrize("garbage", [1e4, math.nan])
def test_what_stands_in_masked_frames_does_not_matter(head, clips, garbage):
    x, mask = clips
    dirty = with_garbage(x, mask, garbage)
    torch.testing.assert_close(logits_of(head, dirty, mask), logits_of(head, x, mask), atol=1e-5, rtol=0)
    assert head(dirty, mask).isfinite().all()


@pytest.mark.parametrize("head", BY_GRADIENTS, indirect=True)
def test_the_last_layer_on_penultimate_features_gives_the_output(head, clips):
    features = head.penultimate(*clips)
    assert features.shape == (*((5, T) if head.level == "frame" else (5,)), head.last.in_features)
    assert torch.equal(head.last(features), head(*clips))


@pytest.mark.parametrize("name", [name for name in HEADS if name not in BY_GRADIENTS])
def test_trees_have_no_penultimate_features(name):
    head = HEADS[name](K)
    with pytest.raises(PainseqError):
        _ = head.last
    with pytest.raises(PainseqError):
        head.penultimate(frames(head, 1), all_real(1))


@pytest.mark.parametrize("head", BY_GRADIENTS, indirect=True)
@pytest.mark.parametrize("garbage", [1e4, math.nan])
def test_garbage_in_masked_frames_does_not_matter_in_training_either(head, clips, garbage):
    x, mask = clips
    target = torch.tensor([0, 1, 2, 0, 1])
    without_dropout(head).train()
    state = {key: value.clone() for key, value in head.state_dict().items()}

    def step(x):
        head.load_state_dict(state)
        head.zero_grad()
        loss = loss_of(head, x, mask, target)
        loss.backward()
        gradients = {name: value.grad for name, value in head.named_parameters() if value.grad is not None}
        return loss.detach(), gradients, {key: value.clone() for key, value in head.state_dict().items()}

    torch.testing.assert_close(step(with_garbage(x, mask, garbage)), step(x), atol=1e-5, rtol=1e-5)


def test_a_clip_alone_equals_the_clip_in_a_batch(head, clips):
    x, mask = clips
    together = logits_of(head, x, mask)
    for row in range(len(x)):
        end = int(mask[row].nonzero().max()) + 1
        alone = logits_of(head, x[row : row + 1, :end], mask[row : row + 1, :end])
        expected = together[row : row + 1, :end] if head.level == "frame" else together[row : row + 1]
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)


def test_a_batch_of_another_length_than_before(head):
    x = frames(head, 2)
    whole, half = head(x, all_real(2)), head(x[:, :5], all_real(2, 5))
    mask = all_real(2)
    mask[:, 5:] = False
    padded = head(x, mask)
    torch.testing.assert_close(half, padded[:, :5] if head.level == "frame" else padded, atol=1e-5, rtol=0)
    assert torch.equal(head(x, all_real(2)), whole)


def test_the_order_of_clips_in_a_batch_does_not_matter(head, clips):
    x, mask = clips
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(head(x[order], mask[order]), head(x, mask)[order], atol=1e-5, rtol=0)


def test_frame_by_frame_equals_the_whole_clip(head, clips):
    x, mask = clips
    if not head.steps:
        with pytest.raises(NotImplementedError, match=head.name):
            head.first_state(1)
        with pytest.raises(NotImplementedError, match=head.name):
            head.step(x[:, 0], {})
        return
    for row in range(len(x)):
        state = head.first_state(1)
        assert all(value.shape[0] == 1 and not value.any() for value in state.values())
        for time in mask[row].nonzero()[:, 0].tolist():
            logits, following = head.step(x[row : row + 1, time], state)
            assert {name: value.shape for name, value in following.items()} == {n: v.shape for n, v in state.items()}
            state = following
            until = time + 1
            whole = head(x[row : row + 1, :until], mask[row : row + 1, :until])
            torch.testing.assert_close(logits, whole, atol=1e-6, rtol=0)


def test_recurrent_heads_of_one_direction_read_frame_by_frame():
    stepping = {"lstm", "stacked_lstm_forward", "stacked_lstm_deep", "standardised_lstm"}
    assert {name for name, make in HEADS.items() if make(K).steps} == stepping


def test_eval_mode_is_deterministic(head, clips):
    assert torch.equal(head(*clips), head(*clips))


def test_a_clip_of_one_frame(head):
    assert head(frames(head, 1, 1), all_real(1, 1)).isfinite().all()


@pytest.mark.parametrize("head", BY_GRADIENTS, indirect=True)
def test_training_takes_a_batch_of_one_clip_of_one_frame(head):
    head.train()
    out = head(frames(head, 1, 1), all_real(1, 1))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(value.grad.isfinite().all() for value in head.parameters() if value.grad is not None)


def test_a_clip_without_a_real_frame_gets_no_prediction(head, clips):
    x, mask = clips
    mask[2] = False
    decision = decide(head.level, head(x, mask), mask)
    assert decision.label[2] == NO_PREDICTION
    assert decision.probabilities[2].isnan().all()
    others = [0, 1, 3, 4]
    assert (decision.label[others] >= 0).all()
    torch.testing.assert_close(decision.probabilities[others].sum(1), torch.ones(4))


@pytest.mark.parametrize("head", BY_GRADIENTS, indirect=True)
@pytest.mark.parametrize("empty", [[2], [0, 1, 2, 3, 4]])
def test_clips_without_a_real_frame_poison_no_gradient(head, clips, empty):
    x, mask = clips
    mask[empty] = False
    head.train()
    x.requires_grad_()
    # All logits, also those that no loss would read: a gradient of 0 through a NaN is NaN.
    head(x, mask).square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(value.grad.isfinite().all() for value in head.parameters() if value.grad is not None)
    assert all(value.isfinite().all() for value in head.state_dict().values())


def test_a_batch_without_a_real_frame_leaves_the_running_statistics(head):
    before = {name: value.clone() for name, value in head.named_buffers()}
    head.train()(frames(head, 2), ~all_real(2))
    torch.testing.assert_close(dict(head.named_buffers()), before, atol=0, rtol=0)


@pytest.mark.parametrize("head", BY_GRADIENTS, indirect=True)
def test_gradient_reaches_every_real_frame(head, clips):
    x, mask = clips
    x.requires_grad_()
    logits_of(head, x, mask).square().sum().backward()
    size = x.grad.abs().flatten(2).sum(-1)
    assert (size[mask] > 0).all()
    assert (size[~mask] == 0).all()


@pytest.mark.parametrize("head", BY_GRADIENTS, indirect=True)
def test_a_training_step_never_waits_for_the_device(head):
    # Whatever needs a value on the host (boolean indices, .item(), `if tensor`, packing) raises where there are none.
    head.to("meta").train()
    x = torch.empty(4, T, *head.in_shape, device="meta", requires_grad=True)
    mask = torch.empty(4, T, dtype=torch.bool, device="meta")
    loss_of(head, x, mask, torch.empty(4, dtype=torch.int64, device="meta")).backward()
    assert x.grad is not None


def test_half_precision_comes_near(head, clips):
    x, mask = clips
    expected = logits_of(head, x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        out = logits_of(head, x, mask).float()
    torch.testing.assert_close(out, expected, atol=0.03 * float(expected.detach().abs().max() + 1), rtol=0.03)


def test_lstms_compute_in_float32_whatever_the_precision_of_training(head, clips):
    # cuDNN's would compute in float16 under autocast to bfloat16, and their gradients vanish.
    dtypes = []
    for module in head.modules():
        if isinstance(module, torch.nn.LSTM):
            module.register_forward_hook(lambda _, given, out: dtypes.extend([given[0].dtype, out[0].dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        head(*clips)
    assert all(dtype == torch.float32 for dtype in dtypes)
    assert bool(dtypes) == any(isinstance(module, torch.nn.LSTM) for module in head.modules())


def test_round_trip_through_a_weights_only_file(head, clips):
    buffer = io.BytesIO()
    torch.save({"spec": spec_of(head), "state": head.state_dict()}, buffer)
    buffer.seek(0)
    content = torch.load(buffer, weights_only=True)
    if isinstance(head, Standardised):  # A record has the specification of the inner head, and that it is standardised.
        again = Standardised(build(content["spec"]["init_args"]["head"], Head)).eval()
    else:
        again = build(content["spec"], Head).eval()
    again.load_state_dict(content["state"])
    assert torch.equal(again(*clips), head(*clips))


@pytest.mark.parametrize("name", HEADS)
def test_start_takes_over_tensors_of_the_same_name_and_shape(name):
    torch.manual_seed(0)
    head, same, other = HEADS[name](K).eval(), HEADS[name](K).eval(), HEADS[name](K + 1)
    x = frames(head, 2)
    assert set(head.start(same.state_dict())) == set(head.state_dict())
    assert torch.equal(head(x, all_real(2)), same(x, all_real(2)))
    fits = {key for key, value in other.state_dict().items() if value.shape == head.state_dict()[key].shape}
    assert set(head.start(other.state_dict())) == fits < set(head.state_dict())
    for key, value in head.state_dict().items():
        assert torch.equal(value, (other if key in fits else same).state_dict()[key])


@pytest.mark.parametrize("name", HEADS)
def test_learns_a_small_separable_set(name):
    torch.manual_seed(0)
    head = HEADS[name](K)
    target = torch.arange(60) % K
    x = torch.randn(K, *head.in_shape)[target][:, None] * 2 + 0.5 * torch.randn(60, T, *head.in_shape)
    x = x if len(head.in_shape) == 1 else x * 50 + 128
    mask = torch.rand(60, T) > 0.2
    mask[:, 0] = True
    if head.fitted_by_gradients:
        optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            loss_of(head, x, mask, target).backward()
            optimizer.step()
    else:
        fit_at_once(head, x, mask, target)
    label = decide(head.eval().level, head(x, mask), mask).label
    assert (label == target).float().mean() >= 0.95


REGRESSION = {
    "frame_ann": -0.28381,
    "linear_frames": 0.44973,
    "linear_probe": 0.36764,
    "lstm": -0.41386,
    "stacked_lstm": 0.13106,
    "stacked_lstm_forward": 0.28683,
    "stacked_lstm_deep": 0.26756,
    "bilstm_attention": 0.33834,
    "temporal_conv_net": 0.67420,
    "attention_mil": 0.40126,
    "two_stream": -0.32368,
    "two_stream_cnn": 0.67368,
    "two_stream_landmarks": 0.72884,
    "standardised": 0.33650,
    "standardised_lstm": -0.41386,
    "standardised_frames": -0.29566,
    "vivit": -0.06806,
    "vivit_factorised": 0.22316,
}


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_a_stored_value_still_comes_out(name):
    head = HEADS[name](K).eval()
    with torch.no_grad():
        for index, parameter in enumerate(head.parameters()):
            steps = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
            parameter.copy_(torch.sin(steps * 0.7 + index) / parameter.shape[-1] ** 0.5)
    x = torch.cos(torch.arange(2 * T * math.prod(head.in_shape), dtype=torch.float32) * 0.3)
    x = x.reshape(2, T, *head.in_shape)
    x = x if len(head.in_shape) == 1 else (x + 1) * 127.5
    mask = all_real(2)
    mask[1, 3:5] = False
    value = logits_of(head, x, mask)[..., 0].mean().item()
    assert value == pytest.approx(REGRESSION[name], abs=2e-4)


YAMLS = sorted((shipped_configs() / "head").glob("*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_shipped_configuration_builds_its_head(path):
    spec = yaml.safe_load(path.read_text())["model"]["head"]
    cls = getattr(painseq.heads, spec["class_path"].removeprefix("painseq.heads."))
    with torch.device("meta"):
        arguments = spec.get("init_args", {})
        if "deep" in arguments:  # YAML gives what builds the deep head.
            arguments["deep"] = getattr(painseq.heads, arguments["deep"]["class_path"].rpartition(".")[2])
        made = cls((3, 224, 224) if cls is ViViT else (648,), K, **arguments)
    assert isinstance(made, Head)


def test_every_head_has_a_shipped_configuration():
    named = {yaml.safe_load(path.read_text())["model"]["head"]["class_path"].rpartition(".")[2] for path in YAMLS}
    assert named == {*painseq.heads.__all__} - {"Head"}


def test_the_class_can_be_built_by_its_specification_only_if_it_is_a_head():
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bClip\b)(?=.*\bHead\b)"):
        build({"class_path": "painseq.records.Clip", "init_args": {}}, Head)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bos\b)(?=.*trust)"):
        build({"class_path": "os.system", "init_args": {}}, Head)


@pytest.fixture
def their_spec(tmp_path, monkeypatch) -> dict[str, object]:
    """A head of somebody else's package."""
    (tmp_path / "their_lab.py").write_text(
        "from torch import nn\n"
        "from painseq.batch import masked_mean\n"
        "from painseq.heads import Head\n\n"
        "class Theirs(Head):\n"
        '    level = "video"\n'
        "    def __init__(self, in_shape, num_classes, units=4):\n"
        "        super().__init__(in_shape, num_classes)\n"
        "        self.units = units\n"
        "        self.net = nn.Sequential(nn.Linear(in_shape[0], units), nn.ReLU(), nn.Linear(units, num_classes))\n"
        "    def forward(self, x, mask):\n"
        "        return self.net(masked_mean(x, mask))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_lab", raising=False)
    return {"class_path": "their_lab.Theirs", "init_args": {"in_shape": [D], "num_classes": K, "units": 5}}


def test_a_head_of_another_package_is_built_when_that_package_is_trusted(their_spec):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*their_lab)(?=.*trust)"):
        build(their_spec, Head)
    theirs = build(their_spec, Head, trust=["their_lab"])
    assert theirs(frames(theirs, 2), all_real(2)).shape == (2, K)
    assert spec_of(theirs) == their_spec
