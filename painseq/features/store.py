"""The feature store: a folder with the features of many clips, from one pipeline.

    store.json              the pipeline of the features: specification, fingerprint, type, precision and shape
    extractor.safetensors   the extractor's weights, unless they can be downloaded from a public address
    shard-00000.safetensors concatenated clips, up to 64 of them or 128 MiB: features, present, times_s and, if the
                            locator gives them, landmarks
    index.json              position of each clip; failed clips, with reasons; size and digest of each shard; the span
                            of the video that each clip comes from, its sampling and its data set
    index-000.json          the same, for the clips added by one process
    pending/                clips finished since the last shard, one file each
    .lock                   held by the processes that fill the store

Every file is written atomically, so a killed run loses at most the clips in progress. `StoreWriter` fills a store,
`FeatureStore` reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.extractors import Extractor, read_weights, rebuild
from painseq.extractors.weights import card_of, is_public, trained_on_of
from painseq.features.clip_file import (
    COPY_BYTES,
    RERUN_HINT,
    TORCH_DTYPES,
    ClipFeatures,
    Dtype,
    Layout,
    Row,
    UnfitFeatures,
    difference_in_layout,
    read_frames,
    read_times,
    rows_in,
    to_dtype,
)
from painseq.features.index import RESTORE_HINT, Contents, Precision, StoreHeader, check_same_pipeline, identity
from painseq.features.spans import RecordedSpan
from painseq.features.writer import ClipFile, StoreWriter
from painseq.spec import Spec, digest

__all__ = [
    "ClipFeatures",
    "ClipFile",
    "Dtype",
    "FeatureStore",
    "Precision",
    "Problem",
    "StoreWriter",
    "UnfitFeatures",
    "identity",
    "to_dtype",
]


HEADER_REPAIR = f"Rerun the same `painseq extract` command, which writes it again. If that is refused: {RESTORE_HINT}"
EXTRACTOR_REPAIR = (
    "Delete it, if it is there, and rerun the same `painseq extract` command, which writes it again. If that is "
    f"refused: {RESTORE_HINT}"
)


@dataclass(frozen=True)
class Problem:
    """A problem of a store.

    Args:
        file: name of the file in the store's folder.
        what: the problem.
        repair: how to repair it.
    """

    file: str
    what: str
    repair: str


class FeatureStore:
    """Read a store, also while it is being filled. Clips are read from disk on access.

    Args:
        path: the store's folder.

    Raises:
        PainseqError: no store there, or it is damaged.

    `landmarks` is the number of landmarks per frame, 0 if no clip has any. In a store with landmarks, a clip without
    them (no face in any frame) gives NaN. `precision` is that of the network; features of both precisions may be
    combined.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        header = StoreHeader.read(self.path)
        self.spec: Spec = header.spec
        self.fingerprint = header.fingerprint
        self.dtype: Dtype = header.dtype
        self.precision: Precision = header.precision
        self.out_shape: tuple[int, ...] = header.out_shape
        self.trained_on: tuple[str, ...] = header.trained_on
        self.people_known: bool = header.people_known
        self._contents = Contents.read(self.path)
        self._index = self._contents.combined()
        self.landmarks, self._axes = self._index.points

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """Ids of the clips with features, in the order in which they were finished."""
        return tuple(self._index.rows)

    @property
    def failed(self) -> dict[str, str]:
        """Failed clips: clip id -> reason."""
        return dict(self._index.failed)

    @property
    def spans(self) -> dict[str, RecordedSpan]:
        """Where the features of each clip come from: clip id -> span; clips of earlier versions are missing."""
        return dict(self._index.spans)

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of each closed shard, by name."""
        return {name: shard.sha256 for name, shard in self._index.shards.items()}

    @property
    def shard_bytes(self) -> int:
        """Total size of the closed shards, in bytes."""
        return sum(shard.bytes for shard in self._index.shards.values())

    @property
    def pending(self) -> tuple[str, ...]:
        """Ids of the clips that are not in a shard yet: a run is in progress or was interrupted."""
        return tuple(clip_id for clip_id, _ in self._contents.pending.values())

    def __len__(self) -> int:
        return len(self._index.rows)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._index.rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.rows)

    def __getitem__(self, clip_id: str) -> ClipFeatures:
        """Return all frames of a clip.

        Raises:
            PainseqError: the clip is not in the store, or the store is damaged.
        """
        return self.frames(clip_id)

    def frames(self, clip_id: str, first: int = 0, last: int | None = None, landmarks: bool = True) -> ClipFeatures:
        """Return the clip's frames from `first` to `last` (exclusive), with their landmarks; only these are read.

        Raises:
            PainseqError: the clip is not in the store, or the store is damaged.
        """
        name, row = self._row(clip_id)
        stop = row.frames if last is None else min(last, row.frames)
        clip = read_frames(self.path / name, clip_id, row, row.first + first, row.first + stop, landmarks)
        if clip.features.dtype != TORCH_DTYPES[self.dtype] or tuple(clip.features.shape[1:]) != self.out_shape:
            raise PainseqError(
                f"{self.path / name} holds {clip.features.dtype} of shape {tuple(clip.features.shape[1:])} per frame, "
                f"but store.json says {self.dtype} of shape {self.out_shape}. Run `painseq store check`."
            )
        if landmarks and self.landmarks and clip.landmarks is None:
            return replace(clip, landmarks=torch.full((len(clip), self.landmarks, self._axes), torch.nan))
        return clip

    def times_s(self, clip_id: str) -> Tensor:
        """Return the (T,) float64 times of the clip's frames, in seconds from its start, without reading features.

        Raises:
            PainseqError: the clip is not in the store, or the store is damaged.
        """
        name, row = self._row(clip_id)
        return read_times(self.path / name, clip_id, row)

    def num_frames(self, clip_id: str) -> int:
        """Return the number of sampled frames of the clip."""
        return self._row(clip_id)[1].frames

    def num_faceless(self, clip_id: str) -> int:
        """Return the number of frames of the clip without a face."""
        return self._row(clip_id)[1].faceless

    def _row(self, clip_id: str) -> tuple[str, Row]:
        try:
            return self._index.rows[clip_id]
        except KeyError:
            reason = self._index.failed.get(clip_id)
            why = f"its extraction failed: {reason}" if reason else "it was never extracted"
            raise PainseqError(f"{self.path} has no clip {clip_id!r}: {why}. {RERUN_HINT}") from None

    def check_same(self, spec: Mapping[str, object]) -> None:
        """Raise a PainseqError that lists the differences, unless `spec` describes the pipeline of this store."""
        check_same_pipeline(self.path, self.spec, spec)

    def extractor(self, trust: Sequence[str] = ()) -> Extractor:
        """Rebuild the extractor of the features, with its weights, in eval mode.

        Args:
            trust: packages besides painseq whose classes may be built.

        Raises:
            PainseqError: it cannot be built, or its weights are not those used for the features.
        """
        recorded = self.spec["extractor"]
        assert isinstance(recorded, dict)
        weights = self.path / "extractor.safetensors"
        tensors, metadata = read_weights(str(weights)) if weights.is_file() else (None, {})
        extractor = rebuild(
            recorded, tensors, self.trained_on, trust, card_of(metadata, str(weights)), self.people_known
        )
        if extractor.fingerprint() != recorded["fingerprint"]:
            raise PainseqError(
                f"{self.path}: the rebuilt extractor (fingerprint {extractor.fingerprint()}) differs from the one used "
                f"for the features ({recorded['fingerprint']}). {weights.name} was lost or replaced, or the installed "
                "version defines the network differently."
            )
        return extractor

    def check(self, on_progress: Callable[[int, int], None] | None = None, trust: Sequence[str] = ()) -> list[Problem]:
        """Read the whole store and verify it against its records; it must not be filled meanwhile.

        Args:
            on_progress: called after each file with the bytes read so far and the total bytes.
            trust: packages besides painseq whose classes may be built, for the extractor.

        Returns:
            The problems: files that are missing, changed or unreadable, features that are not finite, an extractor
            that differs from the recorded one.
        """
        clips: dict[str, list[str]] = {name: [] for name in self._index.shards}
        for clip_id, (name, _) in self._index.rows.items():
            clips.setdefault(name, []).append(clip_id)
        sizes = {name: file.stat().st_size for name in clips if (file := self.path / name).is_file()}
        problems: list[Problem] = []
        done = 0
        for name, clip_ids in clips.items():
            if name in sizes:
                problems += self._check_file(name, clip_ids)
            else:
                problems.append(Problem(name, f"is missing, with {len(clip_ids)} clips", RERUN_HINT))
            done += sizes.get(name, 0)
            if on_progress is not None:
                on_progress(done, sum(sizes.values()))
        problems += [
            Problem(name, f"cannot be read: {why}", f"Delete it. {RERUN_HINT}")
            for name, why in self._contents.damaged.items()
        ]
        return [*problems, *self._check_header(), *self._check_extractor(trust)]

    def _check_file(self, name: str, clip_ids: Sequence[str]) -> list[Problem]:
        repair = f"Delete it. {RERUN_HINT}"
        recorded = self._index.shards.get(name)
        if recorded is not None:
            size = (self.path / name).stat().st_size
            if size != recorded.bytes:
                return [Problem(name, f"has {size} bytes, but was written with {recorded.bytes}", repair)]
            with (self.path / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != recorded.sha256:
                    return [Problem(name, "has changed since it was written: its sha256 differs", repair)]
        elif not name.startswith("pending/"):
            return [Problem(name, "is not in the list of shards, so changes cannot be detected", repair)]
        try:
            table = rows_in(self.path / name)
            if what := difference_in_layout(self.path / name, self.dtype, self.out_shape):
                if recorded is not None:
                    # The shard is as it was written, so it is store.json that has changed.
                    return [Problem("store.json", f"does not match {name}: {what}", HEADER_REPAIR)]
                return [Problem(name, f"does not match store.json: {what}", repair)]
            wrong = [self._wrong_in(clip_id, table.get(clip_id)) for clip_id in clip_ids]
        except (PainseqError, OSError) as error:
            wrong = [str(error)]
        return [Problem(name, what, repair) for what in wrong if what]

    def _wrong_in(self, clip_id: str, found: Row | None) -> str:
        """Describe the problem of a clip, whose file records it as `found`; empty if there is none."""
        _, row = self._row(clip_id)
        if found != row:
            return f"does not hold clip {clip_id!r} where the index says"
        if row.landmarks and (row.landmarks, row.axes) != (self.landmarks, self._axes):
            return f"clip {clip_id!r} has {row.landmarks} landmarks per frame, others {self.landmarks}"
        step = max(1, COPY_BYTES // Layout(self.dtype, self.out_shape, 1, 0).frame_bytes)
        for first in range(0, row.frames, step):
            features = self.frames(clip_id, first, first + step).features
            if features.is_floating_point() and not bool(torch.isfinite(features).all()):
                return f"clip {clip_id!r} has features that are not finite, in or after frame {first}"
        return ""

    def _check_header(self) -> list[Problem]:
        problems = []
        if digest(identity(self.spec)) != self.fingerprint:
            problems.append(Problem("store.json", "its specification does not match its fingerprint", HEADER_REPAIR))
        weights = self.path / "extractor.safetensors"
        if weights.is_file():
            with suppress(PainseqError):  # Reported by `_check_extractor`.
                known = trained_on_of(read_weights(str(weights))[1], str(weights))
                if set(known) != set(self.trained_on):
                    what = "lists other subjects as the extractor's training subjects than extractor.safetensors"
                    problems.append(Problem("store.json", what, RESTORE_HINT))
        return problems

    def _check_extractor(self, trust: Sequence[str]) -> list[Problem]:
        name = "extractor.safetensors"
        recorded = self.spec["extractor"]
        init_args = recorded.get("init_args") if isinstance(recorded, dict) else None
        weights = init_args.get("weights") if isinstance(init_args, dict) else None
        try:
            if (self.path / name).is_file() or not (isinstance(weights, str) and is_public(weights)):
                self.extractor(trust)
        except PainseqError as error:
            return [Problem(name, str(error), EXTRACTOR_REPAIR)]
        return []
