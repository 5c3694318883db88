"""`ModelRecord`: what a checkpoint says of its model, beside the weights. Needs no torch."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from painseq import __version__
from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.spec import Spec, plain, with_public_paths

if TYPE_CHECKING:
    from painseq.model.objective import Objective

FORMAT = 3
Loss = Literal["cross_entropy", "corn", "mse"]
R = TypeVar("R")


@dataclass(frozen=True)
class SplitRecord:
    """How the subjects were divided; a subject can be in several parts of a leaky split.

    Args:
        protocol: how it was made; ends in _LEAKY where clips were divided, not subjects.
        train: subjects whose clips the weights were fitted to.
        validation: subjects that training was stopped early on.
        test: subjects who were held out.
    """

    protocol: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class StreamRecord:
    """One of the streams that a head takes of each frame.

    Args:
        name: see `painseq.data.streams`.
        identity: what its rows mean, as plain data; empty where the name and the rest of the record tell.
    """

    name: str
    identity: Spec


@dataclass(frozen=True)
class DataRecord:
    """What a model was fitted on.

    Args:
        name: of the data set.
        labels: name of the label scheme, or its classes, as `DataOptions` has it.
        fingerprint: of the manifest.
        split: who was trained on, stopped early on, held out.
        train_counts: training clips a class, in the order of the classes.
        shuffled_labels: the seed, where labels were shuffled as a control.
    """

    name: str
    labels: object
    fingerprint: str
    split: SplitRecord
    train_counts: dict[str, int]
    shuffled_labels: int | None

    def to_dict(self) -> Spec:
        """Plain data for JSON."""
        return _to_dict(self)


@dataclass(frozen=True)
class ModelRecord:
    """What one needs to know of a model to use it, and of how it was fitted.

    A field without a default must be in a checkpoint; one that is added later gets a default, which is what older
    checkpoints mean by not having it.

    Args:
        class_names: in order of pain; empty for a model of a scale.
        scale: the numbers that a regression model predicts; None for a model of classes.
        head: its specification; see `painseq.spec`.
        loss: name of the objective.
        in_shape: of one frame, as the head takes it.
        extractor: its specification and fingerprint; None for features of unknown origin.
        face: specification and identity of the face crop; None likewise.
        fps: sampled frames a second; None is every frame.
        streams: what the head takes of each frame, side by side.
        baseline_clips: how many clips without pain of each subject the features are relative to; 0: they are not.
        train_prior: share of each class in training, as the loss saw it; empty for a model of a scale.
        data: what it was fitted on.
        started_from: where the head's first weights came from.
        fitted_on: whom the head has seen, models that it started from included, as "data set/subject".
        extractor_trained_on: whom the extractor had seen before, likewise.
        validation_seen_by_extractor: subjects of early stopping among these.
        validation_seen_by_start: subjects of early stopping whom a model that the head started from had seen.
        painseq: the version that fitted it.
    """

    class_names: tuple[str, ...]
    scale: Scale | None
    head: Spec
    loss: Loss
    in_shape: tuple[int, ...]
    extractor: Spec | None
    face: Spec | None
    fps: float | None
    streams: tuple[StreamRecord, ...]
    baseline_clips: int
    train_prior: tuple[float, ...]
    data: DataRecord
    started_from: tuple[str, ...]
    fitted_on: tuple[str, ...]
    extractor_trained_on: tuple[str, ...]
    validation_seen_by_extractor: tuple[str, ...]
    validation_seen_by_start: tuple[str, ...]
    painseq: str = __version__

    @property
    def objective(self) -> Objective:
        """What the head was fitted for; needs torch.

        Raises:
            PainseqError: a loss of classes for a scale, or the other way round.
        """
        from painseq.model.objective import objective_of

        return objective_of(self.loss, self.class_names, self.scale)

    @property
    def sampling(self) -> Spec:
        """As a store's specification has it."""
        return {"fps": self.fps}

    def to_dict(self) -> Spec:
        """Plain data, with the number of its format; `from_dict` reads it."""
        return {"format": FORMAT, **_to_dict(self)}

    @classmethod
    def from_dict(cls, value: object) -> ModelRecord:
        """What `to_dict` wrote, checked, for it may come from elsewhere; a key that is not known is passed over.

        Raises:
            PainseqError: another format; a key that is missing, or whose value is not of its type.
        """
        found = value.get("format") if isinstance(value, dict) else None
        if not isinstance(value, dict) or found != FORMAT:
            raise PainseqError(
                f"not a checkpoint of this painseq: the format of its record is {found!r}, not {FORMAT}. A model of "
                "another version is read by that version; fit it anew to use it here."
            )
        record: ModelRecord = _read(cls, value, "")
        return record


def _to_dict(record: SplitRecord | DataRecord | ModelRecord) -> Spec:
    written = plain(asdict(record))
    assert isinstance(written, dict)
    return written


def _read(kind: type[R], value: dict[Any, Any], prefix: str) -> R:
    """A dataclass from a dict of its fields."""
    hints = get_type_hints(kind)
    wanted = [field for field in fields(kind) if field.name in value or field.default is MISSING]  # type: ignore[arg-type]
    missing = [f"{prefix}{field.name}" for field in wanted if field.name not in value]
    if missing:
        raise PainseqError(f"damaged: its record lacks {', '.join(missing)}.")
    return kind(
        **{field.name: _typed(hints[field.name], value[field.name], f"{prefix}{field.name}") for field in wanted}
    )


def _typed(kind: Any, value: object, key: str) -> Any:
    """A value from a file as the type of its field."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is object:
        return value
    if origin is UnionType:
        return None if value is None else _typed(next(arg for arg in args if arg is not NoneType), value, key)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_typed(args[0], item, f"{key}[{place}]") for place, item in enumerate(value))
    if origin is dict and isinstance(value, dict) and all(isinstance(name, str) for name in value):
        typed = {name: _typed(args[1], item, f"{key}.{name}") for name, item in value.items()}
        return with_public_paths(typed)
    if is_dataclass(kind) and isinstance(value, dict):
        return _read(kind, value, f"{key}.")  # type: ignore[arg-type]
    if kind is float and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if (origin is Literal and value in args) or (isinstance(kind, type) and type(value) is kind):
        return value
    raise PainseqError(f"damaged: {key} is {value!r}, and should be {_described(kind)}.")


def _described(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple:
        return f"a list of {args[0].__name__}"
    return "a table of keys" if origin is dict or is_dataclass(kind) else f"a value of type {kind.__name__}"
