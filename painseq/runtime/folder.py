"""`ExportedRecord`: the content of `model.json`, which says what an exported folder holds. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Literal

from painseq.download import sha256_of
from painseq.errors import PainseqError, first_few
from painseq.faces import FaceCrops
from painseq.files import parse_json, write_json
from painseq.model.record import MAX_SIZE, ModelRecord, read_typed
from painseq.spec import Spec, plain

FORMAT = 1
MODEL = "model.json"
EXTRACTOR, OPENVINO_EXTRACTOR = "extractor.onnx", "extractor.xml"
"""The extractor for onnxruntime; for OpenVINO, whose weights are in the .bin file of the same name."""
HEAD, HEAD_STEP = "head.onnx", "head_step.onnx"
MAX_MODEL_BYTES = 64 * 2**20
"""A larger `model.json` is damage."""


@dataclass(frozen=True)
class FileRecord:
    """A file of an exported folder.

    Args:
        sha256: digest of its content, in hex.
        bytes: its size.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ExtractorRecord:
    """How the extractor of an exported folder runs.

    Args:
        precision: precision of its convolutions and dense layers.
        engine: "onnxruntime" runs `EXTRACTOR`, "openvino" runs `OPENVINO_EXTRACTOR`.
    """

    precision: Literal["fp32", "int8", "bf16"]
    engine: Literal["onnxruntime", "openvino"]


@dataclass(frozen=True)
class HeadRecord:
    """What the head of an exported folder takes and gives.

    Args:
        level: "frame": a prediction a frame, and their vote; "video": one a clip.
        max_frames: longest clip that it takes; None: any.
        in_shape: shape of one frame, all streams together.
    """

    level: Literal["frame", "video"]
    max_frames: int | None
    in_shape: tuple[int, ...]


@dataclass(frozen=True)
class StateRecord:
    """The state that `HEAD_STEP` carries from frame to frame.

    Args:
        state: name of a tensor -> its shape without the batch; zero at the start. The graph's outputs have the same
            names with "next_" in front.
    """

    state: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class SourceRecord:
    """The checkpoint that was exported.

    Args:
        name: name of its file.
        sha256: digest of its content, in hex.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class ChangeRecord:
    """What int8 changed in a score of the validation clips.

    Args:
        fp32: the score in float32; None if it is not defined.
        int8: the score in int8; None if it is not defined.
        change: int8 minus fp32.
        low: lower limit of the 95 % interval of the change; None if there is none.
        high: its upper limit.
        subjects: number of subjects that the interval is over.
        method: how the interval was found.
        note: a caution about the interval, or why there is none.
    """

    fp32: float | None
    int8: float | None
    change: float | None
    low: float | None
    high: float | None
    subjects: int
    method: str
    note: str | None


@dataclass(frozen=True)
class Int8Record:
    """How an extractor was quantised, and what that changed for validation subjects.

    Args:
        calibrated_on: training subjects whose crops it was calibrated on, as "data set/subject".
        frames: number of these crops.
        measured_on: validation subjects whose clips were predicted in both precisions, as "data set/subject".
        clips: number of these clips.
        floor: smallest agreement that was accepted.
        agreement: of a classifier the share of clips with the same label in fp32 and int8; of a regression model Lin's
            concordance correlation of the two values.
        mean_change: mean absolute change of a probability, or of a regression model's value.
        largest_change: the largest of them.
        balanced_accuracy: change of the balanced accuracy; None for a regression model, or without known labels.
        changed_lead: among the clips whose label changed, the largest lead that the most probable class had in fp32
            over the next: small if only near ties changed. None if no label changed, for a regression model, and with
            a tuned threshold.
    """

    calibrated_on: tuple[str, ...]
    frames: int
    measured_on: tuple[str, ...]
    clips: int
    floor: float
    agreement: float
    mean_change: float
    largest_change: float
    balanced_accuracy: ChangeRecord | None
    changed_lead: float | None = None


@dataclass(frozen=True)
class _Fields:
    """The fields of `model.json` whose types say what is right."""

    files: dict[str, FileRecord]
    extractor: ExtractorRecord | None
    head: HeadRecord
    step: StateRecord | None
    source: SourceRecord
    versions: dict[str, str]
    face: dict[str, object] | None
    int8: Int8Record | None
    prior: dict[str, float] | None = None


@dataclass(frozen=True)
class ExportedRecord:
    """The content of `model.json`.

    Args:
        record: the model's record, as in its checkpoint.
        face: specification of the face crops, whose locator names files of the folder by their bare names; None for
            features of unknown origin.
        files: name -> digest and size, of every file but `model.json` itself.
        extractor: how the extractor runs; None if the head takes crops, or the model no pictures.
        head: what the head takes and gives.
        step: the state of the head for one frame at a time; None if it takes whole clips only.
        source: the checkpoint.
        versions: package -> version that wrote the folder.
        int8: how the extractor was quantised, and what that changed; None without quantisation.
        prior: mix of classes that the probabilities are corrected for; None: that of the training data.
    """

    record: ModelRecord
    face: Spec | None
    files: Mapping[str, FileRecord]
    extractor: ExtractorRecord | None
    head: HeadRecord
    step: StateRecord | None
    source: SourceRecord
    versions: Mapping[str, str]
    int8: Int8Record | None = None
    prior: Mapping[str, float] | None = None

    def to_dict(self) -> Spec:
        """Return plain data for JSON."""
        extractor, step = self.extractor, self.step
        return {
            "format": FORMAT,
            "record": self.record.to_dict(),
            "face": self.face,
            "files": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in self.files.items()},
            "extractor": extractor and {"precision": extractor.precision, "engine": extractor.engine},
            "head": {
                "level": self.head.level,
                "max_frames": self.head.max_frames,
                "in_shape": list(self.head.in_shape),
            },
            "step": step and {"state": {name: list(shape) for name, shape in step.state.items()}},
            "int8": self.int8 and plain(asdict(self.int8)),
            "prior": None if self.prior is None else dict(self.prior),
            "source": {"name": self.source.name, "sha256": self.source.sha256},
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, value: object) -> ExportedRecord:
        """Read and check the output of `to_dict`; unknown keys are ignored.

        Raises:
            PainseqError: another format, a missing key, a value of the wrong type, or files that do not fit together.
        """
        found = value.get("format") if isinstance(value, dict) else None
        if not isinstance(value, dict) or type(found) is not int or found != FORMAT:
            raise PainseqError(
                f"not a model exported for this version of painseq: its format is {found!r}, not {FORMAT}. Export the "
                "checkpoint again with this version."
            )
        fields: _Fields = read_typed(_Fields, value, "")
        record = ModelRecord.from_dict(value.get("record"))
        exported = cls(
            record,
            fields.face,
            fields.files,
            fields.extractor,
            fields.head,
            fields.step and StateRecord({name: tuple(shape) for name, shape in fields.step.state.items()}),
            fields.source,
            fields.versions,
            fields.int8,
            fields.prior,
        )
        exported._check()
        return exported

    @property
    def extractor_file(self) -> str | None:
        """Name of the extractor's file; None without an extractor."""
        if self.extractor is None:
            return None
        return EXTRACTOR if self.extractor.engine == "onnxruntime" else OPENVINO_EXTRACTOR

    def write(self, folder: Path) -> None:
        """Write `model.json`, atomically: after all other files, since a folder without it is unfinished."""
        self._check()
        write_json(folder / MODEL, self.to_dict())

    def face_crops(self, folder: Path) -> FaceCrops | None:
        """Build the face crops, with the files of the locator in this folder."""
        if self.face is None:
            return None
        args = self.face.get("init_args")
        locator = args.get("locator") if isinstance(args, Mapping) else None
        settings = locator.get("init_args", {}) if isinstance(locator, Mapping) else None
        if not isinstance(args, Mapping) or not isinstance(locator, Mapping) or not isinstance(settings, Mapping):
            raise PainseqError(f"{folder / MODEL} is damaged: face is not a specification of face crops.")
        placed = {
            name: str(folder / value) if isinstance(value, str) and value in self.files else value
            for name, value in settings.items()
        }
        face = {
            "class_path": self.face.get("class_path"),
            "init_args": {**args, "locator": {**locator, "init_args": placed}},
        }
        return FaceCrops.from_spec(face)

    def _check(self) -> None:
        """Refuse names outside of the folder, and models whose files are not listed."""
        outside = [name for name in self.files if Path(name).name != name or name in ("", ".", "..", MODEL)]
        if outside:
            raise PainseqError(f"damaged: {outside[0]!r} is not the name of a file of the folder.")
        needed = [HEAD, *self._extractor_files(), *([HEAD_STEP] if self.step else []), *self._locator_files()]
        unlisted = [name for name in needed if name not in self.files]
        if unlisted:
            raise PainseqError(f"damaged: it lists no {', '.join(unlisted)}.")
        if self.head.in_shape != self.record.in_shape:
            raise PainseqError(
                f"damaged: the head takes frames of shape {self.head.in_shape}, the record tells of "
                f"{self.record.in_shape}."
            )
        if self.head.max_frames is not None and self.head.max_frames < 1:
            raise PainseqError(f"damaged: head.max_frames is {self.head.max_frames}, but must be 1 or more.")
        for name, shape in (self.step.state if self.step else {}).items():
            if min(shape, default=1) < 1 or prod(shape) > MAX_SIZE:
                raise PainseqError(f"damaged: step.state.{name} is {shape}; it must have 1 to {MAX_SIZE} numbers.")

    def _extractor_files(self) -> tuple[str, ...]:
        name = self.extractor_file
        if name is None:
            return ()
        return (name, Path(name).with_suffix(".bin").name) if name == OPENVINO_EXTRACTOR else (name,)

    def _locator_files(self) -> tuple[str, ...]:
        """Return all texts among the arguments of the locator, which can only name its files.

        Raises:
            PainseqError: face crops with tracks of other videos.
        """
        args = {} if self.face is None else self.face.get("init_args")
        locator = args.get("locator") if isinstance(args, Mapping) else None
        settings = locator.get("init_args") if isinstance(locator, Mapping) else None
        if isinstance(args, Mapping) and args.get("tracks") is not None:
            raise PainseqError(f"damaged: face.tracks is {args['tracks']!r}, but must be null.")
        values = settings.values() if isinstance(settings, Mapping) else ()
        return tuple(value for value in values if isinstance(value, str))


def measured_files(folder: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """Return digest and size of files of a folder, for `ExportedRecord.files`."""
    return {name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names}


def model_file(folder: Path) -> Path:
    """Return the path of an exported folder's `model.json`.

    Raises:
        PainseqError: the folder is missing, or has none.
    """
    path = folder / MODEL
    if not path.is_file():
        found = "an exported model" if folder.is_dir() else "a folder"
        raise PainseqError(
            f"{folder} is not {found}: it has no {MODEL}. `painseq export` writes it last; run it again. Of the folder "
            "of a run, give best.ckpt."
        )
    return path


def read_folder(folder: Path) -> ExportedRecord:
    """Read an exported folder's `model.json`, and check every file that it lists by size and sha256.

    Raises:
        PainseqError: the folder is missing, unfinished, of another format, or a file was changed.
    """
    path = model_file(folder)
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise PainseqError(f"{path} is damaged: it has {path.stat().st_size} bytes.")
    try:
        exported = ExportedRecord.from_dict(parse_json(path.read_bytes()))
    except ValueError as error:
        raise PainseqError(f"{path} is damaged: {error}. Export the checkpoint again.") from error
    except PainseqError as error:
        raise PainseqError(f"{path} is {error}") from error
    check_files(folder, exported.files)
    return exported


def check_files(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Check files of a folder by size and sha256.

    Raises:
        PainseqError: files are missing, or have another content; names them.
    """
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise PainseqError(f"{folder} is incomplete: {first_few(missing)} missing. Export the checkpoint again.")
    changed = [
        name
        for name, file in files.items()
        if (folder / name).stat().st_size != file.bytes or sha256_of(folder / name) != file.sha256
    ]
    if changed:
        raise PainseqError(
            f"{folder}: {first_few(changed)} changed since the export (another sha256). Export the checkpoint again."
        )
