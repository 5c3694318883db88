"""`Int8` and `OpenVino`: how the extractor of an exported model runs; and the crops that int8 needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from painseq.batch import Sample
from painseq.data.datamodule import PainDataModule
from painseq.data.splits import Split
from painseq.errors import PainseqError
from painseq.model import PainModel
from painseq.records import Clip, Part
from painseq.studies.explained_clips import balanced
from painseq.studies.predict_part import check_fits

CLIPS_OF_A_PERSON = 4
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Int8:
    """Run the extractor in 8-bit integers, calibrated on training subjects and measured on validation subjects.

    Both are those of the model's own fit, whatever the split of `data`; test subjects are not read.

    Args:
        data: the data set that the model was fitted on, as crops: the view is "pixels", with a store of `Pixels` or
            without a store, to read the videos.
        people: number of training subjects to calibrate on, at most.
        frames: number of their crops, at most; spread over subjects, classes, clips and time.
        clips: number of validation clips to measure on, at most; spread over classes and subjects.
        floor: smallest agreement with fp32 that is accepted: of a classifier the share of clips with the same label, of
            a regression model Lin's concordance correlation of the values.

    Raises:
        PainseqError: a number below 1, or a floor outside 0..1.

    Example:
        >>> export("runs/lstm/best.ckpt", "exported/lstm", extractor=Int8(data))
    """

    data: PainDataModule
    people: int = 12
    frames: int = 240
    clips: int = 200
    floor: float = 0.95

    def __post_init__(self) -> None:
        for name in ("people", "frames", "clips"):
            if getattr(self, name) < 1:
                raise PainseqError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0 <= self.floor <= 1:
            raise PainseqError(f"floor is {self.floor}; it must be from 0 to 1.")


@dataclass(frozen=True)
class OpenVino:
    """Run the extractor by OpenVINO, on the CPU.

    Args:
        precision: "fp32"; "bf16", which multiplies in bfloat16 where the processor can; or `Int8`.
    """

    precision: Literal["fp32", "bf16"] | Int8 = "fp32"


@dataclass(frozen=True, eq=False)
class Calibration:
    """Crops that the ranges of activations are measured on.

    Args:
        crops: (N, 3, S, S) uint8.
        people: their subjects.
    """

    crops: NDArray[np.uint8]
    people: tuple[str, ...]


def int8_of(extractor: Int8 | OpenVino | None) -> Int8 | None:
    """Return the settings of int8, if the extractor is to be quantised."""
    found = extractor.precision if isinstance(extractor, OpenVino) else extractor
    return found if isinstance(found, Int8) else None


def crops_of_model(model: PainModel, data: PainDataModule) -> PainDataModule:
    """Return the data set of a model as whole clips of crops, in the model's own split.

    Raises:
        PainseqError: the data hold no crops, or are not those that the model was fitted on; the model has no
            validation subjects, was fitted on a leaky split, or normalises features by person.
    """
    record, fit = model.record, model.record.data
    if data.options.view != "pixels":
        raise PainseqError(
            f"Int8 needs crops, but --data.options.view is {data.options.view}. Set it to pixels, and "
            "--data.options.store to a store of crops (configs/extractor/pixels.yaml), or to null to read the videos."
        )
    if record.by_person != "none":
        raise PainseqError(
            f"This model normalises features by each person's own frames ({record.by_person}), for which int8 cannot "
            "be measured. Export it in fp32, or fit it without."
        )
    check_fits(model, data)
    if (data.name, data.manifest.fingerprint()) != (fit.name, fit.fingerprint):
        raise PainseqError(
            f"The model was fitted on {fit.name} with the fingerprint {fit.fingerprint}, but the data are {data.name} "
            f"with the fingerprint {data.manifest.fingerprint()}. Int8 is calibrated on the model's own training "
            "subjects: give the same data set with the same labels."
        )
    if fit.split.protocol.endswith("_LEAKY"):
        raise PainseqError(f"The model was fitted on the split {fit.split.protocol}, which has no people apart.")
    if not fit.split.validation:
        raise PainseqError(
            f"The model was fitted on the split {fit.split.protocol!r} without validation subjects, on whom int8 would "
            "be measured. Fit it with some."
        )
    own = data.with_split(Split(fit.split.protocol, fit.split.train, fit.split.validation, fit.split.test))
    own.options = replace(data.options, frames=None, augment=None)
    return own


def calibration_of(data: PainDataModule, int8: Int8) -> Calibration:
    """Read crops of training subjects, spread over subjects, classes, clips and time.

    Raises:
        PainseqError: no training clip has a frame with a face.
    """
    training = data.dataset("train").clips
    people = evenly(sorted({clip.subject_id for clip in training}), int8.people)
    own = sum(clip.subject_id in people for clip in training)
    clips = min(CLIPS_OF_A_PERSON * len(people), own, int8.frames)
    crops, seen = [], set[str]()
    for clip, sample in chosen_samples(data, "train", clips, people):
        assert sample.video is not None
        frames = evenly(sample.present.nonzero()[:, 0].tolist(), int8.frames // clips)
        if frames:
            crops.append(sample.video[frames].numpy())
            seen.add(clip.subject_id)
    if not crops:
        raise PainseqError(f"No clip of {len(people)} training subjects of {data.name} has a frame with a face.")
    return Calibration(np.concatenate(crops), tuple(sorted(seen)))


def chosen_samples(
    data: PainDataModule, part: Part, count: int, people: Sequence[str] | None = None
) -> Iterator[tuple[Clip, Sample]]:
    """Read clips of a part, as balanced over classes and subjects as possible; of these people only, if given."""
    dataset = data.dataset(part)
    clips = [clip for clip in dataset.clips if people is None or clip.subject_id in people]
    chosen = {clip.clip_id for clip in balanced(clips, data.scheme, count)}
    for index, clip in enumerate(dataset.clips):
        if clip.clip_id in chosen:
            yield clip, dataset[index]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Choose evenly spaced items, the first and the last included; all if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]
