"""Extract the features of videos into a feature store: face crops, extractor, store."""

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
from painseq.faces.track import switch_warning
from painseq.features.index import Precision, StoreHeader
from painseq.features.network import Network, RequestedPrecision, choose_precision
from painseq.features.pipeline import (
    CHUNK_FRAMES,
    Batches,
    ClipEnd,
    ClipResult,
    Digests,
    Job,
    SmallTensors,
    Writing,
    read_clip,
)
from painseq.features.spans import RecordedSpan
from painseq.features.store import ClipFeatures, Dtype, StoreWriter
from painseq.records import Manifest
from painseq.runs import Process
from painseq.spec import Spec
from painseq.video.ahead import read_ahead
from painseq.video.sampling import no_frames_error

# On a CPU 8 frames use all cores and stay in the cache; larger batches are slower (benchmarks/RESULTS.md).
CPU_BATCH_FRAMES = 8
GPU_BATCH_FRAMES = 128
GPU_WORKERS = 8

log = logging.getLogger("painseq")

STAGES = ("decode", "locate", "crop", "network", "write", "waiting for frames")

Outcome = Literal["extracted", "redone", "skipped", "failed"]


@dataclass(frozen=True)
class ExtractProgress:
    """The progress of an extraction, after a clip or during one.

    Args:
        done: clips that are finished: extracted, failed, or already in the store.
        total: all clips.
        clip_id: the last finished clip; empty during a clip.
        outcome: its outcome; None during a clip.
        frames: frames extracted in this run.
        faceless: frames without a face, of clips finished in this run.
        failed: clips that failed in this run.
        frames_per_s: frames extracted per second in this run.
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
    """The result of an extraction.

    Args:
        clips: requested clips; with several processes, those of this process.
        extracted: clips extracted in this run, including `redone`.
        redone: clips extracted again because their video or span had changed.
        skipped: clips that were already in the store.
        failed: clip id -> reason; the next run tries them again.
        frames: frames of all these clips in the store, including skipped clips.
        faceless: frames among them without a face.
        clips_without_face: clips without any face.
        reused_tracks: clips extracted in this run whose face track came from disk.
        switched: clip id -> times in seconds from which on another person may be followed, of clips extracted in this
            run.
        seconds: duration of this run.
        frames_per_s: frames extracted per second in this run.
        stages: seconds spent in "decode", "locate" (including tracking), "crop", "network" and "write", which overlap
            (the first three are summed over reader threads), and in "waiting for frames": the network was idle.
        precision: precision of the network, "fp32" or "bf16".
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
    switched: Mapping[str, tuple[float, ...]]
    seconds: float
    frames_per_s: float
    stages: Mapping[str, float]
    precision: Precision
    backends: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"{self.clips} clips: {self.extracted} extracted ({self.redone} of them again, their video had changed), "
            f"{self.skipped} done before, {len(self.failed)} failed; {self.frames} frames, {self.faceless} of them "
            f"without a face, {self.clips_without_face} clips without any face; {self.seconds:.1f} s, "
            f"{self.frames_per_s:.1f} frames/s in {self.precision}"
        )
        lines = [text]
        if self.extracted:
            shares = ", ".join(f"{name} {seconds / self.seconds:.0%}" for name, seconds in self.stages.items())
            lines.append(f"time per stage (stages overlap): {shares}")
        if self.reused_tracks:
            lines.append(
                f"face tracks: {self.reused_tracks} clips from disk, {self.extracted - self.reused_tracks} computed"
            )
        lines += [f"{clip_id}: {switch_warning(times_s)}" for clip_id, times_s in self.switched.items()]
        return "\n  ".join([*lines, *(f"failed: {clip_id}: {reason}" for clip_id, reason in self.failed.items())])


def pipeline_spec(extractor: Extractor, faces: FaceCrops, fps: float | None) -> Spec:
    """Describe the pipeline of a store's features.

    Returns:
        {"extractor": {class_path, init_args, fingerprint, input}, "face": {class_path, init_args, identity},
        "sampling": {fps}}, in plain values.
    """
    return {
        "extractor": {**extractor.record(), "input": extractor.input_record()},
        "face": faces.record(),
        "sampling": {"fps": None if fps is None else float(fps)},
    }


@dataclass(frozen=True)
class VideoSpan:
    """A span of a video, and how its frames are sampled.

    Args:
        video: a video file, or a folder of images.
        start_s: start of the span, in seconds since the first frame shown.
        end_s: end of the span, exclusive; None is the end of the video.
        fps: samples per second; None takes every frame.
        image_fps: images per second, if the video is a folder of images.
    """

    video: Path
    start_s: float = 0.0
    end_s: float | None = None
    fps: float | None = None
    image_fps: float | None = None


def clip_features(
    extractor: Extractor,
    faces: FaceCrops,
    span: VideoSpan,
    device: torch.device | str,
    batch_frames: int = CPU_BATCH_FRAMES,
) -> ClipFeatures:
    """Extract a span of a video: float32 features, or uint8 crops for `Pixels`; on the CPU, with landmarks.

    Only frames with a face are passed to the network; the others are zero. Frames are processed in batches, so that
    only the features grow with the clip's length. The extractor is put into eval mode and moved to `device`.

    Args:
        extractor: computes the features.
        faces: crops the face.
        span: the video and the span.
        device: device of the network.
        batch_frames: frames per batch.

    Raises:
        PainseqError: the video cannot be read, or the span has no frames.
    """
    network = Network(extractor, device, "fp32")
    features, small, backend = [], SmallTensors(), ""
    switched_s: tuple[float, ...] = ()
    for chunk in faces.clip(span.video, span.start_s, span.end_s, span.fps, batch_frames, span.image_fps):
        found = torch.from_numpy(chunk.present)
        out = torch.zeros((len(found), *extractor.out_shape), dtype=network.dtype)
        if bool(found.any()):
            out[found] = network(torch.from_numpy(chunk.crops)[found]).cpu()
        features.append(out)
        small.add(chunk.present, chunk.times_s, chunk.landmarks)
        backend = chunk.backend
        switched_s += chunk.switched_s
    if not features:
        raise no_frames_error(span.video, span.start_s, span.end_s)
    return ClipFeatures(torch.cat(features), *small.tensors(), backend, switched_s)


@dataclass(frozen=True)
class ExtractOptions:
    """Settings of an extraction.

    Args:
        dtype: type of the stored features; `Pixels` always stores uint8 crops.
        device: device of the network.
        precision: precision of the network; "auto" is that of an existing store, otherwise bf16 if the device supports
            it natively.
        batch_frames: frames per batch; None: 8 on a CPU, 128 on a GPU.
        workers: threads that read videos; 0 reads in the calling thread. None: 1 for a CPU, up to 8 for a GPU.
        strict: stop at the first clip that fails.
        process: rank of this process, which selects its share of the clips.

    Raises:
        PainseqError: a number is out of range.
    """

    dtype: Literal["float16", "float32"] = "float16"
    device: str = "cpu"
    precision: RequestedPrecision = "auto"
    batch_frames: int | None = None
    workers: int | None = None
    strict: bool = False
    process: Process = field(default_factory=Process)

    def __post_init__(self) -> None:
        if (self.batch_frames is not None and self.batch_frames < 1) or (self.workers is not None and self.workers < 0):
            raise PainseqError(
                f"batch_frames is {self.batch_frames}, workers is {self.workers}; they must be at least 1 and 0."
            )

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU."""
        return torch.device(self.device).type != "cpu"

    @property
    def frames_a_batch(self) -> int:
        """`batch_frames`, or the default for the device."""
        return self.batch_frames or (GPU_BATCH_FRAMES if self.on_gpu else CPU_BATCH_FRAMES)

    @property
    def readers(self) -> int:
        """`workers`, or the default for the device."""
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
    """Extract every clip of a manifest into the store at `out`, which is created or completed.

    Clips in the store are skipped, unless their video or span has changed. A clip that cannot be read is recorded with
    its reason and does not stop the others. After an interruption, the same call resumes after the last finished clip.

    Reading, the network and writing run concurrently. Batches span several clips, and memory does not depend on the
    length of a video.

    Raises:
        PainseqError: the existing store has another pipeline; crop and extractor differ in size; the disk is full; a
            clip failed and `strict` is set; the locator's package or model is missing; at the end: no clip could be
            read, or no face was found in any frame (the store is kept; with several processes this is only a warning).
    """
    if faces.size_px != extractor.input_size_px:
        raise PainseqError(
            f"The face crop has size_px {faces.size_px} and the extractor input_size_px {extractor.input_size_px}; "
            "they must be equal."
        )
    options = options or ExtractOptions()
    stored_dtype: Dtype = "uint8" if isinstance(extractor, Pixels) else options.dtype
    precision = _precision(options.precision, out, extractor, options.device)
    process = options.process
    clips = manifest.clips[process.rank :: process.count]
    run = _Run(len(clips), options.strict, on_progress)
    with StoreWriter(out, pipeline_spec(extractor, faces, fps), stored_dtype, extractor, precision, process) as writer:
        digests = Digests()
        jobs = (Job(clip, manifest.path(clip), RecordedSpan.of(clip, manifest, fps)) for clip in clips)
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
    _check_useful(summary, manifest.name, process)
    return summary


def _check_useful(summary: ExtractSummary, dataset: str, process: Process) -> None:
    """Raise if no clip or no face could be extracted; with several processes, only warn."""
    if summary.failed and len(summary.failed) == summary.clips:
        first = next(iter(summary.failed.items()))
        message = f"None of {summary.clips} clips could be extracted. The first, {first[0]}: {first[1]}"
    elif summary.frames and summary.frames == summary.faceless:
        message = (
            f"{dataset}: no face found in any frame ({summary.frames} frames of {summary.clips_without_face} clips, "
            f"locator {summary.backends['locator']}). Check in a video that a face is visible, upright and large "
            "enough. Another locator or a lower min_score may find it."
        )
    else:
        return
    if process.count == 1:
        raise PainseqError(message)
    log.warning("%s", message)


def _precision(requested: RequestedPrecision, out: Path, extractor: Extractor, device: torch.device | str) -> Precision:
    if requested == "auto" and (out / "store.json").is_file():
        return StoreHeader.read(out).precision
    return choose_precision(requested, extractor, device)


class _Run:
    """Collects the counts and times of a run."""

    def __init__(self, total: int, strict: bool, on_progress: Callable[[ExtractProgress], None] | None) -> None:
        self.total = total
        self.strict = strict
        self.on_progress = on_progress
        self.started = time.perf_counter()
        self.stages: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.outcomes: Counter[Outcome] = Counter()
        self.failed: dict[str, str] = {}
        self.frames = self.faceless = self.clips_without_face = 0
        self.new_frames = self.new_faceless = self.reused_tracks = 0
        self.switched: dict[str, tuple[float, ...]] = {}
        self.readers: set[str] = set()

    def timed(self, items: Iterator[tuple[Job, CropChunk] | ClipEnd]) -> Iterator[tuple[Job, CropChunk] | ClipEnd]:
        """Yield the items, and record the time spent waiting for them and producing them."""
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
        """Count the finished clips, and report the progress."""
        self.new_frames = frames
        while writing.ended:
            ended = writing.ended.popleft()
            self._count(ended)
            clip_id = ended.job.clip.clip_id
            self._notify(clip_id, self._outcome(ended))
            if self.strict and ended.outcome == "failed":
                raise PainseqError(f"Clip {clip_id} failed, and strict is set. {ended.reason} Finished clips are kept.")
        self._notify("", None)

    def _outcome(self, ended: ClipResult) -> Outcome:
        if ended.outcome == "failed":
            return "failed"
        if ended.outcome == "done":
            return "skipped"
        return "redone" if ended.job.state == "changed" else "extracted"

    def _count(self, ended: ClipResult) -> None:
        job = ended.job
        self.outcomes[self._outcome(ended)] += 1
        if ended.outcome == "failed":
            self.failed[job.clip.clip_id] = ended.reason
            return
        self.frames += ended.frames
        self.faceless += ended.faceless
        self.clips_without_face += ended.frames == ended.faceless
        if ended.outcome == "written":
            self.new_faceless += ended.faceless
            self.reused_tracks += job.reused_track
            if job.switched_s:
                self.switched[job.clip.clip_id] = job.switched_s
            self.readers.add(job.backend)

    def _notify(self, clip_id: str, outcome: Outcome | None) -> None:
        if self.on_progress is not None:
            self.on_progress(
                ExtractProgress(
                    done=sum(self.outcomes.values()),
                    total=self.total,
                    clip_id=clip_id,
                    outcome=outcome,
                    frames=self.new_frames,
                    faceless=self.new_faceless,
                    failed=len(self.failed),
                    frames_per_s=self._rate(),
                )
            )

    def _rate(self) -> float:
        return self.new_frames / max(time.perf_counter() - self.started, 1e-9)

    def summary(self, precision: Precision, locator: str, device: str) -> ExtractSummary:
        """Summarise the run."""
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
            switched=self.switched,
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
