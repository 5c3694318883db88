"""`DataOptions`: the options of every data set, such as labels, split and view."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from painseq.data.augment import Augment
from painseq.data.datasets import FrameWindow
from painseq.data.normalisation import Normalise
from painseq.data.protocols import SplitOptions
from painseq.data.streams import Stream, as_streams
from painseq.errors import PainseqError
from painseq.faces import FaceCrops
from painseq.records import MAX_FPS


@dataclass(frozen=True)
class DataOptions:
    """Options of every data set.

    Args:
        labels: name of a label scheme of the data set; "native" for one class per native label; the classes in order
            of pain as name -> native labels, or ranges of numbers such as "1..3" and ">0..3"; or for regression the
            name of a scale ("pspi", "vas"), or a range of numbers such as "0..10".
        split: how subjects are split into training, validation and test.
        view: "features" of a feature store, or "pixels": crops, from a store of `Pixels` or from the videos.
        store: folder written by `painseq extract` (for features also its export, a folder of .npz).
        face: how faces are found and cropped, if videos are read.
        fps: frames per second to sample, if videos are read; unset is every frame. With a store, a value given here
            must equal the store's.
        streams: inputs of the head for each frame, concatenated in this order: "cnn" (the extractor's features),
            "landmarks" (of the face track, normalised), "action_units" (tables of OpenFace 2, py-feat or LibreFace), or
            a stream with arguments, such as `painseq.data.streams.StoreStream` (of a second store). Landmarks need a
            locator that finds them.
        action_units: folder of the tables, `<video's path without suffix>.csv`, for the stream `action_units`;
            unset: each table is next to its video.
        normalise: how each person's features are normalised: "none"; "subject": each column to mean 0 and standard
            deviation 1 over all frames of the person's clips in the data set, which uses clips that are scored, but no
            label (transductive); "baseline": the mean frame of the person's clips without pain is subtracted. See also
            `PainClassifier`'s normalise, for all people alike.
        baseline_clips: number of pain-free clips of each subject for "baseline", by default 1. They are excluded from
            training and evaluation.
        frames: train on single frames of this time window of each clip, instead of whole clips.
        balance: sample training items so that classes, and subjects within a class, occur equally often.
        augment: augment the crops of training clips; not possible with cached features.
        batch_size: items per batch, over all training processes.
        num_workers: processes that read crops; not needed for features.
        seed: seed of the order of the training items, and of their augmentation.
    """

    labels: str | dict[str, list[str | int | float]] = "three"
    split: SplitOptions = field(default_factory=SplitOptions)
    view: Literal["features", "pixels"] = "features"
    store: Path | None = None
    face: FaceCrops | None = None
    fps: float | None = None
    streams: tuple[str | Stream, ...] = ("cnn",)
    action_units: Path | None = None
    normalise: Normalise = "none"
    baseline_clips: int | None = None
    frames: FrameWindow | None = None
    balance: bool = False
    augment: Augment | None = None
    batch_size: int = 32
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        streams = as_streams(self.streams, self.action_units)
        if self.action_units is not None and "action_units" not in self.streams:
            raise PainseqError(
                f"action_units is the folder {self.action_units}, but streams is {[s.name for s in streams]}. Add "
                "action_units to streams by its short name, or leave the folder out."
            )
        fixed = [stream.name for stream in streams if not stream.can_mirror]
        if fixed and self.augment is not None and self.augment.flip:
            raise PainseqError(
                f"augment.flip is {self.augment.flip}, but the stream {fixed[0]!r} cannot be mirrored. Set flip to 0, "
                "or leave the stream out."
            )
        self._check_normalise()
        if self.augment is not None and self.view == "features":
            raise PainseqError(
                "augment needs crops: the features in a store cannot be augmented. Leave augment out, or train on "
                "crops: --data.options.view pixels."
            )
        if self.batch_size < 1:
            raise PainseqError(f"batch_size is {self.batch_size}; it must be 1 or more.")
        if self.num_workers < 0:
            raise PainseqError(f"num_workers is {self.num_workers}; it must be 0 or more.")
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise PainseqError(f"fps is {self.fps}; it must be more than 0 and at most {MAX_FPS}.")

    @property
    def set_aside(self) -> int:
        """Number of pain-free clips of each subject that are set aside as its baseline."""
        if self.normalise != "baseline":
            return 0
        return 1 if self.baseline_clips is None else self.baseline_clips

    def _check_normalise(self) -> None:
        if self.normalise not in get_args(Normalise):
            raise PainseqError(
                f"normalise is {self.normalise!r}; for each person's features it must be one of "
                f"{', '.join(get_args(Normalise))}. `train`, by all training subjects, is an option of the model: "
                'PainClassifier(normalise="train") (command line: --model.normalise train).'
            )
        if self.baseline_clips and self.normalise != "baseline":
            raise PainseqError(
                f"baseline_clips is {self.baseline_clips}, but normalise is {self.normalise!r}. Write normalise: "
                f"baseline beside it (command line: --data.options.normalise baseline --data.options.baseline_clips "
                f"{self.baseline_clips}), or leave baseline_clips out."
            )
        if self.normalise == "baseline" and self.set_aside < 1:
            raise PainseqError(f"baseline_clips is {self.baseline_clips}; it must be 1 or more.")
        if self.normalise != "none" and self.view == "pixels":
            raise PainseqError(
                f"normalise is {self.normalise!r}, which changes features, so it needs a feature store: "
                "--data.options.view features."
            )
