"""The concurrent stages of an extraction: readers, the network, a writer, connected by bounded queues.

    readers (threads)   decode, locate, track, crop           -> crops, ClipEnd
    the caller's thread batches across clips                  -> FeatureBatch, then completed ClipFrames and ClipEnds
    writer (a thread)   features from the device to the store -> ClipResult

A clip that cannot be read is passed on as a `ClipEnd`; any other error ends the run.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from painseq.errors import CLIP_FAILURES, PainseqError, printable, reason_of
from painseq.extractors import Pixels
from painseq.faces import CropChunk, FaceCrops
from painseq.features.clip_file import UnfitFeatures
from painseq.features.network import Network
from painseq.features.spans import RecordedSpan
from painseq.features.writer import ClipFile, StoreWriter
from painseq.records import Clip
from painseq.spec import digest
from painseq.video import SHORT_DIGEST, video_digest
from painseq.video.ahead import POLL_S, Channel
from painseq.video.sampling import no_frames_error

CHUNK_FRAMES = 16
WRITE_AHEAD = 16
MAX_WAITING = 256

State = Literal["new", "done", "changed"]


@dataclass(eq=False)
class Job:
    """A clip during extraction. Readers set `source` to `reused_track`, the writer sets the rest.

    Args:
        clip: the clip.
        video: its file, or its folder of images.
        span: what the store records of where its features come from.
        source: digest of video and span.
        state: whether the store has it.
        backend: the library that decoded it.
        reused_track: whether its face track came from disk.
        switched_s: times in seconds from which on another person may be followed.
        file: the file of its features.
        unfit_reason: why its features cannot be stored; empty if they can.
        small: its tensors other than the features.
    """

    clip: Clip
    video: Path
    span: RecordedSpan | None = None
    source: str = ""
    state: State = "new"
    backend: str = ""
    reused_track: bool = False
    switched_s: tuple[float, ...] = ()
    file: ClipFile | None = None
    unfit_reason: str = ""
    small: SmallTensors = field(default_factory=lambda: SmallTensors())


class SmallTensors:
    """The tensors of a clip other than its features, collected in chunks.

    They are kept in growing arrays: one small tensor per chunk would fragment the memory between the large ones.
    """

    def __init__(self) -> None:
        self._present = bytearray()
        self._times_s = array("d")
        self._landmarks = array("f")
        self._points: tuple[int, ...] = ()

    def add(
        self, present: NDArray[np.bool_], times_s: NDArray[np.float64], landmarks: NDArray[np.float32] | None
    ) -> None:
        """Append the next frames; landmarks (n, L, 2 or 3), None before the first face."""
        if landmarks is None:
            self._no_landmarks(len(present))
        else:
            if not self._points:
                self._points = landmarks.shape[1:]
                self._no_landmarks(len(self._present))
            self._landmarks.frombytes(np.ascontiguousarray(landmarks, np.float32).tobytes())
        self._present.extend(present.tobytes())
        self._times_s.frombytes(np.ascontiguousarray(times_s, np.float64).tobytes())

    def _no_landmarks(self, frames: int) -> None:
        self._landmarks.extend([math.nan] * (frames * math.prod(self._points) if self._points else 0))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (T,) present, (T,) times_s float64, and (T, L, 2 or 3) landmarks, NaN without a face, or None."""
        present = torch.from_numpy(np.frombuffer(bytes(self._present), np.bool_).copy())
        times_s = torch.from_numpy(np.array(self._times_s, np.float64))
        if not self._points:
            return present, times_s, None
        landmarks = np.array(self._landmarks, np.float32).reshape(-1, *self._points)
        return present, times_s, torch.from_numpy(landmarks)


@dataclass(eq=False)
class ClipFrames:
    """Consecutive frames of a clip; `features` are complete when `pending_rows` is 0 and earlier batches are done."""

    job: Job
    features: Tensor
    pending_rows: int
    present: NDArray[np.bool_]
    times_s: NDArray[np.float64]
    landmarks: NDArray[np.float32] | None


@dataclass(frozen=True)
class ClipEnd:
    """The end of a clip: it was read completely, was already in the store, or failed."""

    job: Job
    outcome: Literal["read", "done", "failed"]
    reason: str = ""


@dataclass(frozen=True)
class BatchSlice:
    """Rows of a batch, and the frames they belong to."""

    frames: ClipFrames
    rows: Tensor
    first: int


@dataclass(frozen=True)
class FeatureBatch:
    """The features of a batch, still on the network's device."""

    features: Tensor
    parts: list[BatchSlice]


@dataclass(frozen=True)
class ClipResult:
    """A clip that is on disk, or failed with a `reason`."""

    job: Job
    outcome: Literal["written", "done", "failed"]
    frames: int
    faceless: int
    reason: str = ""


class Digests:
    """Digests of videos, computed once per video, which may contain several clips."""

    def __init__(self) -> None:
        self._digests: dict[tuple[Path, float | None], str] = {}

    def video(self, video: Path, image_fps: float | None) -> str:
        """Digest a video's content."""
        key = video, image_fps
        if key not in self._digests:
            self._digests[key] = video_digest(*key)
        return self._digests[key]

    def source(self, video: Path, clip: Clip, extra_files: Sequence[Path]) -> str:
        """Digest a clip's video and span, and the extra files that locating depends on."""
        of_video = self.video(video, clip.fps)
        return digest([of_video, clip.start_s, clip.end_s, *map(video_digest, extra_files)])


def read_clip(
    job: Job, faces: FaceCrops, fps: float | None, digests: Digests, state: Callable[[str, str], State]
) -> Iterator[tuple[Job, CropChunk] | ClipEnd]:
    """Yield a clip's crops, if it is not in the store, and then one `ClipEnd`.

    Raises:
        LocatorUnavailable: the locator cannot run, so every clip would fail.
    """
    clip = job.clip
    frames = 0
    try:
        if printable(clip.clip_id) != clip.clip_id:
            raise PainseqError(f"The name of {job.video} is not UTF-8, so no file can hold it. Rename the video.")
        job.source = digests.source(job.video, clip, faces.extra_files(job.video))
        if job.span is not None:
            job.span = replace(job.span, video=digests.video(job.video, clip.fps)[:SHORT_DIGEST])
        job.state = state(clip.clip_id, job.source)
        if job.state == "done":
            yield ClipEnd(job, "done")
            return
        for chunk in faces.clip(job.video, clip.start_s, clip.end_s, fps, CHUNK_FRAMES, clip.fps):
            frames += len(chunk)
            job.backend, job.reused_track = chunk.backend, chunk.reused_track
            job.switched_s += chunk.switched_s
            yield job, chunk
        if not frames:
            raise no_frames_error(job.video, clip.start_s, clip.end_s)
    except CLIP_FAILURES as error:
        # Stores are shared, so they must not reveal the path of the data.
        root = str(job.video).removesuffix(clip.video)
        yield ClipEnd(job, "failed", reason_of(error).replace(printable(root), ""))
    else:
        yield ClipEnd(job, "read")


class Batches:
    """Collect frames of consecutive clips into batches, run the network on them, and pass everything on in order.

    Args:
        network: computes features from crops.
        batch_frames: frames per batch.
        pass_on: receives each `FeatureBatch`, and each `ClipFrames` and `ClipEnd` after the batches that it needs.
    """

    def __init__(
        self, network: Network, batch_frames: int, pass_on: Callable[[FeatureBatch | ClipFrames | ClipEnd], None]
    ) -> None:
        self.network = network
        self.batch_frames = batch_frames
        self.pass_on = pass_on
        self.frames = 0
        """Frames that have passed the network."""
        self.seconds = 0.0
        """Seconds in which this thread ran the network or waited for the next stage."""
        self._waiting: deque[ClipFrames | ClipEnd] = deque()
        self._parts: list[BatchSlice] = []
        self._filled = 0
        self._buffer: Tensor | None = None

    def add(self, item: tuple[Job, CropChunk] | ClipEnd) -> None:
        """Add the next frames of a clip, or its end."""
        if isinstance(item, ClipEnd):
            self._waiting.append(item)
        else:
            self._fill(*item)
        if self._filled and len(self._waiting) > MAX_WAITING:
            # Frames without a face do not fill a batch, and would wait forever for the frames before them.
            self._run()
        self._forward()

    def flush(self) -> None:
        """Run the network on the last, incomplete batch."""
        if self._filled:
            self._run()
        self._forward()

    def _fill(self, job: Job, chunk: CropChunk) -> None:
        crops = torch.from_numpy(chunk.crops)
        is_pixels = isinstance(self.network.extractor, Pixels)
        rows = torch.from_numpy(np.flatnonzero([] if is_pixels else chunk.present))
        shape = (len(chunk), *self.network.extractor.out_shape)
        features = crops if is_pixels else torch.zeros(shape, dtype=self.network.dtype)
        frames = ClipFrames(job, features, len(rows), chunk.present, chunk.times_s, chunk.landmarks)
        self._waiting.append(frames)
        while len(rows):
            fits = min(len(rows), self.batch_frames - self._filled)
            part, rows = rows[:fits], rows[fits:]
            if self._buffer is None:
                self._buffer = self.network.buffer(self.batch_frames, crops.shape[-1])
            self._buffer[self._filled : self._filled + fits] = crops if fits == len(chunk) else crops[part]
            self._parts.append(BatchSlice(frames, part, self._filled))
            self._filled += fits
            if self._filled == self.batch_frames:
                self._run()

    def _run(self) -> None:
        assert self._buffer is not None
        # A new buffer for each batch: the device may still be reading the last one.
        crops, parts = self._buffer[: self._filled], self._parts
        self._buffer, self._parts, self._filled = None, [], 0
        start = time.perf_counter()
        features = self.network(crops)
        for part in parts:
            part.frames.pending_rows -= len(part.rows)
        self.pass_on(FeatureBatch(features, parts))
        self.seconds += time.perf_counter() - start

    def _forward(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, ClipFrames):
                if first.pending_rows:
                    return
                self.frames += len(first.present)
            self.pass_on(self._waiting.popleft())


class Writing:
    """Write features into the store, in a separate thread.

    Args:
        writer: the open store.

    `ended` receives a `ClipResult` for each clip, in order; `seconds` is the time spent on waiting for the device
    ("network") and on writing ("write").
    """

    def __init__(self, writer: StoreWriter) -> None:
        self.writer = writer
        self.ended: deque[ClipResult] = deque()
        self.seconds = {"network": 0.0, "write": 0.0}
        self._error: BaseException | None = None
        self._open: set[Job] = set()
        self._queue: Channel[FeatureBatch | ClipFrames | ClipEnd] = Channel(WRITE_AHEAD)
        self._ended = False
        Thread(target=self._work, name="writer", daemon=True).start()

    def put(self, item: FeatureBatch | ClipFrames | ClipEnd) -> None:
        """Queue the next item.

        Raises:
            PainseqError: an earlier item could not be written: the disk is full.
        """
        self._queue.put(item)
        self.check()

    def check(self) -> None:
        """Raise the error of the thread, if there is one."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Write all queued items, and discard unfinished clips."""
        try:
            self._join()
        except BaseException as error:
            # Interrupted again: drop the queued items, but do not release the store while the thread writes.
            self._error = error
            self._join()
            raise
        for job in self._open:
            if job.file is not None:
                job.file.discard()
        self._open.clear()

    def _join(self) -> None:
        self._queue.close()
        # An interrupted Thread.join takes a running thread for an ended one.
        while not self._ended:
            time.sleep(POLL_S)

    def _work(self) -> None:
        for item in self._queue:
            # After an error keep emptying the queue, so that `put` does not block.
            if self._error is None:
                try:
                    self._take(item)
                except BaseException as error:
                    self._error = error
        self._ended = True

    def _take(self, item: FeatureBatch | ClipFrames | ClipEnd) -> None:
        start = time.perf_counter()
        if isinstance(item, FeatureBatch):
            features = item.features.to("cpu")
            for part in item.parts:
                part.frames.features[part.rows] = features[part.first : part.first + len(part.rows)]
            self.seconds["network"] += time.perf_counter() - start
            return
        if isinstance(item, ClipFrames):
            self._append(item)
        else:
            self.ended.append(self._end(item))
        self.seconds["write"] += time.perf_counter() - start

    def _append(self, frames: ClipFrames) -> None:
        job = frames.job
        if job.unfit_reason:
            return
        if job.file is None:
            job.file = self.writer.begin(job.clip.clip_id, job.source, job.span)
            self._open.add(job)
        try:
            job.file.append(frames.features)
        except UnfitFeatures as error:
            job.unfit_reason = str(error)
        job.small.add(frames.present, frames.times_s, frames.landmarks)

    def _end(self, end: ClipEnd) -> ClipResult:
        job, clip_id = end.job, end.job.clip.clip_id
        reason = end.reason or job.unfit_reason
        if not reason and end.outcome == "read":
            assert job.file is not None
            try:
                job.file.finish(*job.small.tensors())
            except UnfitFeatures as error:
                reason = str(error)
        if reason:
            if job.file is not None:
                job.file.discard()
            self.writer.fail(clip_id, reason, changed=job.state == "changed")
        elif end.outcome == "done" and job.span is not None:
            self.writer.confirm(clip_id, job.span)
        self._open.discard(job)
        if reason:
            return ClipResult(job, "failed", 0, 0, reason)
        return ClipResult(job, "written" if end.outcome == "read" else "done", *self.writer.counts(clip_id))
