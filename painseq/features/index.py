"""What a store says of itself in JSON: store.json, and the indexes of its clips."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from painseq.errors import PainseqError
from painseq.extractors.extractor import NOT_IDENTITY
from painseq.faces import FaceCrops
from painseq.features.clip_file import Dtype, Row, Shard, rows_in
from painseq.files import write_json
from painseq.spec import Spec, difference, digest, with_public_paths

FORMAT = 2

Precision = Literal["fp32", "bf16"]


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


def check_same_pipeline(path: Path, there: Mapping[str, object], asked: Mapping[str, object]) -> None:
    """Raise a PainseqError naming the differences unless both specifications have the same identity."""
    lines = difference(identity(there), identity(asked))
    if lines:
        raise PainseqError(
            f"{path} holds features of another pipeline, and the two never mix. The store has\n  "
            + "\n  ".join(lines)
            + "\nwhere the second value is the one asked for. Give another folder, or the settings of the store."
        )


@dataclass(frozen=True)
class Head:
    """store.json: what made the features.

    Args:
        spec: of the whole pipeline.
        fingerprint: digest of its identity.
        dtype: of the features on disk.
        precision: in which the network computed; no part of the identity.
        out_shape: of one frame's features.
        trained_on: whom the extractor was fitted on, as "data set/subject".
    """

    spec: Spec
    fingerprint: str
    dtype: Dtype
    precision: Precision
    out_shape: tuple[int, ...]
    trained_on: tuple[str, ...]

    @classmethod
    def of(
        cls, spec: Spec, dtype: Dtype, precision: Precision, out_shape: tuple[int, ...], trained_on: tuple[str, ...]
    ) -> Self:
        """With the fingerprint of `spec`."""
        return cls(spec, digest(identity(spec)), dtype, precision, out_shape, trained_on)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The one of the store at `path`.

        Raises:
            PainseqError: no store there, a damaged one, or one of another format.
        """
        try:
            head = _read_json(path / "store.json")
        except FileNotFoundError as error:
            raise PainseqError(
                f"{path} is no feature store: it has no store.json. `painseq extract` makes one."
            ) from error
        if head.get("format") != FORMAT:
            raise PainseqError(
                f"{path}: a store of format {head.get('format')!r}; this painseq reads {FORMAT}. Extract anew into "
                "another folder."
            )
        try:
            if head["dtype"] not in get_args(Dtype) or head["precision"] not in get_args(Precision):
                raise ValueError(f"features of type {head['dtype']!r}, computed in {head['precision']!r}")
            return cls(
                with_public_paths(dict(head["spec"])),
                str(head["fingerprint"]),
                head["dtype"],
                head["precision"],
                tuple(head["out_shape"]),
                tuple(head["trained_on"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PainseqError(f"{path / 'store.json'} is damaged: {error!r}.") from error

    def write(self, path: Path) -> None:
        """Into the store at `path`; an OSError as Python's own."""
        write_json(path / "store.json", {"format": FORMAT, **asdict(self)})


@dataclass
class Index:
    """index.json, or the part of it that one process of a run has written so far.

    Args:
        rows: clip id -> shard, and where in it.
        failed: clip id -> reason.
        shards: name -> size and digest.
    """

    rows: dict[str, tuple[str, Row]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """An index file.

        Raises:
            FileNotFoundError: it is not there.
            PainseqError: it is damaged.
        """
        content = _read_json(path)
        try:
            rows = {clip_id: _place(entry) for clip_id, entry in content["clips"].items()}
            failed = {str(key): str(value) for key, value in content["failed"].items()}
            shards = {_in_store(name): Shard(**entry) for name, entry in content["shards"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PainseqError(f"{path} is damaged: {error!r}.") from error
        return cls(rows, failed, shards)

    def write(self, path: Path) -> None:
        """Replace the file at `path`; an OSError as Python's own."""
        clips = {clip_id: {"shard": name, **asdict(row)} for clip_id, (name, row) in self.rows.items()}
        shards = {name: asdict(shard) for name, shard in self.shards.items()}
        write_json(path, {"clips": clips, "failed": self.failed, "shards": shards})

    def keep(self, clip_id: str, shard: str, row: Row) -> None:
        """A clip that was extracted last."""
        self.forget(clip_id)
        self.rows[clip_id] = (shard, row)

    def forget(self, clip_id: str) -> None:
        """Neither extracted nor failed."""
        self.rows.pop(clip_id, None)
        self.failed.pop(clip_id, None)

    def merge(self, part: Index) -> None:
        """Take over what a process has written since: it is newer. Doing it twice changes nothing."""
        for clip_id, (shard, row) in part.rows.items():
            self.keep(clip_id, shard, row)
        for clip_id, reason in part.failed.items():
            self.forget(clip_id)
            self.failed[clip_id] = reason
        self.shards |= part.shards

    @property
    def landmarks(self) -> int:
        """Points of the face a frame; 0 where no clip has any."""
        return next((row.landmarks for _, row in self.rows.values() if row.landmarks), 0)

    def next_shard(self) -> int:
        """The number behind the last shard's."""
        return max((shard_number(name) for name in self.shards), default=-1) + 1


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.safetensors"


def shard_number(name: str) -> int:
    """The inverse of `shard_name`."""
    return int(name.removeprefix("shard-").removesuffix(".safetensors"))


def part_name(rank: int) -> str:
    """The index file of one process."""
    return f"index-{rank:03d}.json"


@dataclass
class Contents:
    """All clips of a store: index, the parts of processes that are or were running, and pending files.

    Args:
        index: with the parts.
        pending: file -> clip id and row, oldest first; newer than the index.
        damaged: pending file -> why it cannot be read; its clip counts as not extracted.
    """

    index: Index
    pending: dict[str, tuple[str, Row]]
    damaged: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of the store at `path`.

        Raises:
            PainseqError: an index is missing or damaged.
        """
        # A clip goes from its pending file to a process's part to the index, and so does this: what a run takes away
        # meanwhile is found in the next place.
        waiting: list[tuple[str, dict[str, Row]]] = []
        damaged: dict[str, str] = {}
        for file in sorted(path.glob("pending/*.safetensors")):
            try:
                waiting.append((f"pending/{file.name}", rows_in(file)))
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
            raise PainseqError(f"{path / 'index.json'} is missing: the store is damaged.") from error
        for part in parts:
            index.merge(part)
        pending: dict[str, tuple[str, Row]] = {}
        file_of: dict[str, str] = {}
        for name, table in waiting:
            for clip_id, row in table.items():
                shard, there = index.rows.get(clip_id, ("", None))
                same = there is not None and (there.source, there.frames) == (row.source, row.frames)
                if same and (path / shard).exists():
                    continue  # The run was killed between writing its index and removing this file.
                pending.pop(file_of.get(clip_id, ""), None)
                pending[name] = (clip_id, row)
                file_of[clip_id] = name
        return cls(index, pending, damaged)

    def together(self) -> Index:
        """Every clip, the pending ones last."""
        index = Index(dict(self.index.rows), dict(self.index.failed), dict(self.index.shards))
        for name, (clip_id, row) in self.pending.items():
            index.keep(clip_id, name, row)
        return index


def _place(entry: Mapping[str, Any]) -> tuple[str, Row]:
    values = dict(entry)
    return _in_store(values.pop("shard")), Row(**values)


def _in_store(shard: str) -> str:
    if not re.fullmatch(r"shard-\d{5,}\.safetensors", shard):
        raise ValueError(f"{shard!r} is no shard of the store, or lies outside of it")
    return shard


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PainseqError(f"{path} is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise PainseqError(f"{path} is damaged: it is not a JSON object.")
    return content
