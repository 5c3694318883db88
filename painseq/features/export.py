"""Exchange features with other tools as a folder of .npz files."""

from __future__ import annotations

import logging
import math
import re
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.features.spans import RecordedSpan
from painseq.features.store import ClipFeatures, Dtype, FeatureStore
from painseq.files import parse_json, write_csv, write_json
from painseq.records import read_people
from painseq.spec import Spec, digest
from painseq.tables import read_table

SOURCE = "source.json"
_ARRAYS = ("features", "present", "times_s")
_LANDMARKS = "landmarks"
MAX_CLIP_BYTES = 4 * 2**30
"""A clip whose arrays are larger in memory is refused: a small compressed file can hold huge ones."""
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_KINDS: dict[torch.dtype, Dtype] = {torch.uint8: "uint8", torch.float16: "float16", torch.float32: "float32"}
_NPZ_ERRORS = (
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and numpy raise for a damaged file."""
log = logging.getLogger("painseq")


def file_name(clip_id: str) -> str:
    """Return a unique, portable file name for a clip.

    Ids of ASCII letters, digits, "_" and "-" are kept; others are shortened and get a digest.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", clip_id)[:100]
    return f"{safe}.npz" if safe == clip_id else f"{safe}.{digest(clip_id)}.npz"


def export_npz(store: FeatureStore, directory: Path) -> None:
    """Write one .npz per clip (features, present, times_s, and landmarks if the store has any), index.csv (clip_id,
    file), and source.json: the pipeline, the subjects its extractor was trained on, and the span of each clip.

    Raises:
        PainseqError: the folder is not empty, or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise PainseqError(f"{directory} is not empty. Choose a new folder for --export.")
        for clip_id in store:
            clip = store[clip_id]
            arrays = {name: getattr(clip, name).numpy() for name in _ARRAYS}
            if clip.landmarks is not None:
                arrays[_LANDMARKS] = clip.landmarks.numpy()
            np.savez(directory / file_name(clip_id), **arrays)
        write_csv(directory / "index.csv", [["clip_id", "file"], *([clip_id, file_name(clip_id)] for clip_id in store)])
        source = {
            "spec": store.spec,
            "fingerprint": store.fingerprint,
            "trained_on": list(store.trained_on),
            "people_known": store.people_known,
            "spans": {clip_id: asdict(span) for clip_id, span in store.spans.items()},
        }
        write_json(directory / SOURCE, source)
    except OSError as error:
        raise PainseqError(f"{directory} cannot be written: {error}.") from error


class NpzFolder:
    """Features from another tool, with the interface of `FeatureStore`; their pipeline is unknown.

    Each .npz holds `features` (T, *F) of any float type or uint8, `present` (T,) bool and `times_s` (T,) seconds from
    the clip's start, which increase; and, in all files or none, `landmarks` (T, L, 2 or 3), x, y (and z) in pixels of
    the video's frame. Features and landmarks of frames without a face are ignored, and may be NaN. index.csv (clip_id,
    file) names the clips; without it, the clip id is the file's name without .npz.

    Two folders of features of the same shape count as the same pipeline if neither names one: the `fingerprint` in
    source.json, as `export_npz` writes it.

    Raises:
        PainseqError: no such folder, no .npz in it, an invalid index.csv or source.json; on first use of the shape or
            the type of the features, an invalid first file.
    """

    trained_on: tuple[str, ...]
    people_known: bool
    failed: dict[str, str]
    spans: dict[str, RecordedSpan]

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.failed = {}
        source = self._read_source()
        given = source.get("trained_on")
        # null means that it is not known.
        self.trained_on = () if given is None else read_people(given, f"{self.path / SOURCE}: trained_on")
        self.people_known = source.get("people_known", given is not None) is True
        self.spans = source.get("spans", {})
        self._files = self._find()
        if not self._files:
            raise PainseqError(f"{self.path} holds no .npz file.")
        self._source: str | None = source.get("fingerprint")

    @cached_property
    def _first(self) -> ClipFeatures:
        """The clip that all others must be like."""
        return self.alone(next(iter(self._files)))

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one frame's features."""
        return tuple(self._first.features.shape[1:])

    @property
    def landmarks(self) -> int:
        """Number of landmarks per frame; 0 without any."""
        return 0 if self._first.landmarks is None else self._first.landmarks.shape[1]

    @property
    def dtype(self) -> Dtype:
        """Type of the features."""
        return _KINDS[self._first.features.dtype]

    @property
    def spec(self) -> Spec:
        """What is known of the pipeline."""
        spec: Spec = {"extractor": None, "face": None, "sampling": None, "out_shape": list(self.out_shape)}
        return spec if self._source is None else {**spec, "source": self._source}

    @property
    def fingerprint(self) -> str:
        """Digest of `spec`."""
        return digest(self.spec)

    def _read_source(self) -> dict[str, Any]:
        """Read source.json; empty without one."""
        source = self.path / SOURCE
        if not source.is_file():
            _warn_of_unknown_people(self.path)
            return {}
        try:
            content = parse_json(source.read_bytes())
            if not isinstance(content, dict) or "trained_on" not in content:
                raise ValueError("it has no trained_on")
            if not isinstance(content.get("fingerprint", ""), str):
                raise ValueError(f"fingerprint is {content['fingerprint']!r}")
            spans = content.get("spans", {}).items()
            return {**content, "spans": {clip_id: RecordedSpan(**span) for clip_id, span in spans}}
        except (ValueError, TypeError, AttributeError) as error:
            raise PainseqError(
                f"{source} is damaged: {error}. Export the features again, or correct the file: it needs trained_on, "
                'a list such as ["biovid/071309_w_21"], or null if the subjects are not known.'
            ) from error

    def _find(self) -> dict[str, Path]:
        index = self.path / "index.csv"
        if not index.is_file():
            return {file.stem: file for file in sorted(self.path.glob("*.npz"))}
        columns, lines = read_table(index)
        if not {"clip_id", "file"} <= set(columns):
            raise PainseqError(f"{index} must have the columns clip_id and file.")
        rows = [{**dict.fromkeys(columns, ""), **dict(zip(columns, cells, strict=False))} for _, cells in lines]
        if not all(row["clip_id"] and row["file"] for row in rows):
            raise PainseqError(f"{index}: each row needs a clip_id and a file.")
        outside = [row["file"] for row in rows if Path(row["file"]).name != row["file"]]
        if outside:
            raise PainseqError(f"{index} names {outside[0]!r}; files must be in {self.path} itself.")
        twice = [clip_id for clip_id, count in Counter(row["clip_id"] for row in rows).items() if count > 1]
        if twice:
            raise PainseqError(f"{index} names the clip {twice[0]!r} several times; each clip has one row.")
        return {row["clip_id"]: self.path / row["file"] for row in rows}

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """Ids of the clips with features."""
        return tuple(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __getitem__(self, clip_id: str) -> ClipFeatures:
        """Return all frames of a clip; float64 becomes float32.

        Raises:
            PainseqError: no such clip, or an invalid file.
        """
        return self.frames(clip_id)

    def frames(self, clip_id: str, first: int = 0, last: int | None = None, landmarks: bool = True) -> ClipFeatures:
        """Return the clip's frames from `first` to `last` (exclusive), with their landmarks if asked for.

        Raises:
            PainseqError: no such clip, an invalid file, or one that differs from the first in shape or type.
        """
        clip = self.alone(clip_id, landmarks)
        problem = self._difference(clip, landmarks) or not_finite(clip) or not_increasing(clip)
        if problem:
            raise PainseqError(f"{self._file(clip_id)}: {problem}. `painseq data check` lists all such files.")
        points = clip.landmarks
        return ClipFeatures(
            clip.features[first:last].clone(),
            clip.present[first:last].clone(),
            clip.times_s[first:last].clone(),
            None if points is None else points[first:last].clone(),
        )

    def _difference(self, clip: ClipFeatures, landmarks: bool) -> str:
        """Describe how a clip differs from the first one; empty if it does not."""
        shape, count = tuple(clip.features.shape[1:]), 0 if clip.landmarks is None else clip.landmarks.shape[1]
        if shape != self.out_shape:
            return f"{shape} per frame, but the first file has {self.out_shape}"
        if _KINDS[clip.features.dtype] != self.dtype:
            return f"features of {_KINDS[clip.features.dtype]}, but the first file has {self.dtype}"
        if landmarks and count != self.landmarks:
            return f"{count} landmarks per frame, but the first file has {self.landmarks}"
        return ""

    def alone(self, clip_id: str, landmarks: bool = True) -> ClipFeatures:
        """Return all frames of a clip as its file holds them, whatever the other files hold; faceless frames are zero.

        Raises:
            PainseqError: no such clip, or a file without the arrays of a clip.
        """
        arrays = self._arrays(clip_id, (*_ARRAYS, _LANDMARKS) if landmarks else _ARRAYS)
        features, present, times_s = (arrays[name] for name in _ARRAYS)
        if features.dtype == np.float64:
            features = features.astype(np.float32)
        if features.dtype not in (np.uint8, np.float16, np.float32) or features.ndim < 2:
            raise PainseqError(
                f"{self._file(clip_id)}: features of {features.dtype}, shape {features.shape}; need (T, D)."
            )
        for name, array in (("present", present), ("times_s", times_s)):
            if array.dtype.kind not in "bfiu" or array.ndim != 1:
                raise PainseqError(
                    f"{self._file(clip_id)}: {name} of {array.dtype}, shape {array.shape}; need (T,) numbers."
                )
        if not len(features) == len(present) == len(times_s):
            raise PainseqError(
                f"{self._file(clip_id)}: features, present and times_s have {len(features)}, {len(present)} and "
                f"{len(times_s)} frames."
            )
        if not np.isin(present, (0, 1)).all():
            raise PainseqError(
                f"{self._file(clip_id)}: present holds {present[~np.isin(present, (0, 1))][0]}; it must be true or "
                "false for each frame. Confidences need a threshold."
            )
        present = present.astype(bool)
        points = self._landmarks(clip_id, arrays.get(_LANDMARKS), present) if landmarks else None
        if not present.all():
            # Other tools leave NaN, or the values of the last face.
            features = np.where(present.reshape(-1, *[1] * (features.ndim - 1)), features, features.dtype.type(0))
        return ClipFeatures(
            torch.from_numpy(features),
            torch.from_numpy(present),
            torch.from_numpy(times_s.astype(np.float64)),
            None if points is None else torch.from_numpy(points),
        )

    def _landmarks(self, clip_id: str, given: np.ndarray | None, present: np.ndarray) -> np.ndarray | None:
        if given is None:
            return None
        if (
            given.dtype.kind not in "fiu"
            or given.ndim != 3
            or len(given) != len(present)
            or given.shape[2] not in (2, 3)
        ):
            raise PainseqError(
                f"{self._file(clip_id)}: landmarks of {given.dtype}, shape {given.shape}; need "
                f"({len(present)}, L, 2 or 3) numbers."
            )
        return np.where(present[:, None, None], given, np.nan).astype(np.float32)

    def times_s(self, clip_id: str) -> Tensor:
        """Return the (T,) float64 times of the clip's frames, in seconds from its start.

        Raises:
            PainseqError: no such clip, or an invalid file.
        """
        return torch.from_numpy(self._arrays(clip_id, ["times_s"])["times_s"].astype(np.float64))

    def num_frames(self, clip_id: str) -> int:
        """Return the number of frames of the clip."""
        return len(self._arrays(clip_id, ["present"])["present"])

    def num_faceless(self, clip_id: str) -> int:
        """Return the number of frames of the clip without a face."""
        return int((~self._arrays(clip_id, ["present"])["present"].astype(bool)).sum())

    def _file(self, clip_id: str) -> Path:
        if clip_id not in self._files:
            raise PainseqError(
                f"{self.path} has no clip {clip_id!r}. Export the features of every clip of the data set."
            )
        return self._files[clip_id]

    def _arrays(self, clip_id: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read arrays of a clip's file; landmarks only if it has them."""
        file = self._file(clip_id)
        try:
            _check_sizes(file)
            with np.load(file, allow_pickle=False) as arrays:
                missing = [name for name in names if name not in arrays]
                for name in missing:
                    if name != _LANDMARKS:
                        raise PainseqError(f"{file} has no array {name!r}; it needs {', '.join(_ARRAYS)}.")
                return {name: arrays[name] for name in names if name not in missing}
        except _NPZ_ERRORS as error:
            raise PainseqError(f"{file} is not a readable .npz file of plain arrays: {error}.") from error


@cache
def _warn_of_unknown_people(path: Path) -> None:
    log.warning(
        "%s has no %s: the subjects that the extractor was trained on are unknown, so a leak through it cannot be "
        "detected.",
        path,
        SOURCE,
    )


def _check_sizes(file: Path) -> None:
    """Check from the headers of a clip's arrays how much memory they take, before any of them is read.

    Raises:
        ValueError, OSError, zipfile.BadZipFile, ...: they are too large, or damaged; see `_NPZ_ERRORS`.
    """
    total_bytes = 0
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as array:
                version = np.lib.format.read_magic(array)
                if version not in _HEADERS:
                    raise ValueError(f"{entry.filename} has a header of version {version}")
                shape, _, dtype = _HEADERS[version](array)
                size_bytes = math.prod(shape) * dtype.itemsize
                # Objects are pickled; they are refused when they are read.
                if not dtype.hasobject and array.tell() + size_bytes != entry.file_size:
                    raise ValueError(f"{entry.filename} does not hold the {size_bytes} bytes of its shape {shape}")
            total_bytes += entry.file_size
    if total_bytes > MAX_CLIP_BYTES:
        raise ValueError(
            f"its arrays take {total_bytes} bytes, more than {MAX_CLIP_BYTES}; cut the clip into shorter ones"
        )


def not_finite(clip: ClipFeatures) -> str:
    """Describe the features of a clip that are NaN or infinite, in frames with a face; empty if none are."""
    if not clip.features.is_floating_point():
        return ""
    wrong = ~torch.isfinite(clip.features).flatten(1) & clip.present[:, None]
    if not bool(wrong.any()):
        return ""
    frames, columns = wrong.any(dim=1).nonzero().flatten(), wrong.any(dim=0).nonzero().flatten()
    return (
        f"{len(frames)} of {len(clip)} frames are NaN or infinite, first frame {int(frames[0])}, in {len(columns)} of "
        f"{wrong.shape[1]} columns, first column {int(columns[0])}"
    )


def not_increasing(clip: ClipFeatures) -> str:
    """Describe where the times of a clip do not increase, or are no numbers; empty if they are as they should be."""
    times_s = clip.times_s.numpy()
    if not np.isfinite(times_s).all():
        return f"times_s holds {times_s[~np.isfinite(times_s)][0]}"
    later = np.flatnonzero(np.diff(times_s) <= 0)
    if not len(later):
        return ""
    frame = int(later[0]) + 1
    return f"times_s does not increase: {times_s[frame]:g} s at frame {frame}, after {times_s[frame - 1]:g} s"


def open_features(path: Path) -> FeatureStore | NpzFolder:
    """Open a feature store, or a folder of .npz files.

    Raises:
        PainseqError: it is neither.
    """
    path = Path(path)
    if (path / "store.json").is_file():
        return FeatureStore(path)
    if any(path.glob("*.npz")):
        return NpzFolder(path)
    raise PainseqError(
        f"{path} is neither a feature store (it has no store.json) nor a folder of .npz files. Create a store with "
        "`painseq extract`."
    )
