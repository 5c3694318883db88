"""From pending clips to shards, and what runs that ended early have left."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from painseq.features.clip_file import Dtype, Layout, Row, write_shard
from painseq.features.index import Contents, Index, shard_name

CLIPS_PER_SHARD = 64
SHARD_BYTES = 128 * 2**20
log = logging.getLogger("painseq")

PendingClip = tuple[str, str, Row]
"""File in the store's folder, clip id, and where in the file."""


def is_full(rows: Sequence[Row], dtype: Dtype, out_shape: tuple[int, ...]) -> bool:
    """Whether these clips are enough for a shard."""
    size_bytes = sum(sum(Layout(dtype, out_shape, row.frames, row.landmarks).sizes.values()) for row in rows)
    return len(rows) >= CLIPS_PER_SHARD or size_bytes >= SHARD_BYTES


def close_shard(
    path: Path,
    number: int,
    clips: Sequence[PendingClip],
    dtype: Dtype,
    out_shape: tuple[int, ...],
    *indexes: Index,
) -> None:
    """Copy pending clips into a shard and note it in `indexes`, which are not written yet.

    Raises:
        OSError: as Python's own.
    """
    name = shard_name(number)
    files = [(path / file, clip_id, row) for file, clip_id, row in clips]
    rows, shard = write_shard(path / name, files, dtype, out_shape)
    for index in indexes:
        index.shards[name] = shard
        for clip_id, row in rows.items():
            index.keep(clip_id, name, row)


def tidy(path: Path, dtype: Dtype, out_shape: tuple[int, ...], keep: str = "/") -> None:
    """Put together what the processes of earlier runs have left; call it only while nobody fills the store.

    Args:
        keep: how the names of those pending files begin that are to be continued.

    Raises:
        OSError: as Python's own. Nothing is lost then, and the next call goes on.
    """
    for partial in (*path.glob(".*.partial"), *path.glob("pending/.*.partial")):
        partial.unlink()
    contents = Contents.read(path)
    index = contents.index
    _drop_lost_shards(path, index)
    for name, reason in contents.damaged.items():
        log.warning("%s cannot be read (%s); its clip counts as not extracted.", path / name, reason)
    left_over = [(name, *clip) for name, clip in contents.pending.items() if not name.startswith(f"pending/{keep}")]
    for group in groups(left_over, dtype, out_shape):
        close_shard(path, index.next_shard(), group, dtype, out_shape, index)
    # The index comes before anything goes that it stands for.
    if index != Index.read(path / "index.json"):
        index.write(path / "index.json")
    kept = contents.pending.keys() - {name for name, _, _ in left_over}
    for file in (
        *path.glob("index-*.json"),
        *(file for file in path.glob("pending/*.safetensors") if f"pending/{file.name}" not in kept),
        *(file for file in path.glob("shard-*.safetensors") if file.name not in index.shards),
    ):
        file.unlink()


def _drop_lost_shards(path: Path, index: Index) -> None:
    for name in [name for name in index.shards if not (path / name).exists()]:
        lost = [clip_id for clip_id, (shard, _) in index.rows.items() if shard == name]
        log.warning("%s is missing; its %d clips count as not extracted.", path / name, len(lost))
        del index.shards[name]
        for clip_id in lost:
            index.forget(clip_id)


def groups(clips: Iterable[PendingClip], dtype: Dtype, out_shape: tuple[int, ...]) -> Iterator[list[PendingClip]]:
    """Clips by shard. Those of processes that found other landmarks go apart."""
    group: list[PendingClip] = []
    for clip in clips:
        points = {row.landmarks for _, _, row in (*group, clip)} - {0}
        if group and (len(points) > 1 or is_full([row for _, _, row in group], dtype, out_shape)):
            yield group
            group = []
        group.append(clip)
    if group:
        yield group
