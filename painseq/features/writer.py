"""Fill a store, safely against kills, full disks and several processes."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from torch import Tensor

from painseq.errors import PainseqError
from painseq.extractors import Extractor, save_weights
from painseq.features.clip_file import (
    RERUN_HINT,
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
    Index,
    Precision,
    StoreHeader,
    check_same_pipeline,
    part_name,
)
from painseq.features.lock import StoreLock
from painseq.features.shards import close_shard, groups, is_full, tidy
from painseq.features.spans import RecordedSpan
from painseq.runs import Process
from painseq.spec import Spec

_FIRST_FILES = {"pending", ".lock", "index.json", "extractor.safetensors"}
log = logging.getLogger("painseq")
# Reserves space in the header of a file whose length is still unknown.
_MAX_FRAMES = 10**15


class ClipFile:
    """The file of a clip that is being written; only its small tensors are kept in memory until it is finished."""

    def __init__(
        self, writer: StoreWriter, clip_id: str, source: str, partial: Path, span: RecordedSpan | None
    ) -> None:
        self.clip_id = clip_id
        self.source = source
        self.span = span
        self.frames = 0
        self._writer = writer
        self._partial = partial
        row = Row(0, _MAX_FRAMES, _MAX_FRAMES, source, _MAX_FRAMES)
        self._spans = {} if span is None else {clip_id: span}
        self._header_bytes = len(writer._layout(_MAX_FRAMES, _MAX_FRAMES, 3).header({clip_id: row}, spans=self._spans))
        with writer._disk():
            self._file = partial.open("wb")
            self._file.write(b" " * self._header_bytes)

    def append(self, features: Tensor) -> None:
        """Append the next frames.

        Args:
            features: (n, *F) of any float type or uint8, zero in frames without a face.

        Raises:
            UnfitFeatures: the shape is not that of the store, or a value is not finite.
            PainseqError: the disk is full.
        """
        out_shape = tuple(self._writer.extractor.out_shape)
        if tuple(features.shape[1:]) != out_shape:
            raise UnfitFeatures(
                f"Clip {self.clip_id}: features have shape {tuple(features.shape)}; this store requires "
                f"(T, {', '.join(map(str, out_shape))}), T above 0."
            )
        kept = to_dtype(features, self._writer.dtype)
        with self._writer._disk():
            self._file.write(kept.numpy().data)
        self.frames += len(kept)

    def finish(self, present: Tensor, times_s: Tensor, landmarks: Tensor | None) -> None:
        """Finish the clip: it is on disk when this returns, and replaces an older one with the same id.

        Args:
            present: (T,) bool, false for a frame without a face.
            times_s: (T,) seconds from the clip's start.
            landmarks: (T, L, 2 or 3) pixels of the video's frame, NaN in frames without a face; None if unknown.

        Raises:
            UnfitFeatures: there is no frame, or the number of landmarks differs from that of the other clips.
            PainseqError: the disk is full.
        """
        if len(present) != self.frames or len(times_s) != self.frames:
            raise ValueError(
                f"features have {self.frames} frames, present has {len(present)}, times_s has {len(times_s)}."
            )
        points = self._writer._points_of(self.clip_id, self.frames, landmarks)
        row = Row(0, self.frames, int((~present).sum()), self.source, *points)
        layout = self._writer._layout(self.frames, *points)
        with self._writer._disk():
            self._file.write(small_tensors(layout, present, times_s, landmarks))
            self._file.seek(0)
            self._file.write(layout.header({self.clip_id: row}, self._header_bytes, self._spans))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._writer._keep(self, self._partial, row)

    def discard(self) -> None:
        """Remove the unfinished clip; does nothing after `finish`."""
        # Closing flushes the buffer, which fails on a full disk.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)
        self._writer._drop(self)


class StoreWriter:
    """Fill a store; a context manager. Leaving it without an error closes the last shard.

    Several processes of one launch may fill a store together, each with different clips, without waiting for each
    other. Each writes its own index file; a process that is alone, on entering or leaving, merges them.

    Args:
        path: the store's folder; created if missing, continued if it is a store of the same pipeline.
        spec: {"extractor": {..., "fingerprint"}, "face": ..., "sampling": {"fps": ...}}.
        dtype: type of the features on disk.
        extractor: its weights are stored unless they are published.
        precision: precision of the network.
        process: rank of this process; None is a single process.

    Raises:
        PainseqError: on entering: the existing store has another pipeline, type or precision, or another launch fills
            it. From every method: the disk is full (finished clips are kept).
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
                raise PainseqError(f"Features cannot be stored or computed in {value!r}; use {', '.join(known)}.")
        self.path = Path(path)
        self.spec: Spec = json.loads(json.dumps(spec))
        self.dtype: Dtype = dtype
        self.precision: Precision = precision
        self.extractor = extractor
        self._out_shape = tuple(extractor.out_shape)
        self.process = process or Process()
        self._lock = StoreLock(self.path, self.process)
        # `_all`: the clips in the store and those added since; `_own`: those added by this process, whose index file is
        # current if `_saved`; `_pending`: files of its pending clips.
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
                    f"{self.path} is not a store and holds other files ({min(names - _FIRST_FILES)}). Choose a new "
                    "folder."
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
        """Return the number of frames, and of frames without a face, of a clip in the store."""
        row = self._all.rows[clip_id][1]
        return row.frames, row.faceless

    def confirm(self, clip_id: str, span: RecordedSpan) -> None:
        """Record the span of a clip in the store, which has the same source; stores of earlier versions lack it."""
        if self._all.spans.get(clip_id) == span:
            return
        name, row = self._all.rows[clip_id]
        self._all.spans[clip_id] = span
        if name not in self._pending:
            self._own.keep(clip_id, name, row, span)
            self._saved = False

    def begin(self, clip_id: str, source: str, span: RecordedSpan | None = None) -> ClipFile:
        """Start a clip that is written in pieces; several may be open."""
        partial = self.path / "pending" / f".{self._prefix}{self._next_partial:08d}.partial"
        self._next_partial += 1
        clip_file = ClipFile(self, clip_id, source, partial, span)
        self._open.append(clip_file)
        return clip_file

    def add(self, clip_id: str, clip: ClipFeatures, source: str, span: RecordedSpan | None = None) -> None:
        """Write a whole clip: it is on disk when this returns, and replaces an older one with the same id.

        Raises:
            UnfitFeatures: as `ClipFile.append` and `ClipFile.finish`.
        """
        clip_file = self.begin(clip_id, source, span)
        try:
            clip_file.append(clip.features)
            clip_file.finish(clip.present, clip.times_s, clip.landmarks)
        finally:
            clip_file.discard()

    def fail(self, clip_id: str, reason: str, changed: bool = False) -> None:
        """Record a clip as failed, when the next shard is closed; the next run tries it again.

        Existing features are kept unless the video has `changed`: it may only be temporarily unreadable, e.g. on a
        drive that is not mounted.
        """
        if clip_id in self._all.rows and not changed:
            return
        with self._disk():
            self._forget(clip_id)
        self._all.failed[clip_id] = self._own.failed[clip_id] = reason
        self._saved = False

    def _layout(self, frames: int, landmarks: int, axes: int) -> Layout:
        """Return the layout of a file of this store."""
        return Layout(self.dtype, self._out_shape, frames, landmarks, axes)

    def _points_of(self, clip_id: str, frames: int, landmarks: Tensor | None) -> tuple[int, int]:
        """Return the number of a clip's landmarks and of their axes, which must be those of earlier clips.

        Raises:
            UnfitFeatures: it differs, or the clip has no frame.
        """
        if not frames:
            raise UnfitFeatures(f"Clip {clip_id} has no frames.")
        if landmarks is None:
            return 0, 2
        found = (landmarks.shape[1], landmarks.shape[2]) if landmarks.ndim == 3 else (0, 0)
        points, axes = self._all.points if self._all.landmarks else found
        if tuple(landmarks.shape) != (frames, points, axes) or axes not in (2, 3):
            raise UnfitFeatures(
                f"Clip {clip_id}: landmarks have shape {tuple(landmarks.shape)}, not ({frames}, {points}, {axes or 2}) "
                "as in earlier clips. All clips of a store need the same landmarks: use one locator for all of them, "
                "or choose a new folder."
            )
        return points, axes

    def _keep(self, clip_file: ClipFile, partial: Path, row: Row) -> None:
        """Add a complete clip; called by its file."""
        name = f"pending/{self._prefix}{self._next_pending:08d}.safetensors"
        partial.replace(self.path / name)
        self._next_pending += 1
        self._forget(clip_file.clip_id)
        self._all.keep(clip_file.clip_id, name, row, clip_file.span)
        self._pending[name] = (clip_file.clip_id, row)
        self._drop(clip_file)
        if is_full([row for _, row in self._pending.values()], self.dtype, self._out_shape):
            self._seal()

    def _drop(self, clip_file: ClipFile) -> None:
        """Forget the file of a finished or discarded clip; called by the file."""
        if clip_file in self._open:
            self._open.remove(clip_file)

    @property
    def _prefix(self) -> str:
        return f"{self.process.rank:03d}-"

    def _prepare(self) -> None:
        """Create the store, or tidy up after earlier runs; no other process fills it meanwhile."""
        if (self.path / "store.json").exists():
            recorded = self._checked_header()
            if not (self.path / "index.json").exists():
                log.warning("%s has no index.json; it is made anew from the shards.", self.path)
                Index.rebuilt(self.path).write(self.path / "index.json")
            known = tuple(sorted({*recorded.trained_on, *self.extractor.trained_on}))
            people_known = recorded.people_known or self.extractor.people_known
            if (known, people_known) != (tuple(sorted(recorded.trained_on)), recorded.people_known):
                # The weights are the same, but more training subjects are known now.
                self.extractor.trained_on, self.extractor.people_known = known, people_known
                if (self.path / "extractor.safetensors").exists():
                    save_weights(self.extractor, self.path / "extractor.safetensors")
            self._save_missing_weights()
            header = self._header()
            # The pipeline is the same; the rest may be damaged.
            if header != replace(recorded, spec=header.spec):
                header.write(self.path)
            # With another number of processes, or other clips, a pending clip may belong to another process now.
            keep = self._prefix if self.process.count == 1 else "/"
            tidy(self.path, self.dtype, self._out_shape, keep)
            return
        for partial in self.path.glob(".*.partial"):
            partial.unlink()
        # store.json is written last: a folder that has it is a complete store.
        self._save_missing_weights()
        Index().write(self.path / "index.json")
        self._header().write(self.path)

    def _save_missing_weights(self) -> None:
        file = self.path / "extractor.safetensors"
        if not file.exists() and self.extractor.network.state_dict() and not self.extractor.is_published():
            save_weights(self.extractor, file)

    def _header(self) -> StoreHeader:
        people, known = tuple(self.extractor.trained_on), self.extractor.people_known
        return StoreHeader.of(self.spec, self.dtype, self.precision, self._out_shape, people, known)

    def _checked_header(self) -> StoreHeader:
        recorded = StoreHeader.read(self.path)
        check_same_pipeline(
            self.path,
            {**recorded.spec, "dtype": recorded.dtype, "precision": recorded.precision},
            {**self.spec, "dtype": self.dtype, "precision": self.precision},
        )
        return recorded

    def _load(self) -> None:
        self._checked_header()
        contents = Contents.read(self.path)
        self._all = contents.combined()
        part = self.path / part_name(self.process.rank)
        self._own = Index.read(part) if part.exists() else Index()
        # Pending clips of other processes are left to them.
        own_files = f"pending/{self._prefix}"
        self._pending = {name: clip for name, clip in contents.pending.items() if name.startswith(own_files)}
        numbers = [int(file.stem.removeprefix(self._prefix)) for file in self.path.glob(f"{own_files}*.safetensors")]
        self._next_pending = max(numbers, default=-1) + 1
        self._next_shard = Index.read(self.path / "index.json").next_shard() + self.process.rank
        if self._own.shards:
            self._next_shard = self._own.next_shard() - 1 + self.process.count
        # The last run was killed between the last clip of a shard and the shard.
        if is_full([row for _, row in self._pending.values()], self.dtype, self._out_shape):
            self._seal()

    def _forget(self, clip_id: str) -> None:
        name, _ = self._all.rows.get(clip_id, ("", None))
        if self._pending.pop(name, None) is not None:
            (self.path / name).unlink()
        self._all.forget(clip_id)
        self._own.forget(clip_id)

    def _seal(self) -> None:
        """Turn pending clips into a shard: write the shard, then the index, then delete the pending files.

        After a kill in between, the next run writes the shard again, or deletes pending files that are in the index."""
        clips = [(name, clip_id, row) for name, (clip_id, row) in self._pending.items()]
        for group in groups(clips, self.dtype, self._out_shape):
            known = dict(self._all.spans)
            close_shard(self.path, self._next_shard, group, self.dtype, self._out_shape, known, self._own, self._all)
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
                    f"No space left for {self.path} ({error.strerror}). Finished clips are kept. Free some space, or "
                    f"move the folder to a larger disk. {RERUN_HINT}"
                ) from error
            raise PainseqError(f"{self.path} cannot be written: {error}.") from error
