"""The files that hold frames: a pending file of one clip, a shard of several, one behind the other.

Both are safetensors files with the tensors features (N, *F), times_s (N,), landmarks (N, L, 2) if any are known, and
present (N,); their metadata "clips" says in JSON where each clip lies. They are read by the safetensors library and
written here, since the library wants all of a file in memory. Features come first, so that they can be written while
the length of the clip is not known; `padding` then puts the numbers of eight bytes where they can be mapped.
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
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from painseq.errors import PainseqError

COPY_BYTES = 16 * 2**20
AGAIN = "Run `painseq extract` again with the same arguments: it completes the store."

Dtype = Literal["float16", "float32", "uint8"]
TORCH_DTYPES: dict[Dtype, torch.dtype] = {"float16": torch.float16, "float32": torch.float32, "uint8": torch.uint8}
_SAFETENSORS_NAMES: dict[Dtype, str] = {"float16": "F16", "float32": "F32", "uint8": "U8"}


class UnfitFeatures(PainseqError):
    """The features of one clip cannot be kept; others may."""


@dataclass(frozen=True)
class ClipFeatures:
    """One clip's frames.

    Args:
        features: (T, *F) float16, float32, or uint8 (crops); zero in frames without a face.
        present: (T,) bool, false for a frame without a face.
        times_s: (T,) float64, seconds from the clip's start.
        landmarks: (T, L, 2) float32, x and y in pixels of the video's frame; NaN in frames without a face. None where
            they are not known.
        backend: which library decoded the video; "" where the clip comes from a store.
    """

    features: Tensor
    present: Tensor
    times_s: Tensor
    landmarks: Tensor | None = None
    backend: str = ""

    def __post_init__(self) -> None:
        tensors = (self.features, self.present, self.times_s, self.landmarks)
        lengths = {len(tensor) for tensor in tensors if tensor is not None}
        if len(lengths) != 1:
            raise ValueError(f"The tensors of a clip have {lengths} frames; they must have the same.")

    @property
    def are_crops(self) -> bool:
        """Whether `features` are crops that no network has seen."""
        return self.features.dtype == torch.uint8

    def __len__(self) -> int:
        return len(self.present)


@dataclass(frozen=True)
class Row:
    """Where a clip lies in its file: `frames` frames from `first` on, of `landmarks` points each (0: none are known).
    `source` digests what it was read from."""

    first: int
    frames: int
    faceless: int
    source: str
    landmarks: int

    def __post_init__(self) -> None:
        numbers = (self.first, self.frames, self.faceless, self.landmarks)
        if not all(type(number) is int and number >= 0 for number in numbers) or type(self.source) is not str:
            raise ValueError(f"no place of a clip: {self}")


@dataclass(frozen=True)
class Shard:
    """A closed shard, as the index records it."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Layout:
    """The bytes of a file of `frames` frames.

    Args:
        dtype: of the features.
        out_shape: F, the features of one frame.
        frames: N, of all clips in the file.
        landmarks: L, points a frame; 0 leaves the tensor out.
    """

    dtype: Dtype
    out_shape: tuple[int, ...]
    frames: int
    landmarks: int

    @property
    def frame_bytes(self) -> int:
        """Features of one frame."""
        return TORCH_DTYPES[self.dtype].itemsize * prod(self.out_shape)

    @property
    def padding_bytes(self) -> int:
        """Behind the features, up to a multiple of eight."""
        return -self.frames * self.frame_bytes % 8

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor, in the order of the file."""
        point_bytes = 2 * torch.float32.itemsize
        sizes = {"features": self.frames * self.frame_bytes, "padding": self.padding_bytes, "times_s": 8 * self.frames}
        if self.landmarks:
            sizes["landmarks"] = self.frames * self.landmarks * point_bytes
        return {**sizes, "present": self.frames}

    def start_of(self, tensor: str) -> int:
        """The tensor's first byte, counted from the end of the header."""
        names = list(self.sizes)
        return sum(self.sizes[name] for name in names[: names.index(tensor)])

    def header(self, rows: Mapping[str, Row], size_bytes: int = 0) -> bytes:
        """The file's beginning, filled up with spaces to at least `size_bytes`, and to a multiple of eight."""
        shapes = {
            "features": (_SAFETENSORS_NAMES[self.dtype], [self.frames, *self.out_shape]),
            "padding": ("U8", [self.padding_bytes]),
            "times_s": ("F64", [self.frames]),
            "landmarks": ("F32", [self.frames, self.landmarks, 2]),
            "present": ("BOOL", [self.frames]),
        }
        entries: dict[str, object] = {
            "__metadata__": {"clips": json.dumps({clip_id: asdict(row) for clip_id, row in rows.items()})}
        }
        first = 0
        for name, size in self.sizes.items():
            kind, shape = shapes[name]
            entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [first, first + size]}
            first += size
        text = json.dumps(entries, separators=(",", ":")).encode()
        length = max(len(text), size_bytes - 8)
        length += -length % 8
        return struct.pack("<Q", length) + text.ljust(length)


def to_dtype(features: Tensor, dtype: Dtype) -> Tensor:
    """Features as they are kept on disk: on the CPU, one frame behind the other.

    Raises:
        UnfitFeatures: a value that is not a number, or beyond float16.
    """
    features = features.detach().cpu()
    converted = features.to(TORCH_DTYPES[dtype]).contiguous()
    if converted.is_floating_point() and not bool(torch.isfinite(converted).all()):
        largest = float(features.abs().max())
        raise UnfitFeatures(
            f"a feature is not finite in {dtype} (largest magnitude: {largest:g})"
            + (". float16 ends at 65504: extract with dtype float32" if dtype == "float16" else "")
        )
    return converted


def small_tensors(layout: Layout, present: Tensor, times_s: Tensor, landmarks: Tensor | None) -> bytes:
    """What stands behind the features of a clip."""
    parts = [b"\0" * layout.padding_bytes, times_s.cpu().to(torch.float64).numpy().tobytes()]
    if landmarks is not None and layout.landmarks:
        parts.append(landmarks.cpu().to(torch.float32).numpy().tobytes())
    parts.append(present.cpu().to(torch.bool).numpy().tobytes())
    return b"".join(parts)


def write_shard(
    path: Path, clips: Sequence[tuple[Path, str, Row]], dtype: Dtype, out_shape: tuple[int, ...]
) -> tuple[dict[str, Row], Shard]:
    """Copy pending files (file, clip id, row) into one shard, which appears whole or not at all.

    Returns:
        Where each clip lies in it, and its digest.

    Raises:
        OSError: as Python's own; nothing is left behind then.
        PainseqError: a pending file is shorter than it says, or holds another clip.
    """
    rows, frames = {}, 0
    for pending, clip_id, row in clips:
        if rows_in(pending) != {clip_id: row}:
            raise PainseqError(f"{pending} does not hold clip {clip_id!r} as it was written. Delete it. {AGAIN}")
        rows[clip_id] = replace(row, first=frames)
        frames += row.frames
    if len({row.landmarks for row in rows.values()} - {0}) > 1:
        raise ValueError("Clips with different numbers of landmarks do not go into one shard.")
    layout = Layout(dtype, out_shape, frames, max(row.landmarks for row in rows.values()))
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
            own = Layout(layout.dtype, layout.out_shape, row.frames, row.landmarks)
            if name in own.sizes:
                yield from _blocks_of(file, own, name)
            else:
                yield from _nan_blocks(row.frames * layout.landmarks * 2)


def _blocks_of(path: Path, layout: Layout, name: str) -> Iterator[bytes]:
    left = layout.sizes[name]
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + header_bytes + layout.start_of(name))
        while left:
            block = file.read(min(left, COPY_BYTES))
            if not block:
                raise PainseqError(f"{path} is damaged: it ends too early. Delete it. {AGAIN}")
            left -= len(block)
            yield block


def _nan_blocks(count: int) -> Iterator[bytes]:
    block_values = COPY_BYTES // 4
    for first in range(0, count, block_values):
        yield np.full(min(block_values, count - first), np.nan, np.float32).tobytes()


def rows_in(path: Path) -> dict[str, Row]:
    """The clips that a file says it holds.

    Raises:
        OSError: as Python's own: it is not there, or the disk cannot be read.
        PainseqError: it is damaged.
    """
    try:
        # Not through the library, which would map the whole file: shards are copied where memory is short.
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            size_bytes = path.stat().st_size
            if 8 + header_bytes > size_bytes:
                raise ValueError("it ends within its header")
            header = json.loads(file.read(header_bytes))
        table = json.loads(header.pop("__metadata__")["clips"])
        if 8 + header_bytes + max(entry["data_offsets"][1] for entry in header.values()) != size_bytes:
            raise ValueError(f"{size_bytes} bytes are not the number that its header tells")
        return {clip_id: Row(**row) for clip_id, row in table.items()}
    except OSError:
        raise
    except (struct.error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PainseqError(f"{path} is damaged: {error}. Delete it. {AGAIN}") from error


def read_frames(path: Path, clip_id: str, row: Row, first: int, stop: int) -> ClipFeatures:
    """Frames `first` to `stop` of a file, which lie within the clip.

    Raises:
        PainseqError: see `read_times`.
    """
    names = ("features", "present", "times_s", *(["landmarks"] if row.landmarks else []))
    features, present, times_s, *landmarks = _read(path, clip_id, row, slice(first, stop), names)
    return ClipFeatures(features, present, times_s, landmarks[0] if landmarks else None)


def read_times(path: Path, clip_id: str, row: Row) -> Tensor:
    """(T,) float64 moments of the clip's frames, seconds from its start; nothing else is read.

    Raises:
        PainseqError: the file is missing or damaged, or does not hold the clip where `row` says.
    """
    return _read(path, clip_id, row, slice(row.first, row.first + row.frames), ("times_s",))[0]


def _read(path: Path, clip_id: str, row: Row, rows: slice, names: Sequence[str]) -> list[Tensor]:
    try:
        with safe_open(path, "pt") as file:
            table = json.loads((file.metadata() or {})["clips"])
            if clip_id not in table or Row(**table[clip_id]) != row:
                raise PainseqError(
                    f"{path} does not hold clip {clip_id!r} where the index says. The store is damaged: delete this "
                    f"file. {AGAIN}"
                )
            # A slice keeps the whole shard mapped; a copy holds its own frames alone.
            return [file.get_slice(name)[rows].clone() for name in names]
    except FileNotFoundError:
        raise PainseqError(
            f"{path} is missing, and with it clip {clip_id!r}: it was deleted, or a run that is still writing closed a "
            f"shard since this store was opened; then open it again. Otherwise: {AGAIN}"
        ) from None
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise PainseqError(
            f"{path} cannot be read ({error}): it is damaged, and `painseq store check` looks for more; or a run that "
            "is still writing closed a shard since this store was opened; then open it again."
        ) from error
