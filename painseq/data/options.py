"""What every data set is asked for: labels, split, view."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from painseq.data.augment import Augment
from painseq.data.datasets import FrameWindow
from painseq.data.protocols import SplitOptions
from painseq.data.streams import Stream, as_streams
from painseq.errors import PainseqError
from painseq.faces import FaceCrops


@dataclass(frozen=True)
class DataOptions:
    """What every data set is asked for.

    Args:
        labels: name of a label scheme of the data set; "native" for a class a label; the classes themselves, in
            order of pain: name -> native labels, or ranges of numbers such as "1..3" and ">0..3"; or for regression a
            scale by name ("pspi", "vas"), or the range of the labels' numbers, such as "0..10".
        split: who is trained on, stopped early on, scored.
        view: "features" of a feature store, or "pixels": crops, from a store of `Pixels` or from the videos.
        store: folder that `painseq extract` wrote (or, for features, a folder of npz that it exported).
        face: how faces are found and cropped, where videos are read.
        fps: frames a second to sample, where videos are read; unset is every frame. With a store, a value
            given here must be the store's.
        streams: what a head is given of each frame, side by side in this order: "cnn" (the extractor's features),
            "landmarks" (of the face track, normalised), "action_units" (of OpenFace's tables), or a stream with
            arguments, such as `painseq.data.streams.StoreStream` (of a second store). Landmarks need a locator that
            finds them.
        action_units: folder of OpenFace's tables, `<video's path without suffix>.csv` below it; unset: each table lies
            beside its video. For the stream of that name.
        baseline_clips: set aside this many clips without pain of each subject, and subtract their mean frame from all
            features of that subject. They are neither trained on nor scored, since their label has been used. 0: off.
        frames: train on single frames of this part of a clip, instead of whole clips.
        balance: draw training items so that classes, and subjects within a class, come equally often.
        augment: vary the crops of training clips; not possible with cached features.
        batch_size: items a batch, over all processes that train.
        num_workers: processes that read crops; features need none.
        seed: of the order of the training items, and of their augmentation.
    """

    labels: str | dict[str, list[str | int | float]] = "three"
    split: SplitOptions = field(default_factory=SplitOptions)
    view: Literal["features", "pixels"] = "features"
    store: Path | None = None
    face: FaceCrops | None = None
    fps: float | None = None
    streams: tuple[str | Stream, ...] = ("cnn",)
    action_units: Path | None = None
    baseline_clips: int = 0
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
                f"action_units names a folder ({self.action_units}), but streams is {[s.name for s in streams]}. Add "
                "action_units to streams by its short name, or leave the folder out."
            )
        fixed = [stream.name for stream in streams if not stream.can_mirror]
        if fixed and self.augment is not None and self.augment.flip:
            raise PainseqError(
                f"augment.flip is {self.augment.flip}, but the stream {fixed[0]!r} does not tell what mirrored crops "
                "give. Set flip to 0, or leave the stream out."
            )
        if self.baseline_clips < 0:
            raise PainseqError(f"baseline_clips is {self.baseline_clips}; it must be 0 or more.")
        if self.baseline_clips and self.view == "pixels":
            raise PainseqError(
                "baseline_clips subtracts features, so it needs a feature store: --data.options.view features."
            )
        if self.augment is not None and self.view == "features":
            raise PainseqError(
                "Cached features cannot be augmented: what the extractor makes of other crops is not in the store. "
                "Leave `augment` out, or train on crops: --data.options.view pixels."
            )
        if self.batch_size < 1:
            raise PainseqError(f"batch_size is {self.batch_size}; it must be 1 or more.")
        if self.num_workers < 0:
            raise PainseqError(f"num_workers is {self.num_workers}; it must be 0 or more.")
        if self.fps is not None and not self.fps > 0:
            raise PainseqError(f"fps is {self.fps}; it must be more than 0.")
