"""The files that hold frames: a pending file of one clip, and a shard of several concatenated clips.

Both are safetensors files with the tensors features (N, *F), times_s (N,), landmarks (N, L, 2) if any are known, and
present (N,); the points of a mesh, (N, L, 3), stand as fixed point. Their metadata "clips" holds the position of each
clip as JSON. The safetensors library reads them, but they are written here, since it needs the whole file in memory.
Features come first, so that they can be written before the length of the clip is known; `padding` then aligns the
eight-byte numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from painseq.errors import PainseqError
from painseq.faces.fixed_point import from_fixed_point, to_fixed_point
from painseq.features.spans import RecordedSpan
from painseq.files import parse_json

COPY_BYTES = 16 * 2**20
RERUN_HINT = "Rerun the same `painseq extract` command to complete the store."

Dtype = Literal["float16", "float32", "uint8"]
TORCH_DTYPES: dict[Dtype, torch.dtype] = {"float16": torch.float16, "float32": torch.float32, "uint8": torch.uint8}
_SAFETENSORS_NAMES: dict[Dtype, str] = {"float16": "F16", "float32": "F32", "uint8": "U8"}


class UnfitFeatures(PainseqError):
    """The features of one clip cannot be stored; this does not affect other clips."""


@dataclass(frozen=True)
class ClipFeatures:
    """The frames of one clip.

    Args:
        features: (T, *F) float16, float32, or uint8 (crops); zero in frames without a face.
        present: (T,) bool, false for a frame without a face.
        times_s: (T,) float64, seconds from the clip's start.
        landmarks: (T, L, 2 or 3) float32, x, y (and z) in pixels of the video's frame; NaN in frames without a face.
            None where unknown, or not asked for.
        backend: the library that decoded the video; "" if the clip comes from a store.
        switched_s: times in seconds from which on another person may be followed; not kept in stores.
    """

    features: Tensor
    present: Tensor
    times_s: Tensor
    landmarks: Tensor | None = None
    backend: str = ""
    switched_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        tensors = (self.features, self.present, self.times_s, self.landmarks)
        lengths = {len(tensor) for tensor in tensors if tensor is not None}
        if len(lengths) != 1:
            raise ValueError(f"The tensors of a clip have {lengths} frames; the numbers must be equal.")

    @property
    def are_crops(self) -> bool:
        """Whether `features` are crops that no network has seen."""
        return self.features.dtype == torch.uint8

    def __len__(self) -> int:
        return len(self.present)


@dataclass(frozen=True)
class Row:
    """Position of a clip in its file.

    Args:
        first: first frame.
        frames: number of frames.
        faceless: number of frames without a face.
        source: digest of the video and span.
        landmarks: landmarks per frame; 0 if unknown.
        axes: 2 for landmarks with x and y, 3 for those of a mesh, which are stored as fixed point.
    """

    first: int
    frames: int
    faceless: int
    source: str
    landmarks: int
    axes: int = 2

    def __post_init__(self) -> None:
        numbers = (self.first, self.frames, self.faceless, self.landmarks, self.axes)
        if not all(type(number) is int and number >= 0 for number in numbers) or type(self.source) is not str:
            raise ValueError(f"not the position of a clip: {self}")

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain data; two axes, which stores of earlier versions do not state, are left out."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("axes", 2)}


@dataclass(frozen=True)
class Shard:
    """A closed shard, as recorded in the index."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if type(self.bytes) is not int or self.bytes < 0 or type(self.sha256) is not str:
            raise ValueError(f"not the size and digest of a shard: {self}")


@dataclass(frozen=True)
class Layout:
    """The byte layout of a file of `frames` frames.

    Args:
        dtype: type of the features.
        out_shape: F, shape of one frame's features.
        frames: N, number of frames of all clips in the file.
        landmarks: L, landmarks per frame; 0 omits the tensor.
        axes: 2, or 3 for the points of a mesh.
    """

    dtype: Dtype
    out_shape: tuple[int, ...]
    frames: int
    landmarks: int
    axes: int = 2

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame's features."""
        return TORCH_DTYPES[self.dtype].itemsize * prod(self.out_shape)

    @property
    def padding_bytes(self) -> int:
        """Bytes of padding after the features, up to a multiple of eight."""
        return -self.frames * self.frame_bytes % 8

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor, in the order of the file."""
        point_bytes = 2 * torch.float32.itemsize
        sizes = {"features": self.frames * self.frame_bytes, "padding": self.padding_bytes, "times_s": 8 * self.frames}
        if self.landmarks and self.axes == 3:
            sizes["landmark_low"] = self.frames * 3 * torch.float32.itemsize
            sizes["landmark_step"] = self.frames * torch.float32.itemsize
            sizes["landmark_steps"] = self.frames * self.landmarks * 3 * torch.uint16.itemsize
        elif self.landmarks:
            sizes["landmarks"] = self.frames * self.landmarks * point_bytes
        return {**sizes, "present": self.frames}

    def start_of(self, tensor: str) -> int:
        """Return the offset of a tensor from the end of the header."""
        names = list(self.sizes)
        return sum(self.sizes[name] for name in names[: names.index(tensor)])

    def header(
        self, rows: Mapping[str, Row], size_bytes: int = 0, spans: Mapping[str, RecordedSpan] | None = None
    ) -> bytes:
        """Return the file's header, padded with spaces to at least `size_bytes`, and to a multiple of eight.

        `spans` are for pending files. Of clips in shards they are in the index, so that the shards do not depend on
        them.
        """
        metadata = {"clips": json.dumps({clip_id: row.to_dict() for clip_id, row in rows.items()})}
        if spans:
            metadata["spans"] = json.dumps({clip_id: asdict(span) for clip_id, span in spans.items()})
        text = json.dumps({"__metadata__": metadata, **self.entries}, separators=(",", ":")).encode()
        length = max(len(text), size_bytes - 8)
        length += -length % 8
        return struct.pack("<Q", length) + text.ljust(length)

    @property
    def entries(self) -> dict[str, dict[str, object]]:
        """Type, shape and place of each tensor, as in the file's header."""
        shapes = {
            "features": (_SAFETENSORS_NAMES[self.dtype], [self.frames, *self.out_shape]),
            "padding": ("U8", [self.padding_bytes]),
            "times_s": ("F64", [self.frames]),
            "landmarks": ("F32", [self.frames, self.landmarks, 2]),
            "landmark_low": ("F32", [self.frames, 3]),
            "landmark_step": ("F32", [self.frames]),
            "landmark_steps": ("U16", [self.frames, self.landmarks, 3]),
            "present": ("BOOL", [self.frames]),
        }
        entries: dict[str, dict[str, object]] = {}
        first = 0
        for name, size in self.sizes.items():
            kind, shape = shapes[name]
            entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [first, first + size]}
            first += size
        return entries


def to_dtype(features: Tensor, dtype: Dtype) -> Tensor:
    """Convert features to their type on disk: on the CPU, contiguous.

    Raises:
        UnfitFeatures: a value is not finite, or exceeds the range of float16.
    """
    features = features.detach().cpu()
    converted = features.to(TORCH_DTYPES[dtype]).contiguous()
    if converted.is_floating_point() and not bool(torch.isfinite(converted).all()):
        largest = float(features.abs().max())
        raise UnfitFeatures(
            f"a feature is not finite in {dtype} (largest magnitude: {largest:g})"
            + (". The maximum of float16 is 65504: extract with dtype float32" if dtype == "float16" else "")
        )
    return converted


def small_tensors(layout: Layout, present: Tensor, times_s: Tensor, landmarks: Tensor | None) -> bytes:
    """Return the bytes that follow the features of a clip."""
    parts = [b"\0" * layout.padding_bytes, times_s.cpu().to(torch.float64).numpy().tobytes()]
    if landmarks is not None and layout.landmarks:
        points = landmarks.cpu().to(torch.float32).numpy()
        if layout.axes == 3:
            steps, low, step = to_fixed_point(points)
            parts += [low.tobytes(), step.tobytes(), steps.tobytes()]
        else:
            parts.append(points.tobytes())
    parts.append(present.cpu().to(torch.bool).numpy().tobytes())
    return b"".join(parts)


def write_shard(
    path: Path, clips: Sequence[tuple[Path, str, Row]], dtype: Dtype, out_shape: tuple[int, ...]
) -> tuple[dict[str, Row], Shard]:
    """Copy pending files (file, clip id, row) into one shard, atomically.

    Returns:
        The position of each clip, and the shard's size and digest.

    Raises:
        OSError: unchanged from Python; no partial file remains.
        PainseqError: a pending file is truncated, or holds another clip.
    """
    rows, frames = {}, 0
    for pending, clip_id, row in clips:
        if rows_in(pending) != {clip_id: row}:
            raise PainseqError(f"{pending} does not hold clip {clip_id!r} as written. Delete it. {RERUN_HINT}")
        rows[clip_id] = replace(row, first=frames)
        frames += row.frames
    if len({(row.landmarks, row.axes) for row in rows.values() if row.landmarks}) > 1:
        raise ValueError("Clips with different landmarks cannot share a shard.")
    layout = Layout(dtype, out_shape, frames, *points_in(rows.values()))
    partial = path.with_name(f".{path.name}.partial")
    sha256, size = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            for block in _shard_blocks(layout, rows, clips):
                file.write(block)
                sha256.update(block)
                size += len(block)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, PainseqError):
        partial.unlink(missing_ok=True)
        raise
    return rows, Shard(size, sha256.hexdigest())


def _shard_blocks(layout: Layout, rows: Mapping[str, Row], clips: Iterable[tuple[Path, str, Row]]) -> Iterator[bytes]:
    yield layout.header(rows)
    for name in layout.sizes:
        if name == "padding":
            yield b"\0" * layout.padding_bytes
            continue
        for file, _, row in clips:
            clip_layout = Layout(layout.dtype, layout.out_shape, row.frames, row.landmarks, row.axes)
            if name in clip_layout.sizes:
                yield from _blocks_of(file, clip_layout, name)
            else:
                yield from _absent_blocks(name, replace(layout, frames=row.frames).sizes[name])


def _blocks_of(path: Path, layout: Layout, name: str) -> Iterator[bytes]:
    remaining = layout.sizes[name]
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + header_bytes + layout.start_of(name))
        while remaining:
            block = file.read(min(remaining, COPY_BYTES))
            if not block:
                raise PainseqError(f"{path} is damaged: it is truncated. Delete it. {RERUN_HINT}")
            remaining -= len(block)
            yield block


def _absent_blocks(name: str, size_bytes: int) -> Iterator[bytes]:
    """Yield the landmarks of a clip without any face: NaN, in whole numbers 0."""
    value = np.zeros(1, np.uint16) if name == "landmark_steps" else np.full(1, np.nan, np.float32)
    for first in range(0, size_bytes, COPY_BYTES):
        yield np.tile(value, min(COPY_BYTES, size_bytes - first) // value.itemsize).tobytes()


def points_in(rows: Iterable[Row]) -> tuple[int, int]:
    """Return the number of landmarks per frame, 0 if no clip has any, and of their axes."""
    return next(((row.landmarks, row.axes) for row in rows if row.landmarks), (0, 2))


def _header(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the entry of each tensor, and the metadata.

    Raises:
        OSError: unchanged from Python.
        struct.error, KeyError, TypeError, ValueError, AttributeError: it is damaged.
    """
    # Not with the library, which would map the whole file: memory may be short while shards are copied.
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        size_bytes = path.stat().st_size
        if 8 + header_bytes > size_bytes:
            raise ValueError("it ends within its header")
        header = parse_json(file.read(header_bytes))
    metadata = header.pop("__metadata__")
    if 8 + header_bytes + max(entry["data_offsets"][1] for entry in header.values()) != size_bytes:
        raise ValueError(f"its size of {size_bytes} bytes does not match its header")
    return header, metadata


def difference_in_layout(path: Path, dtype: Dtype, out_shape: tuple[int, ...]) -> str:
    """Describe how the tensors of a file differ from those of a store; empty if they do not.

    Args:
        path: the file.
        dtype: type of the store's features.
        out_shape: shape of one frame's features.

    Raises:
        OSError, PainseqError: see `rows_in`.
    """
    rows = rows_in(path)
    header, _ = _header(path)
    expected = Layout(dtype, out_shape, sum(row.frames for row in rows.values()), *points_in(rows.values())).entries
    for name, entry in expected.items():
        found = {key: header[name].get(key) for key in ("dtype", "shape")} if name in header else None
        wanted = {key: entry[key] for key in ("dtype", "shape")}
        if name != "padding" and found != wanted:
            return f"its tensor {name} is {_described(found)}, not {_described(wanted)}"
    return ""


def _described(entry: Mapping[str, object] | None) -> str:
    return "missing" if entry is None else f"{entry['dtype']} of shape {entry['shape']}"


def rows_in(path: Path) -> dict[str, Row]:
    """Read the table of clips from a file's header.

    Raises:
        OSError: unchanged from Python: the file does not exist, or the disk cannot be read.
        PainseqError: it is damaged.
    """
    return tables_in(path)[0]


def tables_in(path: Path) -> tuple[dict[str, Row], dict[str, RecordedSpan]]:
    """Read the clips and, of a pending file, their spans (empty if an earlier version wrote it) from a file's header.

    Raises:
        OSError, PainseqError: see `rows_in`.
    """
    try:
        header, metadata = _header(path)
        table, spans = parse_json(metadata["clips"]), parse_json(metadata.get("spans", "{}"))
        rows = {clip_id: Row(**row) for clip_id, row in table.items()}
        (frames,) = header["present"]["shape"]
        if any(row.first + row.frames > frames for row in rows.values()):
            raise ValueError(f"it has {frames} frames, fewer than its clips")
        return rows, {clip_id: RecordedSpan(**span) for clip_id, span in spans.items()}
    except OSError:
        raise
    except (struct.error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PainseqError(f"{path} is damaged: {error}. Delete it. {RERUN_HINT}") from error


def shard_of(path: Path) -> Shard:
    """Return the size and digest of a shard that is on disk.

    Raises:
        OSError: unchanged from Python.
    """
    with path.open("rb") as file:
        return Shard(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def read_frames(path: Path, clip_id: str, row: Row, first: int, stop: int, landmarks: bool = True) -> ClipFeatures:
    """Read frames `first` to `stop` (exclusive) of a file, which must lie within the clip.

    Args:
        landmarks: whether to read landmarks, which of a mesh are large.

    Raises:
        PainseqError: see `read_times`.
    """
    names = ["features", "present", "times_s"]
    if row.landmarks and landmarks:
        names += ["landmark_steps", "landmark_low", "landmark_step"] if row.axes == 3 else ["landmarks"]
    features, present, times_s, *points = _read(path, clip_id, row, slice(first, stop), names)
    if {len(tensor) for tensor in (features, present, times_s, *points)} != {max(0, stop - first)}:
        raise PainseqError(f"{path} is damaged: it has too few frames. Run `painseq store check`.")
    if len(points) == 3:
        points = [torch.from_numpy(from_fixed_point(*(tensor.numpy() for tensor in points)))]
    return ClipFeatures(features, present, times_s, points[0] if points else None)


def read_times(path: Path, clip_id: str, row: Row) -> Tensor:
    """Read the (T,) float64 times of a clip's frames, in seconds from its start, and nothing else.

    Raises:
        PainseqError: the file is missing or damaged, or does not hold the clip at `row`.
    """
    return _read(path, clip_id, row, slice(row.first, row.first + row.frames), ("times_s",))[0]


def _read(path: Path, clip_id: str, row: Row, rows: slice, names: Sequence[str]) -> list[Tensor]:
    try:
        with safe_open(path, "pt") as file:
            table = parse_json((file.metadata() or {})["clips"])
            if clip_id not in table or Row(**table[clip_id]) != row:
                raise PainseqError(
                    f"{path} does not hold clip {clip_id!r} where the index says. The store is damaged: delete this "
                    f"file. {RERUN_HINT}"
                )
            # A slice would keep the whole shard mapped.
            return [file.get_slice(name)[rows].clone() for name in names]
    except FileNotFoundError:
        raise PainseqError(
            f"{path} with clip {clip_id!r} is missing. If an extraction is running, it closed a shard since this store "
            f"was opened: open the store again. Otherwise the file was deleted: {RERUN_HINT}"
        ) from None
    except (SafetensorError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise PainseqError(
            f"{path} cannot be read ({error}). If an extraction is running, it closed a shard since this store was "
            "opened: open the store again. Otherwise the file is damaged: run `painseq store check`."
        ) from error
