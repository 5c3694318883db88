"""The feature store: one folder of features of many clips, made by one pipeline.

    store.json              what made the features: specification, fingerprint, type and shape
    extractor.safetensors   the extractor's weights, unless they can be fetched again from a public address
    shard-00000.safetensors clips one behind the other, up to 64 of them or 128 MiB: features, present, times_s and,
                            where the locator gives them, landmarks
    index.json              where each clip lies; which clips failed, and why
    pending/                clips finished since the last shard, one file each

Every file appears whole or not at all, so a killed run loses at most the clip in work.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from painseq.errors import PainseqError
from painseq.extractors import Extractor, read_weights, rebuild, save_weights
from painseq.extractors.extractor import NOT_IDENTITY
from painseq.extractors.weights import write_atomically, write_safetensors
from painseq.faces import FaceCrops
from painseq.spec import Spec, difference, digest

CLIPS_PER_SHARD = 64
SHARD_BYTES = 128 * 2**20
FORMAT = 1
_FIRST_FILES = {"pending", ".lock", "index.json", "extractor.safetensors"}
AGAIN = "Run `painseq extract` again with the same arguments: it completes the store."

Dtype = Literal["float16", "float32", "uint8"]
_TORCH: dict[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32, "uint8": torch.uint8}


@dataclass(frozen=True)
class ClipFeatures:
    """One clip's frames.

    Args:
        features: (T, *F) float16, float32, or uint8 (crops); zero in frames without a face.
        present: (T,) bool, false for a frame without a face.
        times_s: (T,) float64, seconds from the clip's start.
        landmarks: (T, L, 2) float32, x and y in pixels of the video's frame; NaN in frames without a face. None where
            they are not known.
    """

    features: Tensor
    present: Tensor
    times_s: Tensor
    landmarks: Tensor | None = None

    def __post_init__(self) -> None:
        tensors = (self.features, self.present, self.times_s, self.landmarks)
        lengths = {len(tensor) for tensor in tensors if tensor is not None}
        if len(lengths) != 1:
            raise ValueError(f"The tensors of a clip have {lengths} frames; they must have the same.")

    def __len__(self) -> int:
        return len(self.present)


@dataclass(frozen=True)
class _Row:
    """Where a clip lies: `frames` frames from `first` on, of `landmarks` points each (0: none are known). `source`
    digests what it was read from."""

    first: int
    frames: int
    faceless: int
    source: str
    landmarks: int = 0  # Absent in stores made before landmarks were kept.


@dataclass
class _Contents:
    """The clips of a store, finished shards and pending files together.

    Args:
        rows: clip id -> file, and where in it.
        failed: clip id -> reason.
        shards: closed so far; the number of the next one.
        pending: file -> clip id, in the order of the clips.
    """

    rows: dict[str, tuple[str, _Row]]
    failed: dict[str, str]
    shards: int
    pending: dict[str, str]

    @property
    def landmarks(self) -> int:
        return next((row.landmarks for _, row in self.rows.values() if row.landmarks), 0)


def identity(spec: Mapping[str, object]) -> Spec:
    """The part of a pipeline's specification that decides what the features are.

    Where weights came from and what trains is left out: the extractor's fingerprint stands for its weights. So is
    where a locator's files lie and which library decodes.
    """
    plain: Spec = json.loads(json.dumps(spec))
    extractor = plain.get("extractor")
    if isinstance(extractor, dict) and isinstance(extractor.get("init_args"), dict):
        extractor["init_args"] = {key: v for key, v in extractor["init_args"].items() if key not in NOT_IDENTITY}
    face = plain.get("face")
    if isinstance(face, dict) and "class_path" in face:
        plain["face"] = face["identity"] if "identity" in face else FaceCrops.from_spec(face).identity()
    return plain


class FeatureStore:
    """Reads a store; clips are read from disk when asked for. One that is still being filled can be read too.

    Args:
        path: the store's folder.

    Raises:
        PainseqError: no store there, or a damaged one.

    `landmarks` is the number of points of the face in each frame, 0 where no clip has any. In a store with landmarks, a
    clip without them reads as NaN: one without any face, and one extracted before landmarks were kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        head = _read_json(self.path / "store.json")
        if head.get("format") != FORMAT:
            raise PainseqError(f"{self.path}: a store of format {head.get('format')!r}; this painseq reads {FORMAT}.")
        try:
            self.spec: Spec = dict(head["spec"])
            self.fingerprint = str(head["fingerprint"])
            self.dtype: Dtype = head["dtype"]
            self.out_shape: tuple[int, ...] = tuple(head["out_shape"])
            self.trained_on: tuple[str, ...] = tuple(head["trained_on"])
        except (KeyError, TypeError, ValueError) as error:
            raise PainseqError(f"{self.path / 'store.json'} is damaged: {error!r}.") from error
        self._contents = _contents(self.path)
        self.landmarks = self._contents.landmarks

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """Clips with features, in the order in which they were finished."""
        return tuple(self._contents.rows)

    @property
    def failed(self) -> dict[str, str]:
        """Clips that could not be extracted, with the reason."""
        return dict(self._contents.failed)

    def __len__(self) -> int:
        return len(self._contents.rows)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._contents.rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._contents.rows)

    def __getitem__(self, clip_id: str) -> ClipFeatures:
        """All frames of a clip.

        Raises:
            PainseqError: the clip is not in the store, or the store is damaged.
        """
        return self.frames(clip_id)

    def frames(self, clip_id: str, first: int = 0, last: int | None = None) -> ClipFeatures:
        """The clip's frames from `first` up to, not including, `last`; only these are read.

        Raises:
            PainseqError: the clip is not in the store, or the store is damaged.
        """
        name, row = self._row(clip_id)
        stop = row.frames if last is None else min(last, row.frames)
        clip = _read_frames(self.path / name, clip_id, row, row.first + first, row.first + stop)
        return replace(clip, landmarks=_landmarks_of(clip, self.landmarks)) if self.landmarks else clip

    def num_frames(self, clip_id: str) -> int:
        """Sampled frames of the clip."""
        return self._row(clip_id)[1].frames

    def num_faceless(self, clip_id: str) -> int:
        """Frames of the clip without a face."""
        return self._row(clip_id)[1].faceless

    def _row(self, clip_id: str) -> tuple[str, _Row]:
        try:
            return self._contents.rows[clip_id]
        except KeyError:
            reason = self._contents.failed.get(clip_id)
            why = f"its extraction failed: {reason}" if reason else "it was never extracted"
            raise PainseqError(f"{self.path} has no clip {clip_id!r}: {why}. {AGAIN}") from None

    def check_same(self, spec: Mapping[str, object]) -> None:
        """Raise a PainseqError naming the differences unless `spec` describes the pipeline of this store."""
        _check_same(self.path, self.spec, spec)

    def extractor(self, trust: Sequence[str] = ()) -> Extractor:
        """The extractor that made the features, with its weights, in eval mode.

        Args:
            trust: packages besides painseq whose classes may be built.

        Raises:
            PainseqError: it cannot be built, or its weights are not those that made the features.
        """
        recorded = self.spec["extractor"]
        assert isinstance(recorded, dict)
        weights = self.path / "extractor.safetensors"
        tensors = read_weights(str(weights))[0] if weights.is_file() else None
        extractor = rebuild(recorded, tensors, self.trained_on, trust)
        if extractor.fingerprint() != recorded["fingerprint"]:
            raise PainseqError(
                f"{self.path}: the extractor that can be rebuilt (fingerprint {extractor.fingerprint()}) is not the "
                f"one that made the features ({recorded['fingerprint']}). {weights.name} was lost or exchanged, or the "
                "network is defined differently in the version installed."
            )
        return extractor


class StoreWriter:
    """Fills a store; a context manager. Leaving it without an error closes the last shard.

    Args:
        path: the store's folder; made if it is not there, continued if it is a store of the same pipeline.
        spec: {"extractor": {..., "fingerprint"}, "face": ..., "sampling": {"fps": ...}}.
        dtype: of the features on disk.
        extractor: whose weights go into the store unless they are published.

    Raises:
        PainseqError: on entering: the store there is of another pipeline or type, or another process fills it. From
            every method: the disk is full (what is finished stays).
    """

    def __init__(self, path: Path, spec: Mapping[str, object], dtype: Dtype, extractor: Extractor) -> None:
        if dtype not in get_args(Dtype):
            raise PainseqError(f"Features of type {dtype!r}; a store keeps {', '.join(get_args(Dtype))}.")
        self.path = Path(path)
        self.spec: Spec = json.loads(json.dumps(spec))
        self.dtype: Dtype = dtype
        self.extractor = extractor
        self._lock: IO[bytes] | None = None
        self._contents = _Contents({}, {}, 0, {})

    def __enter__(self) -> Self:
        with self._disk():
            (self.path / "pending").mkdir(parents=True, exist_ok=True)
            names = {file.name for file in self.path.iterdir() if not file.name.endswith(".partial")}
        if "store.json" not in names and names - _FIRST_FILES:
            raise PainseqError(
                f"{self.path} holds other files ({min(names - _FIRST_FILES)}) and is no store. Give a new folder."
            )
        self._lock = _locked(self.path)
        try:
            with self._disk():
                self._open()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _open(self) -> None:
        for left_over in (*self.path.glob(".*.partial"), *self.path.glob("pending/.*.partial")):
            left_over.unlink()
        if (self.path / "store.json").exists():
            there = FeatureStore(self.path)
            _check_same(self.path, {**there.spec, "dtype": there.dtype}, {**self.spec, "dtype": self.dtype})
            self._contents = _contents(self.path)
            known = sorted({*there.trained_on, *self.extractor.trained_on})
            if known != sorted(there.trained_on):
                # The same weights, of which more is known now.
                self._write_head(known)
        else:
            # store.json comes last: a folder with it has everything that a store needs.
            if self.extractor.network.state_dict() and not self.extractor.is_published():
                save_weights(self.extractor, self.path / "extractor.safetensors")
            self._write_index()
            self._write_head(list(self.extractor.trained_on))
        live = set(self._contents.pending)
        for file in self.path.glob("pending/*.safetensors"):
            if f"pending/{file.name}" not in live:
                file.unlink()
        # Killed between the last clip of a shard and the shard.
        if self._full():
            self._seal()

    def _write_head(self, trained_on: list[str]) -> None:
        head = {
            "format": FORMAT,
            "spec": self.spec,
            "fingerprint": digest(identity(self.spec)),
            "dtype": self.dtype,
            "out_shape": list(self.extractor.out_shape),
            "trained_on": trained_on,
        }
        _write_json(self.path / "store.json", head)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        try:
            if kind is None:
                with self._disk():
                    self._seal()
        finally:
            self._lock.close()

    def state(self, clip_id: str, source: str) -> Literal["new", "done", "changed"]:
        """Whether the store has the clip, from the same source (a digest of video and span)."""
        if clip_id not in self._contents.rows:
            return "new"
        return "done" if self._contents.rows[clip_id][1].source == source else "changed"

    def counts(self, clip_id: str) -> tuple[int, int]:
        """Frames, and frames without a face, of a clip in the store."""
        row = self._contents.rows[clip_id][1]
        return row.frames, row.faceless

    def add(self, clip_id: str, clip: ClipFeatures, source: str) -> None:
        """Keep a finished clip: it is on disk when this returns. It replaces an older one of the same id.

        Raises:
            PainseqError: as `fitting`.
        """
        clip = self.fitting(clip_id, clip)
        points = 0 if clip.landmarks is None else clip.landmarks.shape[1]
        row = _Row(0, len(clip), int((~clip.present).sum()), source, points)
        last = max(self._contents.pending, default=None)
        number = 0 if last is None else int(Path(last).stem) + 1
        name = f"pending/{number:08d}.safetensors"
        with self._disk():
            _write_frames(self.path / name, {clip_id: row}, clip)
            self._forget(clip_id)
            self._contents.rows[clip_id] = (name, row)
            self._contents.pending[name] = clip_id
            if self._full():
                self._seal()

    def fitting(self, clip_id: str, clip: ClipFeatures) -> ClipFeatures:
        """The clip as this store keeps it, which `add` sees to by itself.

        Raises:
            PainseqError: no frame, features of another shape than the store's or with a value that is not finite, or
                another number of landmarks than the other clips have.
        """
        clip = to_dtype(clip, self.dtype)
        if not len(clip) or tuple(clip.features.shape[1:]) != tuple(self.extractor.out_shape):
            raise PainseqError(
                f"Clip {clip_id}: features of shape {tuple(clip.features.shape)}; this store keeps "
                f"(T, {', '.join(map(str, self.extractor.out_shape))}), T above 0."
            )
        if clip.landmarks is not None:
            points = self._contents.landmarks or clip.landmarks.shape[1]
            if tuple(clip.landmarks.shape) != (len(clip), points, 2):
                raise PainseqError(
                    f"Clip {clip_id}: landmarks of shape {tuple(clip.landmarks.shape)}, not ({len(clip)}, {points}, 2) "
                    "as the clips before it. A store keeps the same points for every clip: find the faces of all of "
                    "them in one way, or give a new folder."
                )
        return clip

    def fail(self, clip_id: str, reason: str, changed: bool = False) -> None:
        """Count a clip as failed; kept when the next shard is closed, and tried again in the next run.

        Features from before stay, since a video that cannot be read today (a drive that is not mounted) says nothing
        against them; unless it has `changed`.
        """
        if clip_id in self._contents.rows and not changed:
            return
        with self._disk():
            self._forget(clip_id)
        self._contents.failed[clip_id] = reason

    def _forget(self, clip_id: str) -> None:
        name, _ = self._contents.rows.pop(clip_id, ("", None))
        if self._contents.pending.pop(name, None) is not None:
            (self.path / name).unlink()
        self._contents.failed.pop(clip_id, None)

    def _full(self) -> bool:
        pending = [self._contents.rows[clip_id][1] for clip_id in self._contents.pending.values()]
        feature_bytes = _TORCH[self.dtype].itemsize * torch.Size(self.extractor.out_shape).numel()
        point_bytes = 2 * torch.float32.itemsize
        size = sum(row.frames * (feature_bytes + row.landmarks * point_bytes) for row in pending)
        return len(pending) >= CLIPS_PER_SHARD or size >= SHARD_BYTES

    def _seal(self) -> None:
        """Pending clips become a shard: first the shard, then the index that names it, then the pending files go.
        Killed in between, the next run writes the same shard again, or removes what the index has already."""
        clips, rows, first = [], {}, 0
        for name, clip_id in self._contents.pending.items():
            row = self._contents.rows[clip_id][1]
            clips.append(_read_frames(self.path / name, clip_id, row, 0, row.frames))
            rows[clip_id] = replace(row, first=first)
            first += row.frames
        if clips:
            shard = f"shard-{self._contents.shards:05d}.safetensors"
            points = max(row.landmarks for row in rows.values())
            together = ClipFeatures(
                torch.cat([clip.features for clip in clips]),
                torch.cat([clip.present for clip in clips]),
                torch.cat([clip.times_s for clip in clips]),
                torch.cat([_landmarks_of(clip, points) for clip in clips]) if points else None,
            )
            _write_frames(self.path / shard, rows, together)
            self._contents.rows |= {clip_id: (shard, row) for clip_id, row in rows.items()}
            self._contents.shards += 1
        self._write_index()
        for name in self._contents.pending:
            (self.path / name).unlink()
        self._contents.pending = {}

    def _write_index(self) -> None:
        clips = {id_: {"shard": name, **asdict(row)} for id_, (name, row) in self._contents.rows.items()}
        content = {"clips": clips, "failed": self._contents.failed, "shards": self._contents.shards}
        _write_json(self.path / "index.json", content)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise PainseqError(
                    f"No room left for {self.path} ({error.strerror}). The {len(self._contents.rows)} clips done stay. "
                    f"Make room, or move the folder to a larger disk. {AGAIN}"
                ) from error
            raise PainseqError(f"{self.path} cannot be written: {error}.") from error


def to_dtype(clip: ClipFeatures, dtype: Dtype) -> ClipFeatures:
    """The clip as it is kept on disk, on the CPU.

    Raises:
        PainseqError: a value that is not a number, or beyond float16.
    """
    features = clip.features.detach().cpu()
    converted = features.to(_TORCH[dtype])
    if converted.is_floating_point() and not bool(torch.isfinite(converted).all()):
        largest = float(features.abs().max())
        raise PainseqError(
            f"a feature is not finite in {dtype} (largest magnitude: {largest:g})"
            + (". float16 ends at 65504: extract with dtype float32" if dtype == "float16" else "")
        )
    landmarks = None if clip.landmarks is None else clip.landmarks.cpu().to(torch.float32)
    return ClipFeatures(converted, clip.present.cpu(), clip.times_s.cpu().to(torch.float64), landmarks)


def _landmarks_of(clip: ClipFeatures, points: int) -> Tensor:
    return clip.landmarks if clip.landmarks is not None else torch.full((len(clip), points, 2), torch.nan)


def _check_same(path: Path, there: Mapping[str, object], asked: Mapping[str, object]) -> None:
    lines = difference(identity(there), identity(asked))
    if lines:
        raise PainseqError(
            f"{path} holds features of another pipeline, and the two never mix. The store has\n  "
            + "\n  ".join(lines)
            + "\nwhere the second value is the one asked for. Give another folder, or the settings of the store."
        )


def _contents(path: Path) -> _Contents:
    # Pending files first: one that a running extraction takes away meanwhile is then in the index, read later.
    waiting: list[tuple[str, dict[str, _Row]]] = []
    for file in sorted(path.glob("pending/*.safetensors")):
        with suppress(FileNotFoundError):
            waiting.append((f"pending/{file.name}", _rows_in(file)))
    index = _read_json(path / "index.json")
    rows: dict[str, tuple[str, _Row]] = {}
    try:
        for clip_id, entry in index["clips"].items():
            rows[clip_id] = _entry(entry)
        failed, shards = {str(key): str(value) for key, value in index["failed"].items()}, int(index["shards"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PainseqError(f"{path / 'index.json'} is damaged: {error!r}.") from error
    pending: dict[str, str] = {}
    for name, table in waiting:
        for clip_id, row in table.items():
            if clip_id in rows and (rows[clip_id][1].source, rows[clip_id][1].frames) == (row.source, row.frames):
                continue  # The run was killed between writing the index and removing this file.
            older, _ = rows.pop(clip_id, ("", None))
            pending.pop(older, None)
            rows[clip_id] = (name, row)
            failed.pop(clip_id, None)
            pending[name] = clip_id
    return _Contents(rows, failed, shards, pending)


def _entry(entry: Mapping[str, object]) -> tuple[str, _Row]:
    values = dict(entry)
    shard = str(values.pop("shard"))
    if Path(shard).name != shard:
        raise ValueError(f"shard {shard!r} lies outside the store")
    return shard, _Row(**values)  # type: ignore[arg-type]


def _write_frames(path: Path, rows: Mapping[str, _Row], clip: ClipFeatures) -> None:
    tensors = {"features": clip.features, "present": clip.present, "times_s": clip.times_s}
    if clip.landmarks is not None:
        tensors["landmarks"] = clip.landmarks
    # One metadata key only: safetensors writes several in no fixed order, and equal shards shall be equal bytes.
    write_safetensors(path, tensors, {"clips": json.dumps({clip_id: asdict(row) for clip_id, row in rows.items()})})


def _rows_in(path: Path) -> dict[str, _Row]:
    try:
        with safe_open(path, "pt") as file:
            table = json.loads((file.metadata() or {})["clips"])
        return {clip_id: _Row(**row) for clip_id, row in table.items()}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise PainseqError(f"{path} is damaged: {error}. Delete it. {AGAIN}") from error


def _read_frames(path: Path, clip_id: str, row: _Row, first: int, stop: int) -> ClipFeatures:
    try:
        with safe_open(path, "pt") as file:
            table = json.loads((file.metadata() or {})["clips"])
            if clip_id not in table or _Row(**table[clip_id]) != row:
                raise PainseqError(f"{path} does not hold clip {clip_id!r} where the index says. The store is damaged.")
            # A slice keeps the whole shard mapped; a copy holds its own frames alone.
            names = ("features", "present", "times_s", *(["landmarks"] if row.landmarks else []))
            return ClipFeatures(*(file.get_slice(name)[first:stop].clone() for name in names))
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise PainseqError(
            f"{path} cannot be read ({error}): it is damaged, or a run that is still writing closed a shard since this "
            "store was opened; then open it again."
        ) from error


def _locked(path: Path) -> IO[bytes]:
    """Hold the store for this process; the system lets go of it whichever way the process ends."""
    import fcntl  # POSIX only, and reading needs none of it.

    lock = (path / ".lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise PainseqError(f"Another process is filling {path}. Wait until it ends, or give another folder.") from error
    return lock


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PainseqError(
            f"{path.parent} is no feature store: it has no {path.name}. `painseq extract` makes one."
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PainseqError(f"{path} is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise PainseqError(f"{path} is damaged: it is not a JSON object.")
    return content


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
