"""The engine: videos through face crops and an extractor into a feature store."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from painseq.errors import PainseqError
from painseq.extractors import Extractor, Pixels
from painseq.faces import CropChunk, FaceCrops
from painseq.features.index import Head, Precision
from painseq.features.network import AskedPrecision, Network, choose_precision
from painseq.features.pipeline import (
    CHUNK_FRAMES,
    Batches,
    ClipEnd,
    Digests,
    Ended,
    Job,
    SmallTensors,
    Writing,
    no_frame,
    read_ahead,
    read_clip,
)
from painseq.features.store import ClipFeatures, Dtype, StoreWriter
from painseq.records import Manifest
from painseq.runs import Process
from painseq.spec import Spec

# On a CPU 8 frames fill the cores and stay in the cache; larger batches are slower (benchmarks/RESULTS.md).
CPU_BATCH_FRAMES = 8
GPU_BATCH_FRAMES = 128
GPU_WORKERS = 8

log = logging.getLogger("painseq")

STAGES = ("decode", "locate", "crop", "network", "write", "waiting for frames")

Outcome = Literal["extracted", "redone", "skipped", "failed"]


@dataclass(frozen=True)
class ExtractProgress:
    """Where an extraction stands: after a clip, or in the middle of one.

    Args:
        done: clips dealt with so far, of `total`: extracted, failed, or in the store already.
        clip_id: the last of them; empty in the middle of a clip.
        outcome: what became of it; None in the middle of a clip.
        frames: frames extracted in this run.
        faceless: those without a face, of finished clips.
        failed: clips that failed in this run.
        frames_per_s: frames extracted a second in this run.
    """

    done: int
    total: int
    clip_id: str
    outcome: Outcome | None
    frames: int
    faceless: int
    failed: int
    frames_per_s: float


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did.

    Args:
        clips: clips asked for; with several processes, of this one.
        extracted: clips extracted in this run; `redone` of them because their video or span had changed.
        redone: see `extracted`.
        skipped: clips that were done before.
        failed: clip id -> reason; these are tried again in the next run.
        frames: frames of all these clips in the store, those done before included.
        faceless: frames among them without a face.
        clips_without_face: clips without any face.
        reused_tracks: clips extracted in this run whose face track came from disk.
        seconds: this run took.
        frames_per_s: frames extracted a second in this run.
        stages: seconds spent in "decode", "locate" (tracking included), "crop", "network", "write", which overlap (the
            first three are summed over reading threads), and in "waiting for frames": the network had none.
        precision: of the network, "fp32" or "bf16".
        backends: video reader, locator, device.
    """

    clips: int
    extracted: int
    redone: int
    skipped: int
    failed: Mapping[str, str]
    frames: int
    faceless: int
    clips_without_face: int
    reused_tracks: int
    seconds: float
    frames_per_s: float
    stages: Mapping[str, float]
    precision: Precision
    backends: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"{self.clips} clips: {self.extracted} extracted ({self.redone} of them redone, their video had changed), "
            f"{self.skipped} done before, {len(self.failed)} failed; {self.frames} frames, {self.faceless} of them "
            f"without a face, {self.clips_without_face} clips without any; {self.seconds:.1f} s, "
            f"{self.frames_per_s:.1f} frames/s in {self.precision}"
        )
        lines = [text]
        if self.extracted:
            shares = ", ".join(f"{name} {seconds / self.seconds:.0%}" for name, seconds in self.stages.items())
            lines.append(f"time, of stages that overlap: {shares}")
        if self.reused_tracks:
            lines.append(
                f"face tracks: {self.reused_tracks} clips from disk, {self.extracted - self.reused_tracks} made"
            )
        return "\n  ".join([*lines, *(f"failed: {clip_id}: {reason}" for clip_id, reason in self.failed.items())])


def pipeline_spec(extractor: Extractor, faces: FaceCrops, fps: float | None) -> Spec:
    """What a store records of how its features are made.

    Returns:
        {"extractor": {class_path, init_args, fingerprint}, "face": {class_path, init_args, identity},
        "sampling": {fps}}, in plain values.
    """
    return {
        "extractor": extractor.record(),
        "face": faces.record(),
        "sampling": {"fps": None if fps is None else float(fps)},
    }


def clip_features(
    extractor: Extractor,
    faces: FaceCrops,
    video: Path,
    start_s: float,
    end_s: float | None,
    fps: float | None,
    device: torch.device | str,
    batch_frames: int = CPU_BATCH_FRAMES,
    image_fps: float | None = None,
) -> ClipFeatures:
    """Features of a span of a video: float32, or uint8 crops for `Pixels`; on the CPU, with the face's landmarks.

    Only frames with a face go through the network; the others are zero. Frames pass in batches, so that memory
    does not grow with the clip's length but for the features themselves. The extractor is put into eval mode and
    on `device`.

    Args:
        fps: sampled frames a second; None takes every frame.
        batch_frames: frames at once.
        image_fps: images a second, where the video is a folder of them.

    Raises:
        PainseqError: the video cannot be read, or no frame lies in the span.
    """
    network = Network(extractor, device, "fp32")
    features, small, backend = [], SmallTensors(), ""
    for chunk in faces.clip(video, start_s, end_s, fps, batch_frames, image_fps):
        found = torch.from_numpy(chunk.present)
        out = torch.zeros((len(found), *extractor.out_shape), dtype=network.dtype)
        if bool(found.any()):
            out[found] = network(torch.from_numpy(chunk.crops)[found]).cpu()
        features.append(out)
        small.add(chunk.present, chunk.times_s, chunk.landmarks)
        backend = chunk.backend
    if not features:
        raise no_frame(video, start_s, end_s)
    return ClipFeatures(torch.cat(features), *small.tensors(), backend)


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction runs.

    Args:
        dtype: of the features kept; `Pixels` keeps uint8 crops whatever it says.
        device: of the network.
        precision: of the network; "auto" is that of the store if there is one, else bf16 where the device has it
            natively.
        batch_frames: frames the network takes at once; None: 8 on a CPU, 128 on a GPU.
        workers: threads that read videos; 0 reads in the calling one. None: 1 for a CPU, up to 8 for a GPU.
        strict: end at the first clip that fails.
        process: which share of the clips is this process's.

    Raises:
        PainseqError: a number that cannot be.
    """

    dtype: Literal["float16", "float32"] = "float16"
    device: str = "cpu"
    precision: AskedPrecision = "auto"
    batch_frames: int | None = None
    workers: int | None = None
    strict: bool = False
    process: Process = field(default_factory=Process)

    def __post_init__(self) -> None:
        if (self.batch_frames is not None and self.batch_frames < 1) or (self.workers is not None and self.workers < 0):
            raise PainseqError(
                f"batch_frames is {self.batch_frames} and workers {self.workers}; they must be 1 and 0 or more."
            )

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU."""
        return torch.device(self.device).type != "cpu"

    @property
    def frames_a_batch(self) -> int:
        """`batch_frames`, or what suits the device."""
        return self.batch_frames or (GPU_BATCH_FRAMES if self.on_gpu else CPU_BATCH_FRAMES)

    @property
    def readers(self) -> int:
        """`workers`, or what suits the device."""
        if self.workers is not None:
            return self.workers
        return min(GPU_WORKERS, os.cpu_count() or 1) if self.on_gpu else 1


def extract(
    manifest: Manifest,
    faces: FaceCrops,
    extractor: Extractor,
    fps: float | None,
    out: Path,
    options: ExtractOptions | None = None,
    on_progress: Callable[[ExtractProgress], None] | None = None,
) -> ExtractSummary:
    """Extract every clip of a manifest into the store at `out`, which is made or completed.

    Clips that are in the store are skipped, unless their video or span has changed since. A clip that cannot be
    read is counted with its reason and does not stop the others. Killed or interrupted, the next call
    resumes behind the last finished clip.

    Reading, the network and writing work at the same time. Batches cross the borders of clips, and memory does not
    depend on the length of a video.

    Raises:
        PainseqError: the store there is of another pipeline; crop and extractor differ in size; the disk is full; a
            clip failed and `strict`; the locator's package or model is not there; at the end: not one clip could be
            read, or no face was found in any frame (the store is kept; of several processes, which have a share each,
            only a warning comes of it).
    """
    if faces.size_px != extractor.input_size_px:
        raise PainseqError(
            f"The face crop has size_px {faces.size_px} and the extractor input_size_px {extractor.input_size_px}; "
            "they must be the same."
        )
    options = options or ExtractOptions()
    kept: Dtype = "uint8" if isinstance(extractor, Pixels) else options.dtype
    precision = _precision(options.precision, out, extractor, options.device)
    process = options.process
    clips = manifest.clips[process.rank :: process.count]
    run = _Run(len(clips), options.strict, on_progress)
    with StoreWriter(out, pipeline_spec(extractor, faces, fps), kept, extractor, precision, process) as writer:
        digests = Digests()
        jobs = (Job(clip, manifest.path(clip)) for clip in clips)
        writing = Writing(writer)
        try:
            batches = Batches(Network(extractor, options.device, precision), options.frames_a_batch, writing.put)
            read = partial(read_clip, faces=faces, fps=fps, digests=digests, state=writer.state)
            items: Generator[tuple[Job, CropChunk] | ClipEnd, None, None] = (item for job in jobs for item in read(job))
            if options.readers:
                depth = max(4, options.readers + 2 * options.frames_a_batch // CHUNK_FRAMES)
                items = read_ahead(jobs, read, options.readers, depth)
            with closing(items):
                for item in run.timed(items):
                    batches.add(item)
                    run.report(writing, batches.frames)
            batches.flush()
        finally:
            writing.close()
        writing.check()
        run.stages["network"] += writing.seconds["network"] + batches.seconds
        run.stages["write"] += writing.seconds["write"]
        run.report(writing, batches.frames)
    summary = run.summary(precision, type(faces.locator).__name__, options.device)
    _check_worth(summary, manifest.name, process)
    return summary


def _check_worth(summary: ExtractSummary, dataset: str, process: Process) -> None:
    """Refuse a run of which nothing came; where it is one process's share alone, tell it."""
    if summary.failed and len(summary.failed) == summary.clips:
        first = next(iter(summary.failed.items()))
        what = f"Not one of {summary.clips} clips could be extracted. The first, {first[0]}: {first[1]}"
    elif summary.frames and summary.frames == summary.faceless:
        what = (
            f"{dataset}: no face found in any frame ({summary.frames} frames of {summary.clips_without_face} clips, "
            f"locator {summary.backends['locator']}). Look at a video: is a face in it, upright and large enough? "
            "Another locator or a lower min_score may find it."
        )
    else:
        return
    if process.count == 1:
        raise PainseqError(what)
    log.warning("%s", what)


def _precision(asked: AskedPrecision, out: Path, extractor: Extractor, device: torch.device | str) -> Precision:
    if asked == "auto" and (out / "store.json").is_file():
        return Head.read(out).precision
    return choose_precision(asked, extractor, device)


class _Run:
    """Counts what happens."""

    def __init__(self, total: int, strict: bool, on_progress: Callable[[ExtractProgress], None] | None) -> None:
        self.total = total
        self.strict = strict
        self.on_progress = on_progress
        self.started = time.perf_counter()
        self.stages: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.outcomes: Counter[Outcome] = Counter()
        self.failed: dict[str, str] = {}
        self.frames = self.faceless = self.clips_without_face = 0
        self.fresh_frames = self.fresh_faceless = self.reused_tracks = 0
        self.readers: set[str] = set()

    def timed(self, items: Iterator[tuple[Job, CropChunk] | ClipEnd]) -> Iterator[tuple[Job, CropChunk] | ClipEnd]:
        """The items, with the time that it took to wait for them, and what they took to make."""
        while True:
            start = time.perf_counter()
            item = next(items, None)
            self.stages["waiting for frames"] += time.perf_counter() - start
            if item is None:
                return
            if not isinstance(item, ClipEnd):
                for stage, seconds in item[1].seconds.items():
                    self.stages[stage] += seconds
            yield item

    def report(self, writing: Writing, frames: int) -> None:
        """Count the clips that have ended, and tell."""
        self.fresh_frames = frames
        while writing.ended:
            ended = writing.ended.popleft()
            self._count(ended)
            clip_id = ended.job.clip.clip_id
            self._tell(clip_id, self._outcome(ended))
            if self.strict and ended.outcome == "failed":
                raise PainseqError(
                    f"Clip {clip_id} failed, and the run is strict. {ended.reason} What is done is kept."
                )
        self._tell("", None)

    def _outcome(self, ended: Ended) -> Outcome:
        if ended.outcome == "failed":
            return "failed"
        if ended.outcome == "done":
            return "skipped"
        return "redone" if ended.job.state == "changed" else "extracted"

    def _count(self, ended: Ended) -> None:
        job = ended.job
        self.outcomes[self._outcome(ended)] += 1
        if ended.outcome == "failed":
            self.failed[job.clip.clip_id] = ended.reason
            return
        self.frames += ended.frames
        self.faceless += ended.faceless
        self.clips_without_face += ended.frames == ended.faceless
        if ended.outcome == "written":
            self.fresh_faceless += ended.faceless
            self.reused_tracks += job.reused_track
            self.readers.add(job.backend)

    def _tell(self, clip_id: str, outcome: Outcome | None) -> None:
        if self.on_progress is not None:
            self.on_progress(
                ExtractProgress(
                    done=sum(self.outcomes.values()),
                    total=self.total,
                    clip_id=clip_id,
                    outcome=outcome,
                    frames=self.fresh_frames,
                    faceless=self.fresh_faceless,
                    failed=len(self.failed),
                    frames_per_s=self._rate(),
                )
            )

    def _rate(self) -> float:
        return self.fresh_frames / max(time.perf_counter() - self.started, 1e-9)

    def summary(self, precision: Precision, locator: str, device: str) -> ExtractSummary:
        """What was done."""
        return ExtractSummary(
            clips=self.total,
            extracted=self.outcomes["extracted"] + self.outcomes["redone"],
            redone=self.outcomes["redone"],
            skipped=self.outcomes["skipped"],
            failed=self.failed,
            frames=self.frames,
            faceless=self.faceless,
            clips_without_face=self.clips_without_face,
            reused_tracks=self.reused_tracks,
            seconds=time.perf_counter() - self.started,
            frames_per_s=self._rate(),
            stages=self.stages,
            precision=precision,
            backends={
                "video": ", ".join(sorted(self.readers)) or "not used",
                "locator": locator,
                "device": device,
            },
        )
