"""Which clips of a data set are explained, for the studies that explain many."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import target_of
from painseq.data.labels import LabelScheme, check_same_targets
from painseq.data.splits import qualified
from painseq.data.streams import ActionUnitStream
from painseq.errors import PainseqError
from painseq.explain import Frames, VideoOptions, frames_of_video
from painseq.files import write_atomically
from painseq.model.pain_model import PainModel
from painseq.records import UNKNOWN, Clip, Part
from painseq.studies.experiment import Experiment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_explainable(model: PainModel, data: PainDataModule) -> None:
    """Check that the clips of a data set can be explained.

    Raises:
        PainseqError: other classes than the model's, or a model of which only single videos can be explained.
    """
    check_same_targets(model.class_names, model.scale, data.scheme)
    if model.face is None:
        raise PainseqError(
            "This model cannot read videos (its extractor is not recorded), so no clip can be explained."
        )
    if model.record.baseline_clips:
        raise PainseqError(
            "This model takes features relative to each subject's own, which no clip of a data set is explained with. "
            "Explain single videos, each with a `baseline`, as `painseq explain VIDEO --baseline VIDEO` does."
        )


def chosen_clips(data: PainDataModule, part: Part, count: int) -> list[Clip]:
    """So many clips of a part, chosen `evenly`.

    Raises:
        PainseqError: the part has none, or `count` is below 1.
    """
    if count < 1:
        raise PainseqError(f"clips is {count}; it must be 1 or more.")
    clips = evenly(data.clips(part), data.scheme, count)
    if not clips:
        raise PainseqError(f"The {part} part of {data.name} has no clips.")
    return clips


def none_explained(skipped: Mapping[str, str]) -> PainseqError:
    """That no clip could be explained; clip -> why not."""
    clip_id, reason = next(iter(skipped.items()))
    return PainseqError(f"None of {len(skipped)} clips could be explained. The first, {clip_id}: {reason}")


def evenly(clips: Sequence[Clip], scheme: LabelScheme, count: int) -> list[Clip]:
    """Some clips, as evenly as can be over classes and, within these, over subjects; the first ones by their order.

    Clips whose label is hidden count as one class.
    """
    left = list(clips)
    classes, subjects, both = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    chosen: list[Clip] = []
    while left and len(chosen) < count:

        def taken(clip: Clip) -> tuple[int, int, int]:
            name = named_truth(clip, scheme)
            return classes[name], both[name, clip.subject_id], subjects[clip.subject_id]

        clip = min(left, key=taken)
        left.remove(clip)
        chosen.append(clip)
        name = named_truth(clip, scheme)
        classes[name] += 1
        subjects[clip.subject_id] += 1
        both[name, clip.subject_id] += 1
    return chosen


def named_truth(clip: Clip, scheme: LabelScheme) -> str:
    """A clip's class, or number; empty where it is hidden."""
    target = target_of(clip, scheme)
    if target == UNKNOWN or target != target:
        return ""
    return f"{target:g}" if scheme.predicts_values else scheme.class_names[int(target)]


def frames_of_clip(model: PainModel, data: PainDataModule, clip: Clip) -> Frames:
    """The crops as the model was fitted on them.

    Raises:
        PainseqError: see `painseq.explain.frames_of_video`.
    """
    table = table_of_clip(data, clip) if "action_units" in model.streams else None
    video = data.manifest.path(clip)
    return frames_of_video(model, video, clip.start_s, clip.end_s, VideoOptions(image_fps=clip.fps, action_units=table))


def table_of_clip(data: PainDataModule, clip: Clip) -> Path | None:
    """OpenFace's table of a clip, where a folder of tables is named; None: beside the video, if at all."""
    folder = data.options.action_units
    return None if folder is None else ActionUnitStream(folder).path(clip, data.manifest.root)


def seen_in_training(model: PainModel, data: PainDataModule, clips: Sequence[Clip]) -> dict[str, int]:
    """How many of the subjects head or extractor were fitted on: their clips may be explained better than new ones."""
    subjects = qualified(data.name, {clip.subject_id for clip in clips})
    seen = {*model.fitted_on, *model.extractor_trained_on}
    return {"subjects": len(subjects), "seen": len(subjects & seen)}


def run_config(
    experiment: Experiment | None, study: str, options: DataclassInstance, model: PainModel
) -> dict[str, Any]:
    """What a run's config.yaml holds, in plain values: the experiment, where there is one, and the study's options.

    The mix of classes that the model is corrected for is one of these. Where the model was read from stands in the
    results, not here.
    """
    own = {key: value for key, value in dataclasses.asdict(options).items() if key != "checkpoints"}
    own["prior"] = None if model.prior is None else dict(model.prior)
    both = {**({} if experiment is None else experiment.config), study: own}
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(both))
    return config


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml of a run."""
    write_atomically(out / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False).encode())
