"""What a GPU computes is what the CPU computes, and nothing in a step makes the host wait for it.

These need no video, no weights and nothing beyond torch, Lightning and timm, so that they run on a bare GPU machine.
"""

import copy
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from painseq.extractors import VGG16, Extractor, TimmBackbone
from painseq.faces import FaceCrops, FullFrame
from painseq.features import ExtractOptions, FeatureStore, extract
from painseq.features.network import Network
from painseq.heads import LSTM, AttentionMIL, BiLSTMAttention, FrameANN, StackedLSTM, TemporalConvNet, ViViT
from painseq.model.decision import decide
from painseq.records import Clip, Manifest

pytestmark = pytest.mark.gpu

WIDTH, PIXELS = 32, (3, 32, 32)
HEADS = {
    "frame_ann": lambda: FrameANN((WIDTH,), 3),
    "lstm": lambda: LSTM((WIDTH,), 3),
    "stacked_lstm": lambda: StackedLSTM((WIDTH,), 3, units=16, layers=2),
    "bilstm_attention": lambda: BiLSTMAttention((WIDTH,), 3, units=16, heads=2, head_width=8, dense=16),
    "temporal_conv_net": lambda: TemporalConvNet((WIDTH,), 3, channels=16, blocks=2),
    "attention_mil": lambda: AttentionMIL((WIDTH,), 3, hidden=16, attention=8),
    "vivit": lambda: ViViT(PIXELS, 3, frames=8, tubelet=(2, 8), width=16, depth=1, heads=2),
    "vivit_factorised": lambda: ViViT(
        PIXELS, 3, frames=8, tubelet=(2, 8), width=16, depth=1, heads=2, encoder="factorised", temporal_depth=1
    ),
}


@contextmanager
def no_waiting():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def loss_of(head, x, mask, target):
    logits = head(x, mask)
    if head.level == "frame":
        logits, target = logits.flatten(0, 1), torch.where(mask, target[:, None], -100).flatten()
    return cross_entropy(logits, target)


@pytest.fixture(params=HEADS)
def heads(request):
    """The same head on the CPU and on the GPU, and clips with gaps for it."""
    head = HEADS[request.param]()
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    x = torch.randn(4, 8, *head.in_shape) * (50 if len(head.in_shape) == 3 else 1)
    mask = torch.ones(4, 8, dtype=torch.bool)
    mask[1, 5:], mask[2, 2:4] = False, False
    return head, copy.deepcopy(head).cuda(), (x, mask, torch.tensor([0, 1, 2, 0]))


def test_a_step_of_each_head(heads):
    head, other, (x, mask, target) = heads
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for net, where in ((head, "cpu"), (other, "cuda")):
            loss_of(net.train(), x.to(where), mask.to(where), target.to(where)).backward()
    for (name, ours), theirs in zip(head.named_parameters(), other.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(theirs.grad.cpu(), ours.grad, atol=1e-4, rtol=1e-3, msg=name)
    with torch.no_grad():
        said = [
            decide(net.level, net.eval()(x.to(where), mask.to(where)), mask.to(where)).label.cpu()
            for net, where in ((head, "cpu"), (other, "cuda"))
        ]
    assert torch.equal(*said)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_step_of_each_head_does_not_wait(heads, bf16):
    _, head, given = heads
    x, mask, target = (tensor.cuda() for tensor in given)
    optimizer = torch.optim.AdamW(head.train().parameters())

    def step():
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            loss = loss_of(head, x, mask, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    with no_waiting():
        step()


def networks() -> list[Extractor]:
    return [VGG16(fc=True, input_size_px=64), TimmBackbone("test_resnet", weights=None, input_size_px=64)]


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_features_are_those_of_the_cpu(number, precision, most):
    crops = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    expected = Network(networks()[number], "cpu", "fp32")(crops)
    network = Network(networks()[number], "cuda", precision)
    buffer = network.buffer(8, 64)
    buffer.copy_(crops)
    found = network(buffer)
    assert float((found.cpu() - expected).abs().max() / expected.abs().max()) < most
    with no_waiting():
        network(buffer)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_store_is_that_of_the_cpu(workers, tmp_path):
    random = np.random.default_rng(0)
    for clip in ("a", "b", "c"):
        (tmp_path / clip).mkdir()
        for number in range(5):
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / clip / f"{number}.png")
    manifest = Manifest("images", Path(tmp_path), tuple(Clip(clip, clip, clip, fps=5.0) for clip in "abc"))
    for device in ("cpu", "cuda"):
        options = ExtractOptions("float32", device, "fp32", batch_frames=4, workers=workers)
        faces = FaceCrops(FullFrame(), size_px=64, margin=0.0)
        extract(manifest, faces, networks()[0], None, tmp_path / f"store-{device}", options)
    ours, theirs = FeatureStore(tmp_path / "store-cpu"), FeatureStore(tmp_path / "store-cuda")
    for clip in "abc":
        largest = float(ours[clip].features.abs().max())
        torch.testing.assert_close(theirs[clip].features, ours[clip].features, atol=1e-4 * largest, rtol=0)
