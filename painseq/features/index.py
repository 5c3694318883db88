"""The JSON files of a store: store.json, and the indexes of its clips."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from painseq.errors import PainseqError
from painseq.extractors.extractor import NOT_IDENTITY
from painseq.faces import FaceCrops
from painseq.features.clip_file import RERUN_HINT, Dtype, Row, Shard, points_in, shard_of, tables_in
from painseq.features.spans import RecordedSpan
from painseq.files import parse_json, write_json
from painseq.records import read_people
from painseq.spec import Spec, difference, digest, names_weights, with_public_paths

FORMAT = 2

Precision = Literal["fp32", "bf16"]

RESTORE_HINT = "Restore it from a copy, or extract again into another folder."
_MIN_FRAME_BYTES = 10
"""Bytes of a frame: at least one of features, eight of time, one that says whether there is a face."""
_MAX_SIZE = 2**32
log = logging.getLogger("painseq")


def identity(spec: Mapping[str, object]) -> Spec:
    """Return the part of a pipeline's specification that decides the features.

    The source of the weights and the trained blocks are left out: the extractor's fingerprint covers the weights. So
    are the input of the network, which crops and fingerprint decide, paths of a locator's files, and the library that
    decodes.
    """
    plain: Spec = json.loads(json.dumps(spec))
    extractor = plain.get("extractor")
    if isinstance(extractor, dict):
        extractor.pop("input", None)
    if isinstance(extractor, dict) and isinstance(extractor.get("init_args"), dict):
        extractor["init_args"] = {key: v for key, v in extractor["init_args"].items() if key not in NOT_IDENTITY}
    face = plain.get("face")
    if isinstance(face, dict) and "class_path" in face:
        plain["face"] = face["identity"] if "identity" in face else FaceCrops.from_spec(face).identity()
    return plain


def check_same_pipeline(path: Path, recorded: Mapping[str, object], requested: Mapping[str, object]) -> None:
    """Raise a PainseqError that lists the differences, unless both specifications have the same identity."""
    lines = difference(identity(recorded), identity(requested))
    if lines:
        raise PainseqError(
            f"{path} holds features of another pipeline; one store cannot hold both. The store has\n  "
            + "\n  ".join(lines)
            + "\nwhere the second value is the requested one. Choose another folder, or the settings of the store."
        )


@dataclass(frozen=True)
class StoreHeader:
    """The content of store.json: the pipeline of the features.

    Args:
        spec: specification of the pipeline.
        fingerprint: digest of its identity.
        dtype: type of the features on disk.
        precision: precision of the network; not part of the identity.
        out_shape: shape of one frame's features.
        trained_on: subjects that the extractor was trained on, as "data set/subject".
        people_known: whether `trained_on` names all of them.
    """

    spec: Spec
    fingerprint: str
    dtype: Dtype
    precision: Precision
    out_shape: tuple[int, ...]
    trained_on: tuple[str, ...]
    people_known: bool = True

    @classmethod
    def of(
        cls,
        spec: Spec,
        dtype: Dtype,
        precision: Precision,
        out_shape: tuple[int, ...],
        trained_on: tuple[str, ...],
        people_known: bool = True,
    ) -> Self:
        """Create a header with the fingerprint of `spec`."""
        return cls(spec, digest(identity(spec)), dtype, precision, out_shape, trained_on, people_known)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the header of the store at `path`.

        Raises:
            PainseqError: no store there, or it is damaged or of another format.
        """
        try:
            header = _read_json(path / "store.json")
        except FileNotFoundError as error:
            raise PainseqError(
                f"{path} is not a feature store: it has no store.json. Create one with `painseq extract`."
            ) from error
        except PainseqError as error:
            raise PainseqError(f"{error} {RESTORE_HINT}") from error
        if header.get("format") != FORMAT:
            raise PainseqError(
                f"{path}: the store has format {header.get('format')!r}; this version reads {FORMAT}. Extract again "
                "into another folder."
            )
        try:
            if header["dtype"] not in get_args(Dtype) or header["precision"] not in get_args(Precision):
                raise ValueError(f"features of type {header['dtype']!r}, computed in {header['precision']!r}")
            spec = _checked_spec(header["spec"])
            if not isinstance(header["fingerprint"], str):
                raise ValueError(f"fingerprint is {header['fingerprint']!r}")
            sizes = header["out_shape"]
            if not sizes or not all(type(size) is int and 0 < size < _MAX_SIZE for size in sizes):
                raise ValueError(f"out_shape is {sizes!r}")
            # Stores without `people_known` also list nobody if the extractor's weights did not tell.
            trained_on = read_people(header["trained_on"], f"{path / 'store.json'}: trained_on")
            return cls(
                spec,
                header["fingerprint"],
                header["dtype"],
                header["precision"],
                tuple(header["out_shape"]),
                trained_on,
                bool(header.get("people_known", trained_on or not names_weights(spec.get("extractor")))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PainseqError(f"{path / 'store.json'} is damaged: {error!r}. {RESTORE_HINT}") from error

    def write(self, path: Path) -> None:
        """Write store.json into the store at `path`.

        Raises:
            OSError: unchanged from Python.
        """
        write_json(path / "store.json", {"format": FORMAT, **asdict(self)})


@dataclass
class Index:
    """The content of index.json, or the part of it that one process has written.

    Args:
        rows: clip id -> shard, and position in it.
        failed: clip id -> reason.
        shards: name -> size and digest.
        spans: clip id -> where its features come from; stores of earlier versions have none.
    """

    rows: dict[str, tuple[str, Row]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)
    spans: dict[str, RecordedSpan] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an index file.

        Raises:
            FileNotFoundError: it does not exist.
            PainseqError: it is damaged.
        """
        try:
            content = _read_json(path)
        except PainseqError as error:
            raise PainseqError(f"{error} {INDEX_HINT}") from error
        try:
            rows = {clip_id: _shard_and_row(entry) for clip_id, entry in content["clips"].items()}
            failed = {str(key): str(value) for key, value in content["failed"].items()}
            shards = {_checked_shard_name(name): Shard(**entry) for name, entry in content["shards"].items()}
            spans = {clip_id: RecordedSpan(**entry) for clip_id, entry in content.get("spans", {}).items()}
            sizes = {name: _size_of(path.parent / name, shard) for name, shard in shards.items()}
            for clip_id, (name, row) in rows.items():
                if name in sizes and (row.first + row.frames) * _MIN_FRAME_BYTES > sizes[name]:
                    raise ValueError(f"clip {clip_id!r} has {row.frames} frames, more than {name} can hold")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PainseqError(f"{path} is damaged: {error!r}. {INDEX_HINT}") from error
        return cls(rows, failed, shards, spans)

    @classmethod
    def rebuilt(cls, path: Path) -> Self:
        """Make the index of the store at `path` anew, from the headers of its shards; without failed clips and spans.

        Shards that are damaged are left out.

        Raises:
            OSError: unchanged from Python.
        """
        index = cls()
        for file in sorted(path.glob("shard-*.safetensors"), key=lambda file: (len(file.name), file.name)):
            try:
                name, (table, _) = _checked_shard_name(file.name), tables_in(file)
            except (PainseqError, ValueError) as error:
                log.warning("%s is left out of the new index: %s", file, error)
                continue
            index.shards[name] = shard_of(file)
            for clip_id, row in table.items():
                index.keep(clip_id, name, row, None)
        return index

    def write(self, path: Path) -> None:
        """Replace the file at `path`.

        Raises:
            OSError: unchanged from Python.
        """
        clips = {clip_id: {"shard": name, **row.to_dict()} for clip_id, (name, row) in self.rows.items()}
        shards = {name: asdict(shard) for name, shard in self.shards.items()}
        spans = {clip_id: asdict(span) for clip_id, span in self.spans.items()}
        write_json(path, {"clips": clips, "failed": self.failed, "shards": shards, "spans": spans})

    def keep(self, clip_id: str, shard: str, row: Row, span: RecordedSpan | None) -> None:
        """Add or replace a clip."""
        self.forget(clip_id)
        self.rows[clip_id] = (shard, row)
        if span is not None:
            self.spans[clip_id] = span

    def forget(self, clip_id: str) -> None:
        """Remove a clip."""
        self.rows.pop(clip_id, None)
        self.failed.pop(clip_id, None)
        self.spans.pop(clip_id, None)

    def merge(self, part: Index) -> None:
        """Merge the newer entries of one process into this index; idempotent."""
        for clip_id, (shard, row) in part.rows.items():
            self.keep(clip_id, shard, row, part.spans.get(clip_id))
        for clip_id, reason in part.failed.items():
            self.forget(clip_id)
            self.failed[clip_id] = reason
        self.shards |= part.shards

    @property
    def landmarks(self) -> int:
        """Number of landmarks per frame; 0 if no clip has any."""
        return self.points[0]

    @property
    def points(self) -> tuple[int, int]:
        """Number of landmarks per frame, 0 if no clip has any, and of their axes."""
        return points_in(row for _, row in self.rows.values())

    def next_shard(self) -> int:
        """Return the number after the last shard's."""
        return max((shard_number(name) for name in self.shards), default=-1) + 1


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.safetensors"


def shard_number(name: str) -> int:
    """Return the number of a shard; the inverse of `shard_name`."""
    return int(name.removeprefix("shard-").removesuffix(".safetensors"))


def part_name(rank: int) -> str:
    """Return the name of the index file of one process."""
    return f"index-{rank:03d}.json"


@dataclass
class Contents:
    """All clips of a store: index, the indexes of individual processes, and pending files.

    Args:
        index: index.json, merged with the indexes of individual processes.
        pending: file -> clip id and row, oldest first; newer than the index.
        damaged: pending file -> why it is unreadable; its clip counts as not extracted.
        pending_spans: clip id -> where the features of a pending clip come from.
    """

    index: Index
    pending: dict[str, tuple[str, Row]]
    damaged: dict[str, str]
    pending_spans: dict[str, RecordedSpan]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the contents of the store at `path`.

        Raises:
            PainseqError: an index is missing or damaged.
        """
        # A running extraction moves clips from pending files to a process's index to index.json. Reading in the same
        # order finds a clip that moves meanwhile in the next place.
        pending_files: list[tuple[str, dict[str, Row]]] = []
        damaged: dict[str, str] = {}
        pending_spans: dict[str, RecordedSpan] = {}
        for file in sorted(path.glob("pending/*.safetensors")):
            try:
                table, spans = tables_in(file)
                pending_files.append((f"pending/{file.name}", table))
                pending_spans |= spans
            except FileNotFoundError:
                pass
            except PainseqError as error:
                damaged[f"pending/{file.name}"] = str(error.__cause__)
            except OSError as error:
                raise PainseqError(f"{file} cannot be read: {error}.") from error
        parts = []
        for file in sorted(path.glob("index-*.json")):
            with suppress(FileNotFoundError):
                parts.append(Index.read(file))
        try:
            index = Index.read(path / "index.json")
        except FileNotFoundError as error:
            raise PainseqError(
                f"{path / 'index.json'} is missing. {RERUN_HINT} It makes the index anew from the shards."
            ) from error
        for part in parts:
            index.merge(part)
        pending: dict[str, tuple[str, Row]] = {}
        file_of: dict[str, str] = {}
        for name, table in pending_files:
            for clip_id, row in table.items():
                shard, recorded = index.rows.get(clip_id, ("", None))
                same = recorded is not None and (recorded.source, recorded.frames) == (row.source, row.frames)
                if same and (path / shard).exists():
                    continue  # The run was killed between writing its index and removing this file.
                pending.pop(file_of.get(clip_id, ""), None)
                pending[name] = (clip_id, row)
                file_of[clip_id] = name
        return cls(index, pending, damaged, pending_spans)

    def combined(self) -> Index:
        """Return one index of all clips, the pending ones last."""
        whole = self.index
        index = Index(dict(whole.rows), dict(whole.failed), dict(whole.shards), dict(whole.spans))
        for name, (clip_id, row) in self.pending.items():
            index.keep(clip_id, name, row, self.pending_spans.get(clip_id))
        return index


INDEX_HINT = f"Delete it. {RERUN_HINT} It makes the index anew from the shards, and extracts only what they lack."


def _size_of(file: Path, recorded: Shard) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return int(recorded.bytes)


def _checked_spec(spec: Mapping[str, Any]) -> Spec:
    parts = {key: dict(spec[key]) for key in ("extractor", "face", "sampling")}
    for key in ("class_path", "fingerprint"):
        if not isinstance(parts["extractor"].get(key), str):
            raise ValueError(f"the extractor's {key} is {parts['extractor'].get(key)!r}")
    return with_public_paths(dict(spec))


def _shard_and_row(entry: Mapping[str, Any]) -> tuple[str, Row]:
    values = dict(entry)
    return _checked_shard_name(values.pop("shard")), Row(**values)


def _checked_shard_name(shard: str) -> str:
    if not re.fullmatch(r"shard-\d{5,}\.safetensors", shard):
        raise ValueError(f"{shard!r} is not the name of a shard of the store")
    return shard


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise PainseqError(f"{path} is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise PainseqError(f"{path} is damaged: it is not a JSON object.")
    return content
