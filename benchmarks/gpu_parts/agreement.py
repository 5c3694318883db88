"""Does the device compute what the CPU computes? Before anything is timed."""

import copy
import os
import subprocess
import sys
from importlib import import_module

import torch
from gpu_parts.bench import Bench
from results import ROOT
from torch import Tensor
from torch.nn import functional as F

from painseq.extractors import VGG16
from painseq.features.network import Network
from painseq.heads import LSTM, FrameANN, Head, ViViT
from painseq.model.decision import decide

FEATURES_APART = {"fp32": 1e-4, "bf16": 0.05}
"""Of the largest feature."""
GRADIENTS_APART = 1e-3
"""Of the largest gradient, without TensorFloat-32."""


def agreement(bench: Bench) -> None:
    """The same features, losses, gradients and labels as on the CPU."""
    size_px = 32 if bench.small else 224
    crops = torch.randint(0, 256, (8, 3, size_px, size_px), dtype=torch.uint8)
    reference = Network(VGG16(fc=True, input_size_px=size_px), "cpu", "fp32")(crops)
    for kind, most in FEATURES_APART.items():
        network = Network(VGG16(fc=True, input_size_px=size_px), bench.device, kind)
        _note(bench, f"VGG16, {kind}", "features", apart(network(crops), reference), most)
    for name, (head, x) in _heads(bench.small).items():
        _head(bench, name, head, x)


def _heads(small: bool) -> dict[str, tuple[Head, Tensor]]:
    clips, frames, width, side = (3, 6, 16, 16) if small else (8, 138, 1024, 64)
    features = torch.randn(clips, frames, width)
    pixels = torch.rand(clips, min(frames, 16), 3, side, side) * 255
    vivit = {"frames": 16, "tubelet": (2, 8), "width": 64, "depth": 2, "heads": 2, "dropout": 0.0}
    return {
        "LSTM": (LSTM((width,), 3), features),
        "FrameANN": (FrameANN((width,), 3), features),
        "ViViT, joint": (ViViT((3, side, side), 3, **vivit), pixels),
        "ViViT, factorised": (ViViT((3, side, side), 3, **vivit, encoder="factorised", temporal_depth=1), pixels),
    }


def _head(bench: Bench, name: str, head: Head, x: Tensor) -> None:
    mask = torch.rand(x.shape[:2]) > 0.1
    mask[:, 0], mask[0, -2:] = True, False
    target = torch.arange(len(x)) % 3
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    other = copy.deepcopy(head).to(bench.device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        ours, theirs = _step(head, x, mask, target), _step(other, *(t.to(bench.device) for t in (x, mask, target)))
        with torch.no_grad():
            said = [
                decide(net.level, net.eval()(x.to(where), mask.to(where)), mask.to(where)).label.cpu()
                for net, where in ((head, "cpu"), (other, bench.device))
            ]
    largest = max(float(gradient.abs().max()) for gradient in ours[1:])
    differing = max(
        float((a.cpu() - b).abs().max()) / (1.0 if number == 0 else largest)
        for number, (a, b) in enumerate(zip(theirs, ours, strict=True))
    )
    _note(bench, name, "loss and gradients", differing, GRADIENTS_APART)
    if not torch.equal(*said):
        bench.differs(f"{name}: {int((said[0] != said[1]).sum())} of {len(x)} labels")


def _step(head: Head, x: Tensor, mask: Tensor, target: Tensor) -> list[Tensor]:
    """Loss and gradients of one step."""
    logits = head.train()(x, mask)
    if head.level == "frame":
        logits, target = logits.flatten(0, 1), torch.where(mask, target[:, None], -100).flatten()
    loss = F.cross_entropy(logits, target)
    loss.backward()
    return [loss.detach(), *(p.grad for p in head.parameters() if p.grad is not None)]


def apart(values: Tensor, reference: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((values.float().cpu() - reference.float()).abs().max() / reference.float().abs().max())


def _note(bench: Bench, what: str, of: str, differing: float, most: float) -> None:
    bench.add("agreement with the CPU", {"what": what, "of": of, "apart": differing, "at most": most})
    if not differing <= most:
        bench.differs(f"{what}: {of} are {differing:.1e} apart, more than {most:.0e}")


def tests(bench: Bench) -> None:
    """The tests marked `gpu`, where pytest is installed."""
    for needed in ("pytest", "hypothesis"):
        try:
            import_module(needed)
        except ModuleNotFoundError:
            bench.part.stopped = f"{needed} is not installed here"
            return
    bench.need(60)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=min(120.0, bench.left_s()),
        )
    except subprocess.TimeoutExpired:
        bench.part.stopped = "pytest took too long"
        return
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-500:]]
    bench.add("tests marked gpu", {"result": lines[-1]})
    if done.returncode:
        print(done.stdout[-6000:], flush=True)
        bench.differs("\n".join(line for line in lines if line.startswith(("FAILED", "ERROR"))) or lines[-1])
