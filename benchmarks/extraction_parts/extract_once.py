"""One extraction in a process of its own, for extraction.py: prints what it cost, as JSON. Also what both build."""

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from painseq.extractors import VGG16, Extractor, Pixels, TimmBackbone
from painseq.faces import FaceCrops, YuNet
from painseq.features import ExtractOptions, extract
from painseq.records import Clip, Manifest
from painseq.runs import Process

YUNET = "weights/detectors/face_detection_yunet_2023mar.onnx"
VGG16_WEIGHTS = "weights/backbone/vgg16_imagenet_features_tvnorm_fp16.safetensors"
WOLFGANG = "WolfgangLanger_Pexels.mp4"
VIDEOS = ("single_face.mp4", "no_face.mp4", "face_noface.mov", WOLFGANG)

Span = tuple[str, float, float | None]
"""Video, first second, end."""


def clips_of(root: Path, spans: Sequence[Span]) -> Manifest:
    clips = [
        Clip(f"clip{number:03d}", "subject", video, start_s=start_s, end_s=end_s)
        for number, (video, start_s, end_s) in enumerate(spans)
    ]
    return Manifest("videos", root, tuple(clips))


def faces_of(assets: Path, size_px: int) -> FaceCrops:
    """As configs/extractor/vgg16.yaml has it, with the detector's file from the assets."""
    return FaceCrops(YuNet(str(assets / YUNET)), size_px=size_px)


def network_of(name: str, assets: Path, size_px: int) -> Extractor:
    """VGG16 has its real weights; the others' are random, which costs the same."""
    if name == "pixels":
        return Pixels(size_px)
    if name == "vgg16":
        return VGG16(str(assets / VGG16_WEIGHTS), input_size_px=size_px)
    return TimmBackbone(name, input_size_px=size_px)


@dataclass(frozen=True)
class Job:
    """What to extract.

    Args:
        run: what the processes of one launch share.
    """

    root: str
    spans: Sequence[Span]
    assets: str
    network: str
    size_px: int
    out: str
    dtype: str = "float16"
    threads: int = 1
    rank: int = 0
    count: int = 1
    run: str = "alone"

    def arguments(self) -> list[str]:
        return [sys.executable, __file__, json.dumps(asdict(self))]


def peak_mb() -> float:
    """Most memory that this process has held."""
    # Not getrusage's, which a new process takes over from the one that started it.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1e3


def main(job: Job) -> dict[str, float]:
    torch.set_num_threads(job.threads)
    assets = Path(job.assets)
    network, faces = network_of(job.network, assets, job.size_px), faces_of(assets, job.size_px)
    before, start = peak_mb(), time.perf_counter()
    summary = extract(
        clips_of(Path(job.root), job.spans),
        faces,
        network,
        fps=None,
        out=Path(job.out),
        options=ExtractOptions(dtype=job.dtype, precision="fp32", process=Process(job.rank, job.count, run=job.run)),
    )
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "frames": summary.frames, "before_mb": before, "peak_mb": peak_mb()}


if __name__ == "__main__":
    print(json.dumps(main(Job(**json.loads(sys.argv[1])))))
