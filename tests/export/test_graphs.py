"""Every head and every kind of extractor as an ONNX file that computes what torch does."""

import numpy as np
import pytest
import torch

import painseq.heads
from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.export.graphs import ExtractorGraph, HeadGraph, StepGraph, graph_of, graphs_of
from painseq.export.onnx_files import check_graph, write_graph
from painseq.extractors import VGG16, TimmBackbone
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
from painseq.model import PainModel
from painseq.model.decision import decide
from painseq.model.record import ThresholdRecord
from painseq.moments import Moments
from painseq.runtime.graphs import OnnxGraph

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
D, K = 6, 3
TWO = ("no_pain", "pain")
VIVIT = {"frames": 8, "tubelet": (2, 8), "width": 8, "depth": 1, "heads": 2}
ATTENDED = {"units": 4, "heads": 2, "head_width": 2}


def standardised(head: Head) -> Standardised:
    wrapped = Standardised(head)
    wrapped.measure(Moments(50, np.linspace(-1, 1, D), np.linspace(10, 100, D)))
    return wrapped


def fitted(head: Head) -> Head:
    """Trees that were fitted on noise."""
    x, target = torch.randn(30, 5, D), torch.arange(30) % K
    mask = torch.ones(30, 5, dtype=torch.bool)
    if head.level == "frame":
        x, mask, target = x.flatten(0, 1), mask.flatten(), target.repeat_interleave(5)
    if isinstance(head, DeepAdaBoost):
        x, mask, head = torch.randn(30, head.deep.last.in_features), torch.ones(30, dtype=torch.bool), head.boosted
    head.fit_rows(Rows(x, mask, target, torch.ones(len(target))), None)
    return head


def deep_adaboost() -> Head:
    head = DeepAdaBoost((D,), K, lambda shape, n: LinearProbe(shape, n), trees=3)
    fitted(head)
    return head


HEADS = {
    "frame_ann": lambda: standardised(FrameANN((D,), K, hidden=(8,))),
    "linear_frames": lambda: LinearFrames((D,), K),
    "linear_probe": lambda: standardised(LinearProbe((D,), K)),
    "lstm": lambda: standardised(LSTM((D,), K, units=(4, 3), dense=4)),
    "stacked_lstm": lambda: StackedLSTM((D,), K, units=4, layers=1),
    "bilstm_attention": lambda: standardised(BiLSTMAttention((D,), K, **ATTENDED, dense=4)),
    "attention_mil": lambda: AttentionMIL((D,), K, hidden=8, attention=4),
    "temporal_conv_net": lambda: TemporalConvNet((D,), K, channels=4, blocks=2),
    "two_stream": lambda: TwoStream((D,), K, landmarks=2, **ATTENDED, ratio=2, dense_cnn=4),
    "vivit": lambda: ViViT((3, 16, 16), K, **VIVIT),
    "vivit_factorised": lambda: ViViT((3, 16, 16), K, **VIVIT, encoder="factorised", temporal_depth=1),
    "histogram_boosting": lambda: fitted(HistogramBoosting((D,), K, "frame", trees=3, min_rows=2)),
    "gradient_boosting": lambda: fitted(standardised(GradientBoosting((D,), K, "frame", trees=3))),
    "random_forest": lambda: fitted(RandomForest((D,), K, "frame", trees=3)),
    "adaboost": lambda: fitted(AdaBoost((D,), K, "video", trees=3)),
    "deep_adaboost": deep_adaboost,
}


@pytest.fixture
def model_of(make_record):
    """Makes a model of a head alone; the running statistics of batch norm are those of other data than noise."""

    def make(head: Head, **fields: object) -> PainModel:
        for module in head.modules():
            if hasattr(module, "running_mean"):
                module.running_mean.copy_(torch.linspace(-0.5, 0.5, len(module.running_mean)))
                module.running_var.copy_(torch.linspace(0.5, 2, len(module.running_var)))
        return PainModel(make_record(in_shape=head.in_shape, **fields), head, None, None)

    return make


def clips(head: Head, count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips with gaps; the second one has no real frame."""
    x = torch.randn(count, length, *head.in_shape)
    x = x if len(head.in_shape) == 1 else (x * 50 + 128).clamp(0, 255).to(torch.uint8)
    mask = torch.rand(count, length) > 0.3
    mask[0, 0] = True
    mask[1:2] = False
    return x if x.dtype == torch.uint8 else torch.where(mask[..., None], x, torch.nan), mask


def run(path, graph, *given: torch.Tensor) -> dict[str, np.ndarray]:
    found = OnnxGraph(path, threads=1)({n: value.numpy() for n, value in zip(graph.inputs, given, strict=True)})
    assert list(found) == list(graph.outputs)
    return found


def close(found: np.ndarray, wanted: torch.Tensor) -> None:
    assert found.dtype == wanted.numpy().dtype
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4, rtol=0)


def test_every_head_is_in_the_table():
    made = (make() for make in HEADS.values())
    inner = {type(head.head if isinstance(head, Standardised) else head) for head in made}
    assert inner == {getattr(painseq.heads, name) for name in painseq.heads.__all__} - {Head}


SLOW = ("lstm", "bilstm_attention", "two_stream", "vivit_factorised")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in HEADS]
)
def test_a_head_as_onnx_decides_as_torch_does(name, model_of, tmp_path):
    model = model_of(HEADS[name]())
    graph, path = HeadGraph(model), tmp_path / "head.onnx"
    write_graph(graph, path)
    for count, length in ((4, 5), (1, 2), (2, 1)):
        x, mask = clips(model.head, count, length)
        found = run(path, graph, x, mask)
        with torch.no_grad():
            logits = model.classify(x.float(), mask)
        wanted = decide(model.head.level, logits, mask)
        assert found["label"].tolist() == wanted.label.tolist()
        close(found["probabilities"], wanted.probabilities)
        assert set(found) == set(graph.outputs)
        if wanted.votes is not None:
            close(found["votes"], wanted.votes)
            close(found["frame_probabilities"], logits.softmax(dim=-1))
    assert b"/painseq/" not in path.read_bytes()


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize("loss", ["corn", "mse", "threshold", "prior"])
def test_the_rule_of_decision_is_inside(loss, level, model_of, tmp_path):
    threshold = ThresholdRecord(0.45, "weighted_f1", 3, 10, 40, 0.7, 0.6, level == "frame")
    outputs, fields = {
        "corn": (2, {"loss": "corn"}),
        "mse": (1, {"loss": "mse", "class_names": (), "train_prior": (), "scale": Scale("pspi", 0, 16)}),
        "threshold": (2, {"class_names": TWO, "train_prior": (0.5, 0.5), "threshold": threshold}),
        "prior": (2, {"class_names": TWO, "train_prior": (0.5, 0.5), "threshold": threshold}),
    }[loss]
    model = model_of((LinearFrames if level == "frame" else LinearProbe)((D,), outputs), **fields)
    if loss == "prior":
        model = model.with_prior({"no_pain": 0.9, "pain": 0.1})
    graph, path = HeadGraph(model), tmp_path / "head.onnx"
    write_graph(graph, path)
    x, mask = clips(model.head, 40, 5)
    found = run(path, graph, x * 2, mask)
    with torch.no_grad():
        given = model.classify(x * 2, mask)
        plain = model.unadjusted(x * 2, mask)
    if loss == "mse":
        close(found["value"], model.objective.answer(level, given, mask))
        assert np.isnan(found["value"][1]) and np.nanmax(found["value"]) <= 16
        assert ("frame_values" in found) == (level == "frame")
        return
    wanted = decide(level, given, mask, model.objective.rule, model.threshold)
    close(found["probabilities"], wanted.probabilities)
    label = decide(level, plain, mask, model.objective.rule, model.threshold).label
    assert found["label"].tolist() == label.tolist()
    assert len(set(label.tolist())) > 2, "all labels, and none"
    if loss == "prior":
        assert found["label"].tolist() != wanted.probabilities.nan_to_num().argmax(dim=1).tolist()


STEPPING = {
    "lstm": HEADS["lstm"],
    "stacked_lstm": lambda: StackedLSTM((D,), K, units=4, layers=2, bidirectional=False),
}


@pytest.mark.parametrize("name", STEPPING)
def test_a_recurrent_head_steps_through_a_clip(name, model_of, tmp_path):
    model = model_of(STEPPING[name]())
    assert graphs_of(model) == ("head", "head_step")
    graph, path = graph_of(model, "head_step"), tmp_path / "head_step.onnx"
    assert isinstance(graph, StepGraph)
    write_graph(graph, path)
    x = torch.randn(2, 6, D)
    state = list(model.head.first_state(2).values())
    for time in range(6):
        found = run(path, graph, x[:, time], *state)
        state = [torch.from_numpy(found[f"next_{name}"]) for name in graph.names]
        with torch.no_grad():
            until = model.classify(x[:, : time + 1], torch.ones(2, time + 1, dtype=torch.bool))
        close(found["probabilities"], until.softmax(dim=-1))
        assert found["label"].tolist() == until.argmax(dim=-1).tolist()
    rows, state = x.numpy(), model.first_state(2)
    for time in range(6):
        answer, state = model.step(rows[:, time], state)
    np.testing.assert_allclose(found["probabilities"], answer.probabilities, atol=1e-5)
    np.testing.assert_allclose(found[f"next_{graph.names[0]}"], state[graph.names[0]], atol=1e-5)


EXTRACTORS = {
    "vgg16": lambda: VGG16(fc=True, input_size_px=32, preprocessing="caffe"),
    "resnet18": lambda: TimmBackbone("resnet18", input_size_px=32),
    "trainable": lambda: TimmBackbone("test_resnet", input_size_px=32, trainable=("layer4",)),
    "vit": lambda: TimmBackbone("vit_tiny_patch16_224", input_size_px=32),
}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_an_extractor_as_onnx_takes_raw_crops(name, tmp_path):
    extractor = EXTRACTORS[name]()
    graph, path = ExtractorGraph(extractor), tmp_path / "extractor.onnx"
    write_graph(graph, path)
    for count in (1, 4):
        crops = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        with torch.no_grad():
            close(run(path, graph, crops)["features"], extractor.eval()(crops))


def test_a_file_of_other_weights_or_fixed_sizes_is_refused(model_of, tmp_path):
    model = model_of(LinearProbe((D,), K))
    graph, path = HeadGraph(model), tmp_path / "head.onnx"
    write_graph(graph, path)
    with torch.no_grad():
        model.head.classify.bias += torch.tensor([0.0, 0.01, 0.0])
    with pytest.raises(PainseqError, match=r"head\.onnx.*torch"):
        check_graph(graph, path)
    torch.onnx.export(graph, graph.example(2, 7), path, dynamo=True, input_names=["x", "mask"],
                      output_names=list(graph.outputs), verbose=False)  # fmt: skip
    with pytest.raises(PainseqError, match=r"head\.onnx.*free"):
        check_graph(graph, path)


def test_a_model_has_the_graphs_that_it_needs(model_of):
    assert graphs_of(model_of(LinearProbe((D,), K))) == ("head",)
    with pytest.raises(PainseqError, match="extractor"):
        graph_of(model_of(LinearProbe((D,), K)), "extractor")
