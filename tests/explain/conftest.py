"""Tiny models of every head, and clips with gaps for them."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from painseq.batch import Batch, Sample, collate
from painseq.explain import Frames
from painseq.extractors import VGG16, Extractor, Pixels, TimmBackbone
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
from painseq.heads.masked_norm import MaskedBatchNorm
from painseq.heads.trees import TreeHead
from painseq.model.pain_model import PainModel
from painseq.model.record import ModelRecord, StreamRecord

SIDE, FRAMES = 32, 9
PRESENT = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0, 1]).bool()
POINTS = 3
VIVIT = {"frames": 10, "tubelet": (2, 8), "width": 16, "depth": 2, "heads": 2}
HEADS: dict[str, Callable[[tuple[int, ...], int], Head]] = {
    "frame_ann": lambda f, k: FrameANN(f, k, hidden=(16, 8)),
    "linear_frames": LinearFrames,
    "linear_probe": LinearProbe,
    "lstm": LSTM,
    "stacked_lstm": lambda f, k: StackedLSTM(f, k, units=8),
    "bilstm_attention": lambda f, k: BiLSTMAttention(f, k, units=8, heads=2, head_width=4, dense=16),
    "attention_mil": lambda f, k: AttentionMIL(f, k, hidden=16, attention=8),
    "temporal_conv_net": lambda f, k: TemporalConvNet(f, k, channels=16, blocks=2),
    "histogram_boosting": lambda f, k: HistogramBoosting(f, k, trees=20, min_rows=2),
    "gradient_boosting": lambda f, k: GradientBoosting(f, k, trees=20),
    "random_forest": lambda f, k: RandomForest(f, k, trees=50),
    "adaboost": lambda f, k: AdaBoost(f, k, trees=20),
    "deep_adaboost": lambda f, k: DeepAdaBoost(f, k, lambda shape, n: LSTM(shape, n, units=(8, 8)), trees=20),
    "two_stream": lambda f, k: TwoStream(f, k, POINTS, units=8, heads=2, head_width=4, dense_cnn=8, dense=8),
    "vivit": lambda f, k: ViViT(f, k, **VIVIT),
    "vivit_mean": lambda f, k: ViViT(f, k, **VIVIT, pool="mean"),
    "vivit_factorised": lambda f, k: ViViT(f, k, **VIVIT, encoder="factorised", temporal_depth=1),
}


def one_clip(clip: Frames, x: torch.Tensor | None = None) -> Batch:
    """A clip, or `x` in place of its frames, as a batch of one."""
    x = clip.x.float() if x is None else x
    crops, features = (x, None) if clip.are_pixels else (None, x)
    return collate([Sample("clip", "s", 0, clip.present, clip.times_s, crops, features, clip.extra)])


@pytest.fixture(scope="session")
def batch_of():
    return one_clip


def fitted(head: TreeHead | DeepAdaBoost, features: torch.Tensor) -> Head:
    """Trees on clips that differ from this one (T, D) by little, so that its changes pass their thresholds."""
    noise = torch.randn(90, *features.shape, generator=torch.Generator().manual_seed(5))
    clips, mask = features + noise * features.std(dim=0) / 2, torch.ones(90, len(features)).bool()
    trees = head
    if isinstance(head, DeepAdaBoost):
        trees, clips, mask = head.boosted, head.eval().deep.penultimate(clips, mask), mask[:, 0]
    trees.fit_rows(Rows(clips, mask, torch.arange(90) % head.num_classes, torch.ones(90)), None)
    return head.eval()


def trained(head: Head) -> Head:
    """Statistics and weights other than at the start."""
    generator = torch.Generator().manual_seed(5)
    for module in head.modules():
        if isinstance(module, MaskedBatchNorm):
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
        if isinstance(module, nn.Linear):
            with torch.no_grad():
                module.weight.mul_(2.0)
    return head.eval()


@pytest.fixture(scope="session")
def backbone() -> TimmBackbone:
    return TimmBackbone("test_resnet", input_size_px=SIDE, seed=1).eval()


@pytest.fixture(scope="session")
def vgg() -> VGG16:
    return VGG16(input_size_px=SIDE, seed=1).eval()


@pytest.fixture
def make_model(make_record: Callable[..., ModelRecord]) -> Callable[..., PainModel]:
    """A model of these parts, whose record has these fields."""

    def make(
        extractor: Extractor | None, head: Head, streams: tuple[str, ...] = ("cnn",), **fields: object
    ) -> PainModel:
        recorded = tuple(StreamRecord(name, {}) for name in streams)
        return PainModel(make_record(streams=recorded, **fields), head, extractor, None)

    return make


@pytest.fixture
def made(backbone: TimmBackbone, make_model: Callable[..., PainModel]) -> Callable[..., tuple[PainModel, Frames]]:
    """A model with this head, and a clip of crops for it whose masked frames hold noise."""

    def make(name: str, outputs: int = 3, **record: object) -> tuple[PainModel, Frames]:
        torch.manual_seed(0)
        crops = torch.randint(0, 256, (FRAMES, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(2))
        times_s = torch.arange(FRAMES) / 5
        if name.startswith("vivit"):
            model = make_model(Pixels(SIDE), HEADS[name]((3, SIDE, SIDE), outputs).eval(), **record)
            return model, Frames(crops.to(torch.uint8), PRESENT, times_s)
        extra = 2 * POINTS if name == "two_stream" else 0
        head = trained(HEADS[name]((math.prod(backbone.out_shape) + extra,), outputs))
        if isinstance(head, TreeHead | DeepAdaBoost):
            with torch.no_grad():
                head = fitted(head, backbone(crops.float()))
        streams = ("cnn", "landmarks") if extra else ("cnn",)
        beside = torch.randn(FRAMES, extra, generator=torch.Generator().manual_seed(3)) if extra else None
        return make_model(backbone, head, streams, **record), Frames(crops.to(torch.uint8), PRESENT, times_s, beside)

    return make
