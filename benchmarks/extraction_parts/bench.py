"""What the parts of extraction.py share: the clips, taking turns, checking that features agree, tables."""

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from extraction_parts.extract_once import VIDEOS, WOLFGANG, Span, clips_of, faces_of, network_of
from torch import Tensor

from painseq.extractors import Extractor
from painseq.faces import CropChunk, FaceCrops
from painseq.features import ExtractSummary, FeatureStore
from painseq.features.network import Network
from painseq.records import Manifest

SAME = 1e-5  # fp32 features apart, as a share of the largest one: "the same"
BATCH = 8
ROUNDS = 3
BIOVID_CLIPS, BIOVID_FRAMES = 8_700, 138


class Skipped(Exception):
    """A part that cannot run here, and why."""


@dataclass
class Bench:
    """What all parts share.

    Args:
        assets: folder of the real videos and weights.
        work: folder for what the parts write; each empties what it is done with.
        figures: frames a second that parts have measured, for those behind them.
    """

    assets: Path
    work: Path
    quick: bool
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def size_px(self) -> int:
        return 32 if self.quick else 224

    @property
    def rounds(self) -> int:
        return 1 if self.quick else ROUNDS

    def name_of(self, name: str) -> str:
        return "test_resnet" if self.quick and name != "pixels" else name

    def network(self, name: str) -> Extractor:
        return network_of(self.name_of(name), self.assets, self.size_px)

    def faces(self) -> FaceCrops:
        return faces_of(self.assets, self.size_px)

    def some(self) -> Manifest:
        """168 frames, all with a face, in three clips."""
        spans: list[Span] = [("single_face.mp4", 0.0, None), (WOLFGANG, 0.0, 2.0), (WOLFGANG, 6.0, 8.0)]
        if self.quick:
            spans = [("single_face.mp4", 0.0, 0.5), (WOLFGANG, 6.0, 6.4)]
        return clips_of(self.assets / "videos", spans)

    def all(self) -> Manifest:
        """The four real videos: 808 frames, 616 with a face."""
        return clips_of(self.assets / "videos", [(video, 0.0, 0.5 if self.quick else None) for video in VIDEOS])

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            yield Path(folder)


def in_turns(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round; they take turns, so that a noisy moment does not hit one alone."""
    seconds: dict[str, list[float]] = {title: [] for title in variants}
    for number in range(rounds):
        for title, run in variants.items():
            start = time.perf_counter()
            run()
            seconds[title].append(time.perf_counter() - start)
            print(f"  round {number + 1} of {rounds}: {title}: {seconds[title][-1]:.2f} s", flush=True)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], above: str, below: str) -> float:
    """Of the fastest rounds: what else a shared machine does only adds to a time."""
    return min(seconds[above]) / min(seconds[below])


def apart(features: Tensor, reference: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((features.float() - reference.float()).abs().max() / reference.float().abs().max())


def require_same(what: str, features: Tensor, reference: Tensor, most: float = SAME) -> float:
    if features.shape != reference.shape:
        raise SystemExit(f"{what}: {tuple(features.shape)} features, not {tuple(reference.shape)}.")
    share = apart(features, reference)
    if not share <= most:
        raise SystemExit(f"{what}: features differ by {share:.1e} of the largest one, more than {most:.0e}.")
    return share


def table(head: str, rows: Sequence[str]) -> str:
    return "\n".join([head, re.sub(r"[^|]+", "---", head), *rows])


def chunks_of(manifest: Manifest, faces: FaceCrops) -> dict[str, list[CropChunk]]:
    return {
        clip.clip_id: list(faces.clip(manifest.path(clip), clip.start_s, clip.end_s, None, 16)) for clip in manifest
    }


def ready_crops(chunks: Mapping[str, Sequence[CropChunk]]) -> Tensor:
    """Crops of all frames with a face, (n, 3, S, S) uint8."""
    crops = [chunk.crops[chunk.present] for each in chunks.values() for chunk in each]
    return torch.from_numpy(np.concatenate(crops)).contiguous(memory_format=torch.channels_last)


def bare(network: Network, crops: Tensor) -> Tensor:
    """The network alone on crops that are ready."""
    return torch.cat([network(part).to("cpu") for part in crops.split(BATCH)])


def stored_features(store: Path) -> Tensor:
    """Features of all frames with a face, in the order of the clips' names."""
    opened = FeatureStore(store)
    clips = [opened[clip_id] for clip_id in sorted(opened)]
    return torch.cat([clip.features[clip.present] for clip in clips])


def stage_table(summary: ExtractSummary) -> str:
    rows = [
        f"| {stage} | {seconds:.2f} | {seconds / summary.seconds:.2f} |" for stage, seconds in summary.stages.items()
    ]
    return table("| stage | seconds | share of the run's time |", [*rows, f"| run | {summary.seconds:.2f} | 1.00 |"])
