"""`ModelRecord`: the metadata of a model, stored in its checkpoint with the weights. Needs no torch."""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from reprlib import repr as shortened
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from painseq import __version__
from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.records import MAX_FPS, THE_EXTRACTOR, Seen
from painseq.spec import Spec, names_weights, plain, with_public_paths

if TYPE_CHECKING:
    from painseq.model.objective import Objective

FORMAT = 3
MAX_SIZE = 2**24
"""Largest size of a frame's features, in each dimension; a greater one is damage."""
Loss = Literal["cross_entropy", "corn", "mse"]
Step = Literal["subject", "baseline", "train"]
NORMALISED: dict[Step, str] = {
    "subject": "by each person's own frames, without labels (transductive)",
    "baseline": "relative to each person's frames without pain",
    "train": "by mean and standard deviation of the training subjects' frames",
}
"""What reports say of each step."""
TRANSDUCTIVE = (
    "TRANSDUCTIVE: features are standardised by each person's own clips, without labels but with the scored clips. "
    "The scores hold where several clips of a person are at hand, not for a single video."
)
"""What reports say of features that are normalised by subject."""
R = TypeVar("R")


@dataclass(frozen=True)
class SplitRecord:
    """How the subjects were split; in a leaky split a subject can be in several parts.

    Args:
        protocol: split protocol; ends in _LEAKY if clips were split, not subjects.
        train: training subjects.
        validation: validation subjects, used for early stopping.
        test: test subjects, held out.
    """

    protocol: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class StreamRecord:
    """One of the streams that a head is given.

    Args:
        name: see `painseq.data.streams`.
        identity: plain data that define its rows; empty if the name and the rest of the record define them.
    """

    name: str
    identity: Spec


@dataclass(frozen=True)
class DataRecord:
    """The data that a model was fitted on.

    Args:
        name: name of the data set.
        labels: name of the label scheme, or its classes, as in `DataOptions`.
        fingerprint: fingerprint of the manifest.
        split: training, validation and test subjects.
        train_counts: training clips per class, in the order of the classes.
        shuffled_labels: the seed, if labels were shuffled as a control.
    """

    name: str
    labels: object
    fingerprint: str
    split: SplitRecord
    train_counts: dict[str, int]
    shuffled_labels: int | None

    def to_dict(self) -> Spec:
        """Return plain data for JSON."""
        return _to_dict(self)


@dataclass(frozen=True)
class ThresholdRecord:
    """A tuned decision threshold of a model of two classes, and how it was found.

    Args:
        value: a clip whose probability of the second class is at least this has the second class as its label.
        metric: what it was chosen for: "weighted_f1", "balanced_accuracy" or "sensitivity=SHARE".
        inner_folds: number of folds of the training subjects, each predicted by a model fitted without it.
        subjects: number of training subjects with such a prediction.
        clips: number of their clips.
        score: the metric's score at the threshold, on these clips.
        score_at_half: the same at 0.5.
        replaces_votes: whether the head votes frame by frame; the label then follows the mean probability of the
            frames, not their votes.
    """

    value: float
    metric: str
    inner_folds: int
    subjects: int
    clips: int
    score: float
    score_at_half: float
    replaces_votes: bool

    def to_dict(self) -> Spec:
        """Return plain data for JSON."""
        return _to_dict(self)

    def __str__(self) -> str:
        """Describe the threshold in one line, for reports."""
        votes = "; the votes of frames are not used" if self.replaces_votes else ""
        return (
            f"{self.value:.4f}, chosen for {self.metric} on out-of-fold probabilities of {self.clips} clips of "
            f"{self.subjects} training subjects in {self.inner_folds} folds ({self.metric.partition('=')[0]} "
            f"{self.score:.3f}, and {self.score_at_half:.3f} at 0.5){votes}"
        )


@dataclass(frozen=True)
class CalibrationRecord:
    """How well the probabilities agreed with the truth, on validation clips.

    The epoch was chosen on the same clips, so for other people the agreement is rather worse.

    Args:
        ece: expected calibration error of the most probable class (15 bins); 0 to 1, lower is better.
        brier: sum over classes of the squared error, mean over clips; 0 to 2, lower is better.
        overconfidence: mean probability of the most probable class minus its accuracy; below 0: underconfident.
        subjects: number of validation subjects.
        clips: number of their clips.
    """

    ece: float
    brier: float
    overconfidence: float
    subjects: int
    clips: int

    def to_dict(self) -> Spec:
        """Return plain data for JSON."""
        return _to_dict(self)

    def __str__(self) -> str:
        """Describe the measures in one line."""
        excess = f"{100 * abs(self.overconfidence):.1f} points too {'high' if self.overconfidence > 0 else 'low'}"
        return (
            f"the most probable class's probability is on average {excess}; calibration error {self.ece:.3f}, Brier "
            f"score {self.brier:.3f} ({self.clips} clips of {self.subjects} validation subjects, on whom the epoch was "
            "chosen)"
        )


@dataclass(frozen=True)
class ModelRecord:
    """Metadata needed to use a model, and how it was fitted.

    A field without a default must be in a checkpoint. A field added later gets a default, which applies to older
    checkpoints that lack it.

    Args:
        class_names: in order of pain; empty for a regression model.
        scale: the scale of a regression model's numbers; None for a classifier.
        head: the head's specification; see `painseq.spec`.
        loss: name of the loss.
        in_shape: shape of one frame, as the head takes it.
        extractor: the extractor's specification and fingerprint; None for features of unknown origin.
        face: specification and identity of the face crop; None for features of unknown origin.
        fps: sampled frames per second; None is every frame.
        streams: the streams that the head is given, concatenated.
        baseline_clips: number of pain-free clips per subject that features are relative to; 0: no baseline.
        normalise: how features are normalised, in this order: by each person's own frames ("subject", or "baseline",
            relative to those without pain), and by the training subjects' mean and standard deviation ("train").
        train_prior: share of each class in training, as the loss saw it; empty for a regression model.
        data: the data that the model was fitted on.
        started_from: sources of the head's initial weights.
        fitted_on: subjects that the head was fitted on, including those of models that it started from, as
            "data set/subject".
        extractor_trained_on: subjects that the extractor was trained on before, as "data set/subject".
        validation_seen_by_extractor: validation subjects among these.
        validation_seen_by_start: validation subjects that a model which the head started from was fitted on.
        painseq: version of painseq that fitted the model.
        unknown_people: names of weights, of the extractor or of models that the head started from, whose training
            subjects are not known; empty if they are known for all.
        fitted_videos: short digests of the training and validation videos of the head, and of models that it started
            from; empty if they are not known.
        threshold: tuned decision threshold of two classes; None: the most probable class, or the frames' votes, decide.
        generated: whether the head was fitted on generated faces alone (true) or on none (false); None if it is not
            known, or if the head started from another model.
        calibration: how well the probabilities agreed with the truth on validation clips, at the training data's mix
            of classes; None if it was not measured (folds, models of a scale, no validation subjects of its own).
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
    unknown_people: tuple[str, ...] = ()
    fitted_videos: tuple[str, ...] = ()
    threshold: ThresholdRecord | None = None
    generated: bool | None = None
    normalise: tuple[Step, ...] = ()
    calibration: CalibrationRecord | None = None

    @property
    def by_person(self) -> Literal["none", "subject", "baseline"]:
        """How features are normalised by each person's own frames."""
        return "subject" if "subject" in self.normalise else "baseline" if "baseline" in self.normalise else "none"

    @property
    def transductive(self) -> bool:
        """Whether a person's prediction depends on that person's other clips, without their labels."""
        return self.by_person == "subject"

    @property
    def seen(self) -> Seen:
        """Whom head and extractor have seen."""
        people = frozenset({*self.fitted_on, *self.extractor_trained_on})
        return Seen(people, self.unknown_people, frozenset(self.fitted_videos))

    @property
    def objective(self) -> Objective:
        """The objective that the head was fitted with; needs torch.

        Raises:
            PainseqError: a loss for classes with a scale, or the reverse.
        """
        from painseq.model.objective import objective_of

        return objective_of(self.loss, self.class_names, self.scale)

    @property
    def sampling(self) -> Spec:
        """The sampling, as in a store's specification."""
        return {"fps": self.fps}

    def to_dict(self) -> Spec:
        """Return plain data with a format number, for `from_dict`."""
        return {"format": FORMAT, **_to_dict(self)}

    @classmethod
    def from_dict(cls, value: object) -> ModelRecord:
        """Read and check the output of `to_dict`; unknown keys are ignored.

        Raises:
            PainseqError: another format, a missing key, or a value of the wrong type.
        """
        found = value.get("format") if isinstance(value, dict) else None
        if not isinstance(value, dict) or type(found) is not int or found != FORMAT:
            raise PainseqError(
                f"not a checkpoint of this version of painseq: the format of its record is {shortened(found)}, "
                f"not {FORMAT}. Read it with the version that wrote it, or refit the model with this one."
            )
        try:
            record: ModelRecord = read_typed(cls, value, "")
        except RecursionError as error:
            raise PainseqError("damaged: its record is nested too deeply.") from error
        if "normalise" not in value and record.baseline_clips:
            record = replace(record, normalise=("baseline",))
        _check_values(record)
        return record if "unknown_people" in value else replace(record, unknown_people=_unknown_people(record))


def _unknown_people(record: ModelRecord) -> tuple[str, ...]:
    """Return the weights of an older record whose training subjects are not known, since the record lists none."""
    silent = record.extractor is None or (names_weights(record.extractor) and not record.extractor_trained_on)
    started = [source for source in record.started_from if not source.endswith(".ckpt") or "://" in source]
    return (*([THE_EXTRACTOR] if silent else []), *started)


def _to_dict(record: DataRecord | ThresholdRecord | CalibrationRecord | ModelRecord) -> Spec:
    written = plain(asdict(record))
    assert isinstance(written, dict)
    return written


def read_typed(kind: type[R], value: dict[Any, Any], prefix: str) -> R:
    """Build a dataclass from a dict of its fields, at any depth, with their types checked; unknown keys are ignored.

    Raises:
        PainseqError: a missing key, or a value of the wrong type; the text goes on from "FILE is".
    """
    hints = get_type_hints(kind)
    expected = [field for field in fields(kind) if field.name in value or field.default is MISSING]  # type: ignore[arg-type]
    missing = [f"{prefix}{field.name}" for field in expected if field.name not in value]
    if missing:
        raise PainseqError(f"damaged: its record has no {', '.join(missing)}.")
    return kind(
        **{field.name: _typed(hints[field.name], value[field.name], f"{prefix}{field.name}") for field in expected}
    )


def _check_values(record: ModelRecord) -> None:
    """Refuse values of the right type that no model has."""
    names, prior = record.class_names, record.train_prior
    distinct, measured = len(set(names)) == len(names), record.calibration
    for key, is_right, wanted in (
        ("class_names", distinct and bool(names) == (record.scale is None), "different names, or none beside a scale"),
        (
            "train_prior",
            len(prior) == len(names) and all(share > 0 for share in prior),
            "a positive share of each class",
        ),
        ("fps", record.fps is None or 0 < record.fps <= MAX_FPS, f"above 0 and at most {MAX_FPS}"),
        ("in_shape", all(0 < size <= MAX_SIZE for size in record.in_shape), f"sizes from 1 to {MAX_SIZE}"),
        (
            "baseline_clips",
            record.baseline_clips >= 0 and bool(record.baseline_clips) == (record.by_person == "baseline"),
            "above 0 with the normalisation baseline, else 0",
        ),
        (
            "threshold",
            record.threshold is None
            or (len(names) == 2 and record.loss == "cross_entropy" and 0 <= record.threshold.value <= 1),
            "from 0 to 1, and of a model of two classes fitted with cross entropy",
        ),
        (
            "calibration",
            measured is None
            or (0 <= measured.ece <= 1 and 0 <= measured.brier <= 2 and 0 < measured.subjects <= measured.clips),
            "errors of probabilities, and numbers of subjects and clips",
        ),
    ):
        if not is_right:
            raise PainseqError(f"damaged: {key} is {shortened(getattr(record, key))}, but must be {wanted}.")


def _typed(kind: Any, value: object, key: str) -> Any:
    """Check a value from a file and convert it to the type of its field."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is object:
        _check_plain(value, key)
        return value
    if origin is UnionType:
        return None if value is None else _typed(next(arg for arg in args if arg is not NoneType), value, key)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_typed(args[0], item, f"{key}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict) and all(isinstance(name, str) for name in value):
        typed = {name: _typed(args[1], item, f"{key}.{name}") for name, item in value.items()}
        return with_public_paths(typed)
    if is_dataclass(kind) and isinstance(value, dict):
        return read_typed(kind, value, f"{key}.")  # type: ignore[arg-type]
    if (
        kind is float
        and isinstance(value, int | float)
        and type(value) is not bool
        and abs(value) <= sys.float_info.max
    ):
        return float(value)
    if origin is Literal and isinstance(value, str) and value in args:
        return value
    if isinstance(kind, type) and type(value) is kind and kind is not float:
        return value
    raise PainseqError(f"damaged: {key} is {shortened(value)}, but must be {_described(kind)}.")


def _check_plain(value: object, key: str) -> None:
    """Refuse numbers that JSON cannot hold, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PainseqError(f"damaged: {key} is {value}, but must be a finite number.")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_plain(item, f"{key}.{shortened(name).strip(chr(39))}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{key}[{index}]")


def _described(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple:
        return f"a list of {getattr(args[0], '__name__', None) or _described(args[0])}"
    if kind is float:
        return "a finite number"
    return "a dictionary" if origin is dict or is_dataclass(kind) else f"a value of type {kind.__name__}"
