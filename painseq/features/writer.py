"""Filling a store: one process or several, killed at any time, on a disk that may be full."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from torch import Tensor

from painseq.errors import PainseqError
from painseq.extractors import Extractor, save_weights
from painseq.features.clip_file import (
    AGAIN,
    ClipFeatures,
    Dtype,
    Layout,
    Row,
    UnfitFeatures,
    small_tensors,
    to_dtype,
)
from painseq.features.index import (
    Contents,
    Head,
    Index,
    Precision,
    check_same_pipeline,
    part_name,
)
from painseq.features.lock import StoreLock
from painseq.features.shards import close_shard, groups, is_full, tidy
from painseq.runs import Process
from painseq.spec import Spec

_FIRST_FILES = {"pending", ".lock", "index.json", "extractor.safetensors"}
# Room in the header of a file whose length is not known yet.
_MANY_FRAMES = 10**15


class ClipFile:
    """A clip on its way into the store, of which only the small tensors are kept in memory until it is finished."""

    def __init__(self, writer: StoreWriter, clip_id: str, source: str, partial: Path) -> None:
        self.clip_id = clip_id
        self.source = source
        self.frames = 0
        self._writer = writer
        self._partial = partial
        row = Row(0, _MANY_FRAMES, _MANY_FRAMES, source, _MANY_FRAMES)
        self._header_bytes = len(writer._layout(_MANY_FRAMES, _MANY_FRAMES).header({clip_id: row}))
        with writer._disk():
            self._file = partial.open("wb")
            self._file.write(b" " * self._header_bytes)

    def append(self, features: Tensor) -> None:
        """The next frames.

        Args:
            features: (n, *F) of any float type or uint8, zero in frames without a face.

        Raises:
            UnfitFeatures: features of another shape than the store's, or with a value that is not finite.
            PainseqError: the disk is full.
        """
        out_shape = tuple(self._writer.extractor.out_shape)
        if tuple(features.shape[1:]) != out_shape:
            raise UnfitFeatures(
                f"Clip {self.clip_id}: features of shape {tuple(features.shape)}; this store keeps "
                f"(T, {', '.join(map(str, out_shape))}), T above 0."
            )
        kept = to_dtype(features, self._writer.dtype)
        with self._writer._disk():
            self._file.write(kept.numpy().data)
        self.frames += len(kept)

    def finish(self, present: Tensor, times_s: Tensor, landmarks: Tensor | None) -> None:
        """The clip has no more frames: it is on disk when this returns, in place of an older one of the same id.

        Args:
            present: (T,) bool, false for a frame without a face.
            times_s: (T,) seconds from the clip's start.
            landmarks: (T, L, 2) pixels of the video's frame, NaN in frames without a face; None where not known.

        Raises:
            UnfitFeatures: no frame, or another number of landmarks than the other clips have.
            PainseqError: the disk is full.
        """
        if len(present) != self.frames or len(times_s) != self.frames:
            raise ValueError(f"{self.frames} frames of features, {len(present)} of present, {len(times_s)} times.")
        points = self._writer._points_of(self.clip_id, self.frames, landmarks)
        row = Row(0, self.frames, int((~present).sum()), self.source, points)
        layout = self._writer._layout(self.frames, points)
        with self._writer._disk():
            self._file.write(small_tensors(layout, present, times_s, landmarks))
            self._file.seek(0)
            self._file.write(layout.header({self.clip_id: row}, self._header_bytes))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._writer._keep(self, self._partial, row)

    def discard(self) -> None:
        """Nothing of the clip stays; after `finish`, nothing happens."""
        # Closing writes what is left to write, on a disk that may be full.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)
        self._writer._drop(self)


class StoreWriter:
    """Fills a store; a context manager. Leaving it without an error closes the last shard.

    Several processes of one launch may fill a store together, each with clips of its own; none waits for the others.
    Each keeps an index of its own beside the store's, and whoever is alone, on entering or leaving, puts them
    together.

    Args:
        path: the store's folder; made if it is not there, continued if it is a store of the same pipeline.
        spec: {"extractor": {..., "fingerprint"}, "face": ..., "sampling": {"fps": ...}}.
        dtype: of the features on disk.
        extractor: whose weights go into the store unless they are published.
        precision: in which the network computes.
        process: which of the processes that fill the store this one is; None: the only one.

    Raises:
        PainseqError: on entering: the store there is of another pipeline, type or precision, or another launch fills
            it. From every method: the disk is full (what is finished stays).
    """

    def __init__(
        self,
        path: Path,
        spec: Mapping[str, object],
        dtype: Dtype,
        extractor: Extractor,
        precision: Precision = "fp32",
        process: Process | None = None,
    ) -> None:
        for value, known in ((dtype, get_args(Dtype)), (precision, get_args(Precision))):
            if value not in known:
                raise PainseqError(f"Features in {value!r}; a store keeps {', '.join(known)}.")
        self.path = Path(path)
        self.spec: Spec = json.loads(json.dumps(spec))
        self.dtype: Dtype = dtype
        self.precision: Precision = precision
        self.extractor = extractor
        self._out_shape = tuple(extractor.out_shape)
        self.process = process or Process()
        self._lock = StoreLock(self.path, self.process)
        # What the store held on entering and what came since; of it, what came from this process, whose index is to be
        # written anew where it is not `_saved`; and the files of its pending clips.
        self._all = Index()
        self._own = Index()
        self._saved = True
        self._pending: dict[str, tuple[str, Row]] = {}
        self._open: list[ClipFile] = []
        self._next_shard = 0
        self._next_pending = 0
        self._next_partial = 0

    def __enter__(self) -> Self:
        with self._disk():
            self.path.mkdir(parents=True, exist_ok=True)
            names = {file.name for file in self.path.iterdir() if not file.name.endswith(".partial")}
            if "store.json" not in names and names - _FIRST_FILES:
                raise PainseqError(
                    f"{self.path} holds other files ({min(names - _FIRST_FILES)}) and is no store. Give a new folder."
                )
            (self.path / "pending").mkdir(exist_ok=True)
            self._lock.enter(self._prepare, (self.path / "store.json").exists)
            try:
                self._load()
            except BaseException:
                self._lock.leave(None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = False
        try:
            for clip_file in list(self._open):
                clip_file.discard()
            if kind is None:
                with self._disk():
                    if self._pending or not self._saved:
                        self._seal()
                finished = True
        finally:
            with self._disk():
                self._lock.leave(self._tidy if finished else None)

    def state(self, clip_id: str, source: str) -> Literal["new", "done", "changed"]:
        """Whether the store has the clip, from the same source (a digest of video and span)."""
        place = self._all.rows.get(clip_id)
        if place is None:
            return "new"
        return "done" if place[1].source == source else "changed"

    def counts(self, clip_id: str) -> tuple[int, int]:
        """Frames, and frames without a face, of a clip in the store."""
        row = self._all.rows[clip_id][1]
        return row.frames, row.faceless

    def begin(self, clip_id: str, source: str) -> ClipFile:
        """A clip that is handed over piece by piece; several may be open."""
        partial = self.path / "pending" / f".{self._prefix}{self._next_partial:08d}.partial"
        self._next_partial += 1
        clip_file = ClipFile(self, clip_id, source, partial)
        self._open.append(clip_file)
        return clip_file

    def add(self, clip_id: str, clip: ClipFeatures, source: str) -> None:
        """Keep a whole clip: it is on disk when this returns. It replaces an older one of the same id.

        Raises:
            UnfitFeatures: as `ClipFile.append` and `ClipFile.finish`.
        """
        clip_file = self.begin(clip_id, source)
        try:
            clip_file.append(clip.features)
            clip_file.finish(clip.present, clip.times_s, clip.landmarks)
        finally:
            clip_file.discard()

    def fail(self, clip_id: str, reason: str, changed: bool = False) -> None:
        """Count a clip as failed; kept when the next shard is closed, and tried again in the next run.

        Features from before stay, since a video that cannot be read today (a drive that is not mounted) says nothing
        against them; unless it has `changed`.
        """
        if clip_id in self._all.rows and not changed:
            return
        with self._disk():
            self._forget(clip_id)
        self._all.failed[clip_id] = self._own.failed[clip_id] = reason
        self._saved = False

    def _layout(self, frames: int, landmarks: int) -> Layout:
        """How a file of this store looks."""
        return Layout(self.dtype, self._out_shape, frames, landmarks)

    def _points_of(self, clip_id: str, frames: int, landmarks: Tensor | None) -> int:
        """The number of a clip's landmarks, which must be that of the clips before it.

        Raises:
            UnfitFeatures: it is not; or the clip has no frame.
        """
        if not frames:
            raise UnfitFeatures(f"Clip {clip_id} has no frame.")
        if landmarks is None:
            return 0
        points = self._all.landmarks or (landmarks.shape[1] if landmarks.ndim == 3 else 0)
        if tuple(landmarks.shape) != (frames, points, 2):
            raise UnfitFeatures(
                f"Clip {clip_id}: landmarks of shape {tuple(landmarks.shape)}, not ({frames}, {points}, 2) as the "
                "clips before it. A store keeps the same points for every clip: find the faces of all of them in one "
                "way, or give a new folder."
            )
        return points

    def _keep(self, clip_file: ClipFile, partial: Path, row: Row) -> None:
        """Called by a clip's file when it is complete."""
        name = f"pending/{self._prefix}{self._next_pending:08d}.safetensors"
        partial.replace(self.path / name)
        self._next_pending += 1
        self._forget(clip_file.clip_id)
        self._all.rows[clip_file.clip_id] = (name, row)
        self._pending[name] = (clip_file.clip_id, row)
        self._drop(clip_file)
        if is_full([row for _, row in self._pending.values()], self.dtype, self._out_shape):
            self._seal()

    def _drop(self, clip_file: ClipFile) -> None:
        """Called by a clip's file that needs no more care."""
        if clip_file in self._open:
            self._open.remove(clip_file)

    @property
    def _prefix(self) -> str:
        return f"{self.process.rank:03d}-"

    def _prepare(self) -> None:
        """Make the store, or put in order what runs before left; nobody else fills it meanwhile."""
        if (self.path / "store.json").exists():
            there = self._checked_head()
            known = tuple(sorted({*there.trained_on, *self.extractor.trained_on}))
            if known != tuple(sorted(there.trained_on)):
                # The same weights, of which more is known now.
                self.extractor.trained_on = known
                if (self.path / "extractor.safetensors").exists():
                    save_weights(self.extractor, self.path / "extractor.safetensors")
                self._head(known).write(self.path)
            # With other processes, or other clips than last time, this clip may be another's now.
            keep = self._prefix if self.process.count == 1 else "/"
            tidy(self.path, self.dtype, self._out_shape, keep)
            return
        for left_over in self.path.glob(".*.partial"):
            left_over.unlink()
        # store.json comes last: a folder with it has everything that a store needs.
        if self.extractor.network.state_dict() and not self.extractor.is_published():
            save_weights(self.extractor, self.path / "extractor.safetensors")
        Index().write(self.path / "index.json")
        self._head(tuple(self.extractor.trained_on)).write(self.path)

    def _head(self, trained_on: tuple[str, ...]) -> Head:
        return Head.of(self.spec, self.dtype, self.precision, self._out_shape, trained_on)

    def _checked_head(self) -> Head:
        there = Head.read(self.path)
        check_same_pipeline(
            self.path,
            {**there.spec, "dtype": there.dtype, "precision": there.precision},
            {**self.spec, "dtype": self.dtype, "precision": self.precision},
        )
        return there

    def _load(self) -> None:
        self._checked_head()
        contents = Contents.read(self.path)
        self._all = contents.together()
        part = self.path / part_name(self.process.rank)
        self._own = Index.read(part) if part.exists() else Index()
        # Pending clips of other processes are theirs.
        own_files = f"pending/{self._prefix}"
        self._pending = {name: clip for name, clip in contents.pending.items() if name.startswith(own_files)}
        numbers = [int(file.stem.removeprefix(self._prefix)) for file in self.path.glob(f"{own_files}*.safetensors")]
        self._next_pending = max(numbers, default=-1) + 1
        self._next_shard = Index.read(self.path / "index.json").next_shard() + self.process.rank
        if self._own.shards:
            self._next_shard = self._own.next_shard() - 1 + self.process.count
        # Killed between the last clip of a shard and the shard.
        if is_full([row for _, row in self._pending.values()], self.dtype, self._out_shape):
            self._seal()

    def _forget(self, clip_id: str) -> None:
        name, _ = self._all.rows.get(clip_id, ("", None))
        if self._pending.pop(name, None) is not None:
            (self.path / name).unlink()
        self._all.forget(clip_id)
        self._own.forget(clip_id)

    def _seal(self) -> None:
        """Pending clips become a shard: first the shard, then the index that names it, then the pending files go.
        Killed in between, the next run writes the same shard again, or removes what the index has already."""
        clips = [(name, clip_id, row) for name, (clip_id, row) in self._pending.items()]
        for group in groups(clips, self.dtype, self._out_shape):
            close_shard(self.path, self._next_shard, group, self.dtype, self._out_shape, self._own, self._all)
            self._next_shard += self.process.count
        self._own.write(self.path / part_name(self.process.rank))
        self._saved = True
        self._pending = {}
        for name, _, _ in clips:
            (self.path / name).unlink()

    def _tidy(self) -> None:
        tidy(self.path, self.dtype, self._out_shape)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise PainseqError(
                    f"No room left for {self.path} ({error.strerror}). What is done stays. Make room, or move the "
                    f"folder to a larger disk. {AGAIN}"
                ) from error
            raise PainseqError(f"{self.path} cannot be written: {error}.") from error
