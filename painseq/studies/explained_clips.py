"""Selection and reading of clips for the studies that explain many clips."""

from __future__ import annotations

import copy
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
from painseq.records import UNKNOWN, Clip, Part, shared_people
from painseq.studies.experiment import Experiment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_explainable(model: PainModel, data: PainDataModule) -> None:
    """Check that the clips of a data set can be explained.

    Raises:
        PainseqError: the classes are not the model's, or only single videos can be explained with this model.
    """
    check_same_targets(model.class_names, model.scale, data.scheme)
    if model.face is None:
        raise PainseqError(
            "This model cannot read videos (its extractor is not recorded), so clips cannot be explained."
        )
    if model.record.by_person != "none":
        raise PainseqError(
            f"This model takes features normalised by each subject's own frames ({model.record.by_person}), which is "
            "not supported for clips of a data set. Explain single videos (`painseq explain VIDEO`; for baseline, each "
            "with --baseline VIDEO, for subject with --same-person VIDEO ...)."
        )


def with_tracks(model: PainModel, data: PainDataModule) -> PainModel:
    """Return the model with the tracks on disk of the data's face crop, if the model follows faces in the same way."""
    asked = data.options.face
    if model.face is None or asked is None or asked.tracks is None or asked.tracking() != model.face.tracking():
        return model
    tracked = copy.copy(model)
    tracked.face = copy.copy(model.face)
    tracked.face.tracks = asked.tracks
    return tracked


def chosen_clips(data: PainDataModule, part: Part, count: int) -> list[Clip]:
    """Choose this many clips of a part, balanced by class and subject.

    Raises:
        PainseqError: the part has no clips, or `count` is below 1.
    """
    if count < 1:
        raise PainseqError(f"clips is {count}; it must be 1 or more.")
    clips = balanced(data.clips(part), data.scheme, count)
    if not clips:
        raise PainseqError(f"The {part} part of {data.name} has no clips.")
    return clips


def none_explained(skipped: Mapping[str, str]) -> PainseqError:
    """Return the error that no clip could be explained, with the first reason in `skipped` (clip id -> reason)."""
    clip_id, reason = next(iter(skipped.items()))
    return PainseqError(f"None of {len(skipped)} clips could be explained. The first, {clip_id}: {reason}")


def balanced(clips: Sequence[Clip], scheme: LabelScheme, count: int) -> list[Clip]:
    """Choose clips as balanced as possible over classes and, within classes, over subjects, in their order.

    Clips with a hidden label count as one class.
    """
    remaining = list(clips)
    classes, subjects, both = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    chosen: list[Clip] = []
    while remaining and len(chosen) < count:

        def times_taken(clip: Clip) -> tuple[int, int, int]:
            name = named_truth(clip, scheme)
            return classes[name], both[name, clip.subject_id], subjects[clip.subject_id]

        clip = min(remaining, key=times_taken)
        remaining.remove(clip)
        chosen.append(clip)
        name = named_truth(clip, scheme)
        classes[name] += 1
        subjects[clip.subject_id] += 1
        both[name, clip.subject_id] += 1
    return chosen


def named_truth(clip: Clip, scheme: LabelScheme) -> str:
    """Return a clip's true class or value as text; empty if it is hidden."""
    target = target_of(clip, scheme)
    if target == UNKNOWN or target != target:
        return ""
    return f"{target:g}" if scheme.predicts_values else scheme.class_names[int(target)]


def frames_of_clip(model: PainModel, data: PainDataModule, clip: Clip) -> Frames:
    """Read the crops of a clip, as for fitting.

    Raises:
        PainseqError: see `painseq.explain.frames_of_video`.
    """
    table = table_of_clip(data, clip) if "action_units" in model.streams else None
    video = data.manifest.path(clip)
    return frames_of_video(model, video, clip.start_s, clip.end_s, VideoOptions(image_fps=clip.fps, action_units=table))


def table_of_clip(data: PainDataModule, clip: Clip) -> Path | None:
    """Return a clip's table in the data's folder of tables; None: there is no such folder."""
    folder = data.options.action_units
    return None if folder is None else ActionUnitStream(folder).path(clip, data.manifest.root)


def seen_in_training(model: PainModel, data: PainDataModule, clips: Sequence[Clip]) -> dict[str, object]:
    """Count the subjects, and those that head or extractor were fitted on, whose explanations may be better.

    "unknown" lists weights whose training subjects are not known.
    """
    subjects = qualified(data.name, {clip.subject_id for clip in clips})
    seen, unknown = model.record.seen.people, model.record.unknown_people
    return {"subjects": len(subjects), "seen": len(shared_people(subjects, seen)), "unknown": list(unknown)}


def run_config(
    experiment: Experiment | None, study: str, options: DataclassInstance, model: PainModel
) -> dict[str, Any]:
    """Return the content of a run's config.yaml: the experiment, if any, and the study's options.

    The options include the model's prior. The checkpoints are in the results, not here.
    """
    own = {key: value for key, value in dataclasses.asdict(options).items() if key != "checkpoints"}
    own["prior"] = None if model.prior is None else dict(model.prior)
    both = {**({} if experiment is None else experiment.config), study: own}
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(both))
    return config


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    """Write a run's config.yaml."""
    write_atomically(out / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False).encode())
