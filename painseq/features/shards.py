"""Combine pending clips into shards, and tidy up after interrupted runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from painseq.features.clip_file import Dtype, Layout, Row, write_shard
from painseq.features.index import Contents, Index, shard_name
from painseq.features.spans import RecordedSpan

CLIPS_PER_SHARD = 64
SHARD_BYTES = 128 * 2**20
log = logging.getLogger("painseq")

PendingClip = tuple[str, str, Row]
"""File in the store's folder, clip id, and position in the file."""


def is_full(rows: Sequence[Row], dtype: Dtype, out_shape: tuple[int, ...]) -> bool:
    """Whether these clips fill a shard."""
    size_bytes = sum(sum(Layout(dtype, out_shape, row.frames, row.landmarks, row.axes).sizes.values()) for row in rows)
    return len(rows) >= CLIPS_PER_SHARD or size_bytes >= SHARD_BYTES


def close_shard(
    path: Path,
    number: int,
    clips: Sequence[PendingClip],
    dtype: Dtype,
    out_shape: tuple[int, ...],
    spans: Mapping[str, RecordedSpan],
    *indexes: Index,
) -> None:
    """Copy pending clips into a shard and add it to `indexes`, with the clips' `spans`, without writing these.

    Raises:
        OSError: unchanged from Python.
    """
    name = shard_name(number)
    files = [(path / file, clip_id, row) for file, clip_id, row in clips]
    rows, shard = write_shard(path / name, files, dtype, out_shape)
    for index in indexes:
        index.shards[name] = shard
        for clip_id, row in rows.items():
            index.keep(clip_id, name, row, spans.get(clip_id))


def tidy(path: Path, dtype: Dtype, out_shape: tuple[int, ...], keep: str = "/") -> None:
    """Merge the files that processes of earlier runs have left; call it only while no process fills the store.

    Args:
        path: folder of the store.
        dtype: type of the features.
        out_shape: shape of one frame's features.
        keep: prefix of the names of pending files to keep as they are.

    Raises:
        OSError: unchanged from Python. Nothing is lost, and the next call continues.
    """
    for partial in (*path.glob(".*.partial"), *path.glob("pending/.*.partial")):
        # Processes write these after they have released the store.
        if not partial.name.startswith((".run", ".manifest")):
            partial.unlink(missing_ok=True)
    contents = Contents.read(path)
    index = contents.index
    _drop_lost_shards(path, index)
    for name, reason in contents.damaged.items():
        log.warning("%s is unreadable (%s); its clip counts as not extracted.", path / name, reason)
    unfinished = [(name, *clip) for name, clip in contents.pending.items() if not name.startswith(f"pending/{keep}")]
    for group in groups(unfinished, dtype, out_shape):
        close_shard(path, index.next_shard(), group, dtype, out_shape, contents.pending_spans, index)
    # Write the index before deleting the files that it replaces.
    if index != Index.read(path / "index.json"):
        index.write(path / "index.json")
    kept = contents.pending.keys() - {name for name, _, _ in unfinished}
    for file in (
        *path.glob("index-*.json"),
        *(file for file in path.glob("pending/*.safetensors") if f"pending/{file.name}" not in kept),
        *(file for file in path.glob("shard-*.safetensors") if file.name not in index.shards),
    ):
        file.unlink()


def _drop_lost_shards(path: Path, index: Index) -> None:
    """Forget shards without a file, and clips of shards that are not in the list of shards."""
    named = {*index.shards, *(shard for shard, _ in index.rows.values())}
    for name in sorted(name for name in named if name not in index.shards or not (path / name).exists()):
        lost = [clip_id for clip_id, (shard, _) in index.rows.items() if shard == name]
        log.warning("%s is missing or not in the index; its %d clips count as not extracted.", path / name, len(lost))
        index.shards.pop(name, None)
        for clip_id in lost:
            index.forget(clip_id)


def groups(clips: Iterable[PendingClip], dtype: Dtype, out_shape: tuple[int, ...]) -> Iterator[list[PendingClip]]:
    """Group clips into shards, separated by their number of landmarks."""
    group: list[PendingClip] = []
    for clip in clips:
        points = {(row.landmarks, row.axes) for _, _, row in (*group, clip) if row.landmarks}
        if group and (len(points) > 1 or is_full([row for _, _, row in group], dtype, out_shape)):
            yield group
            group = []
        group.append(clip)
    if group:
        yield group
