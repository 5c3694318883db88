"""The stages of an extraction, which work at the same time: readers, the network, a writer; bounded queues between.

    readers (threads)   decode, locate, track, crop           -> Frames, ClipEnd
    the caller's thread batches across the borders of clips   -> Batch, then the Frames and ClipEnds that it completes
    writer (a thread)   features from the device to the store -> Ended

What a reader finds wrong with a clip travels on as a `ClipEnd`; any other error ends the run.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Full, Queue
from threading import Event, Lock, Thread
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from painseq.errors import LocatorUnavailable, PainseqError
from painseq.extractors import Pixels
from painseq.faces import CropChunk, FaceCrops
from painseq.features.clip_file import UnfitFeatures
from painseq.features.network import Network
from painseq.features.writer import ClipFile, StoreWriter
from painseq.records import Clip
from painseq.spec import digest
from painseq.video import video_digest

CHUNK_FRAMES = 16
WRITE_AHEAD = 16
MOST_WAITING = 256
_POLL_S = 0.1
_PATIENCE_S = 10.0

State = Literal["new", "done", "changed"]
T = TypeVar("T")


@dataclass(eq=False)
class Job:
    """A clip on its way to the store. Readers fill in the first group, the writer the second.

    Args:
        clip: what is extracted.
        video: its file, or its folder of images.
        source: digest of video and span.
        state: whether the store has it.
        backend: which library decoded it.
        reused_track: whether its face track came from disk.
        file: where its features go.
        broken: why they cannot be kept; empty while they can.
    """

    clip: Clip
    video: Path
    source: str = ""
    state: State = "new"
    backend: str = ""
    reused_track: bool = False
    file: ClipFile | None = None
    broken: str = ""
    small: SmallTensors = field(default_factory=lambda: SmallTensors())


class SmallTensors:
    """What is known of a clip's frames beside their features, gathered chunk by chunk.

    In arrays that grow: a small tensor a chunk would keep the memory between the large ones from being used again.
    """

    def __init__(self) -> None:
        self._present = bytearray()
        self._times_s = array("d")
        self._landmarks = array("f")
        self._points = 0

    def add(
        self, present: NDArray[np.bool_], times_s: NDArray[np.float64], landmarks: NDArray[np.float32] | None
    ) -> None:
        """The next frames; landmarks (n, L, 2), None where no face has been seen yet."""
        if landmarks is None:
            self._no_landmarks(len(present))
        else:
            if not self._points:
                self._points = landmarks.shape[1]
                self._no_landmarks(len(self._present))
            self._landmarks.frombytes(np.ascontiguousarray(landmarks, np.float32).tobytes())
        self._present.extend(present.tobytes())
        self._times_s.frombytes(np.ascontiguousarray(times_s, np.float64).tobytes())

    def _no_landmarks(self, frames: int) -> None:
        self._landmarks.extend([math.nan] * (frames * self._points * 2))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """(T,) present, (T,) times_s float64, and (T, L, 2) landmarks, NaN where there is no face; None without any."""
        present = torch.from_numpy(np.frombuffer(bytes(self._present), np.bool_).copy())
        times_s = torch.from_numpy(np.array(self._times_s, np.float64))
        if not self._points:
            return present, times_s, None
        landmarks = np.array(self._landmarks, np.float32).reshape(-1, self._points, 2)
        return present, times_s, torch.from_numpy(landmarks)


@dataclass(eq=False)
class Frames:
    """Consecutive frames of a clip; `features` are complete once `unsent` is 0 and the batches before are through."""

    job: Job
    features: Tensor
    unsent: int
    present: NDArray[np.bool_]
    times_s: NDArray[np.float64]
    landmarks: NDArray[np.float32] | None


@dataclass(frozen=True)
class ClipEnd:
    """No more frames of this clip: all were read, or it was done before, or it failed."""

    job: Job
    outcome: Literal["read", "done", "failed"]
    reason: str = ""


@dataclass(frozen=True)
class Part:
    """Rows of a batch, and the frames that they belong to."""

    frames: Frames
    rows: Tensor
    first: int


@dataclass(frozen=True)
class Batch:
    """What the network made of a batch, still on its device."""

    features: Tensor
    parts: list[Part]


@dataclass(frozen=True)
class Ended:
    """A clip that is on disk, or has failed with a `reason`."""

    job: Job
    outcome: Literal["written", "done", "failed"]
    frames: int
    faceless: int
    reason: str = ""


class Digests:
    """Digests of videos, of which several clips may be cut."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, float | None], str] = {}

    def source(self, video: Path, clip: Clip, beside: Sequence[Path]) -> str:
        """Digest of a clip's video and span, and of the files beside it that tell where the face is."""
        key = video, clip.fps
        if key not in self._known:
            self._known[key] = video_digest(*key)
        return digest([self._known[key], clip.start_s, clip.end_s, *map(video_digest, beside)])


def read_clip(
    job: Job, faces: FaceCrops, fps: float | None, digests: Digests, state: Callable[[str, str], State]
) -> Iterator[tuple[Job, CropChunk] | ClipEnd]:
    """A clip's crops, if the store lacks it; always one `ClipEnd`.

    Raises:
        LocatorUnavailable: nothing can find a face in this clip or in any other.
    """
    clip = job.clip
    frames = 0
    try:
        job.source = digests.source(job.video, clip, faces.extra_files(job.video))
        job.state = state(clip.clip_id, job.source)
        if job.state == "done":
            yield ClipEnd(job, "done")
            return
        for chunk in faces.clip(job.video, clip.start_s, clip.end_s, fps, CHUNK_FRAMES, clip.fps):
            frames += len(chunk)
            job.backend, job.reused_track = chunk.backend, chunk.reused_track
            yield job, chunk
        if not frames:
            raise no_frame(job.video, clip.start_s, clip.end_s)
    except LocatorUnavailable:
        raise  # No fault of the clip.
    except (PainseqError, OSError) as error:
        # Stores are shared, and say nothing of where the data lie.
        root = str(job.video).removesuffix(clip.video)
        yield ClipEnd(job, "failed", str(error).replace(root, ""))
    else:
        yield ClipEnd(job, "read")


def no_frame(video: Path, start_s: float, end_s: float | None) -> PainseqError:
    """The error for a span without a frame."""
    return PainseqError(f"{video} has no frame between {start_s} s and {'its end' if end_s is None else f'{end_s} s'}.")


def read_ahead(
    jobs: Iterable[Job], read: Callable[[Job], Iterator[T]], workers: int, depth: int
) -> Generator[T, None, None]:
    """What `read` gives of each job, read ahead by threads; with several, jobs come interleaved.

    Close the generator to end the threads early.

    Args:
        workers: threads, 1 or more.
        depth: the most items that wait.
    """
    waiting: Queue[T | BaseException | None] = Queue(depth)
    stop, lock, todo = Event(), Lock(), iter(jobs)

    def hand_over(item: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=_POLL_S)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            while True:
                with lock:
                    job = next(todo, None)
                if job is None:
                    break
                for item in read(job):
                    if not hand_over(item):
                        return
        except BaseException as error:
            hand_over(error)
        else:
            hand_over(None)

    threads = [Thread(target=work, name="reader", daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        running = workers
        while running:
            item = waiting.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        give_up_s = time.monotonic() + _PATIENCE_S
        for thread in threads:
            thread.join(max(0.0, give_up_s - time.monotonic()))


class Batches:
    """Fills batches from whatever clips come, runs the network on them, and passes everything on in its order.

    Args:
        network: crops to features.
        batch_frames: frames in a batch.
        pass_on: takes each `Batch`, and each `Frames` and `ClipEnd` behind the batches that it needs.
    """

    def __init__(
        self, network: Network, batch_frames: int, pass_on: Callable[[Batch | Frames | ClipEnd], None]
    ) -> None:
        self.network = network
        self.batch_frames = batch_frames
        self.pass_on = pass_on
        self.frames = 0
        """Frames that need no more of the network."""
        self.seconds = 0.0
        """Time in which this thread ran the network, or waited for the stage behind it."""
        self._waiting: deque[Frames | ClipEnd] = deque()
        self._parts: list[Part] = []
        self._filled = 0
        self._buffer: Tensor | None = None

    def add(self, item: tuple[Job, CropChunk] | ClipEnd) -> None:
        """The next frames of a clip, or its end."""
        if isinstance(item, ClipEnd):
            self._waiting.append(item)
        else:
            self._fill(*item)
        if self._filled and len(self._waiting) > MOST_WAITING:
            # Frames without a face fill no batch, and would wait for those before them without end.
            self._run()
        self._forward()

    def flush(self) -> None:
        """Run what has not filled a batch."""
        if self._filled:
            self._run()
        self._forward()

    def _fill(self, job: Job, chunk: CropChunk) -> None:
        crops = torch.from_numpy(chunk.crops)
        passes_on = isinstance(self.network.extractor, Pixels)
        rows = torch.from_numpy(np.flatnonzero([] if passes_on else chunk.present))
        shape = (len(chunk), *self.network.extractor.out_shape)
        features = crops if passes_on else torch.zeros(shape, dtype=self.network.dtype)
        frames = Frames(job, features, len(rows), chunk.present, chunk.times_s, chunk.landmarks)
        self._waiting.append(frames)
        while len(rows):
            fits = min(len(rows), self.batch_frames - self._filled)
            part, rows = rows[:fits], rows[fits:]
            if self._buffer is None:
                self._buffer = self.network.buffer(self.batch_frames, crops.shape[-1])
            self._buffer[self._filled : self._filled + fits] = crops if fits == len(chunk) else crops[part]
            self._parts.append(Part(frames, part, self._filled))
            self._filled += fits
            if self._filled == self.batch_frames:
                self._run()

    def _run(self) -> None:
        assert self._buffer is not None
        # A buffer of its own for each batch: the device may still be reading the last one.
        crops, parts = self._buffer[: self._filled], self._parts
        self._buffer, self._parts, self._filled = None, [], 0
        start = time.perf_counter()
        features = self.network(crops)
        for part in parts:
            part.frames.unsent -= len(part.rows)
        self.pass_on(Batch(features, parts))
        self.seconds += time.perf_counter() - start

    def _forward(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Frames):
                if first.unsent:
                    return
                self.frames += len(first.present)
            self.pass_on(self._waiting.popleft())


class Writing:
    """Brings features into the store, in a thread of its own.

    Args:
        writer: the open store.

    `ended` grows by an `Ended` for each clip, in order; `seconds` tells the time spent on the device's results
    ("network") and on the store ("write").
    """

    def __init__(self, writer: StoreWriter) -> None:
        self.writer = writer
        self.ended: deque[Ended] = deque()
        self.seconds = {"network": 0.0, "write": 0.0}
        self._error: BaseException | None = None
        self._open: set[Job] = set()
        self._queue: Queue[Batch | Frames | ClipEnd | None] = Queue(WRITE_AHEAD)
        self._thread = Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def put(self, item: Batch | Frames | ClipEnd) -> None:
        """Hand over the next item.

        Raises:
            PainseqError: the store could not take an earlier one: the disk is full.
        """
        self._queue.put(item)
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the thread."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Write what was handed over, and drop clips whose end was not."""
        try:
            self._queue.put(None)
            self._thread.join()
        except BaseException as error:
            # Interrupted once more: what waits is given up, but nobody lets go of the store while the thread writes.
            self._error = error
            self._queue.put(None)
            self._thread.join()
            raise
        for job in self._open:
            if job.file is not None:
                job.file.discard()
        self._open.clear()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            # After an error the queue is emptied still, so that nobody waits for a place in it.
            if self._error is None:
                try:
                    self._take(item)
                except BaseException as error:
                    self._error = error

    def _take(self, item: Batch | Frames | ClipEnd) -> None:
        start = time.perf_counter()
        if isinstance(item, Batch):
            features = item.features.to("cpu")
            for part in item.parts:
                part.frames.features[part.rows] = features[part.first : part.first + len(part.rows)]
            self.seconds["network"] += time.perf_counter() - start
            return
        if isinstance(item, Frames):
            self._append(item)
        else:
            self.ended.append(self._end(item))
        self.seconds["write"] += time.perf_counter() - start

    def _append(self, frames: Frames) -> None:
        job = frames.job
        if job.broken:
            return
        if job.file is None:
            job.file = self.writer.begin(job.clip.clip_id, job.source)
            self._open.add(job)
        try:
            job.file.append(frames.features)
        except UnfitFeatures as error:
            job.broken = str(error)
        job.small.add(frames.present, frames.times_s, frames.landmarks)

    def _end(self, end: ClipEnd) -> Ended:
        job, clip_id = end.job, end.job.clip.clip_id
        reason = end.reason or job.broken
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
        self._open.discard(job)
        if reason:
            return Ended(job, "failed", 0, 0, reason)
        return Ended(job, "written" if end.outcome == "read" else "done", *self.writer.counts(clip_id))
