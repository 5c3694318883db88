"""VGG16 on crops that are ready, and the whole pipeline from images to a store."""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from gpu_parts.bench import Bench
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from painseq.extractors import VGG16
from painseq.faces import FaceCrops, FullFrame
from painseq.features import ExtractOptions, extract
from painseq.features.network import Network
from painseq.records import Clip, Manifest

KINDS: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32")
BATCHES = (128, 8, 32, 64, 256, 512, 1024)
"""The default first."""
CLIPS, FRAMES, WIDTH_PX, HEIGHT_PX = 16, 138, 640, 360


def _vgg16(bench: Bench) -> VGG16:
    return VGG16(fc=True, input_size_px=32 if bench.small else 224)


def matrix_rate(bench: Bench, kind: str) -> float:
    """Multiply-adds of a large matrix product, in FLOP/s; fp32 without TensorFloat-32, which VGG16 does not use."""
    side = 128 if bench.small else 8192
    matrix = torch.randn(side, side, device=bench.device).to(torch.bfloat16 if kind == "bf16" else torch.float32)
    return 2 * side**3 * bench.rate(lambda: torch.mm(matrix, matrix))


def network(bench: Bench) -> None:
    """VGG16 alone: frames a second for each batch, as a share of the matrix rate; whether the host waits."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        _vgg16(bench)(torch.zeros(1, 3, *[_vgg16(bench).input_size_px] * 2, dtype=torch.uint8))
    frame_flop = counter.get_total_flops()
    most = {kind: matrix_rate(bench, kind) for kind in KINDS}
    for batch in (4,) if bench.small else BATCHES:
        for kind in KINDS:
            bench.need(8)
            net = Network(_vgg16(bench), bench.device, kind)
            host = net.buffer(batch, _vgg16(bench).input_size_px)
            host.random_(0, 256)
            with bench.peak() as peak:
                try:
                    rates = {where: _frames_s(bench, net, crops) for where, crops in _crops(bench, host).items()}
                except torch.OutOfMemoryError:
                    bench.add("VGG16", {"precision": kind, "batch": batch, "frames/s": "out of memory"})
                    continue
            bench.add(
                "VGG16",
                {
                    "precision": kind,
                    "batch": batch,
                    "frames/s": rates["device"],
                    "frames/s, crops from the host": rates["host"],
                    "GFLOP a frame": frame_flop / 1e9,
                    "matrix rate, TFLOP/s": most[kind] / 1e12,
                    "share": rates["device"] * frame_flop / most[kind],
                    "host waits": bench.waits(lambda net=net, host=host: net(host)),
                    "peak memory, MB": peak[0],
                },
            )


def _crops(bench: Bench, host: Tensor) -> dict[str, Tensor]:
    return {"device": host.to(bench.device), "host": host}


def _frames_s(bench: Bench, net: Network, crops: Tensor) -> float:
    return len(crops) * bench.rate(lambda: net(crops))


def pipeline(bench: Bench) -> None:
    """Images to a store: frames a second, and how long the network waits for frames."""
    manifest = _images(bench)
    net = Network(_vgg16(bench), bench.device, "bf16")
    crops = net.buffer(4 if bench.small else 128, _vgg16(bench).input_size_px).random_(0, 256).to(bench.device)
    alone = _frames_s(bench, net, crops)
    for workers in (1,) if bench.small else (8, 16, 4, 1):
        bench.need(25)
        out = bench.work / "store"
        options = ExtractOptions(device=str(bench.device), precision="bf16", workers=workers)
        with bench.peak() as peak:
            summary = extract(
                manifest,
                FaceCrops(FullFrame(), size_px=_vgg16(bench).input_size_px, margin=0.0),
                _vgg16(bench),
                None,
                out,
                options=options,
            )
        shutil.rmtree(out)
        stages = dict(summary.stages)
        bench.add(
            "the whole pipeline, bf16",
            {
                "reading threads": workers,
                "frames/s": summary.frames_per_s,
                "share of the network alone": summary.frames_per_s / alone,
                "share of time without frames": stages["waiting for frames"] / summary.seconds,
                "reading, s a thread": (stages["decode"] + stages["locate"] + stages["crop"]) / workers,
                "network, s": stages["network"],
                "writing, s": stages["write"],
                "peak memory, MB": peak[0],
            },
        )


def _images(bench: Bench) -> Manifest:
    """Clips as folders of JPEG images, which need no library for videos."""
    root, random = bench.work / "images", np.random.default_rng(0)
    clips, frames = (2, 3) if bench.small else (CLIPS, FRAMES)
    first = root / "clip00"
    first.mkdir(parents=True)
    for number in range(frames):
        # Smooth, so that an image compresses as a photograph does.
        small = random.integers(0, 256, (HEIGHT_PX // 20, WIDTH_PX // 20, 3), dtype=np.uint8)
        Image.fromarray(small).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC).save(first / f"{number:03d}.jpg")
    for number in range(1, clips):
        shutil.copytree(first, root / f"clip{number:02d}")
    names = [f"clip{number:02d}" for number in range(clips)]
    return Manifest("images", Path(root), tuple(Clip(name, name, name, fps=25.0) for name in names))
