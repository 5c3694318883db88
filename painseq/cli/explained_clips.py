"""Which model is explained, and which clips of a data set, for the commands that explain many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.cli.chosen_model import chosen_model
from painseq.errors import PainseqError
from painseq.runs import pick_device

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from painseq.cli.experiment import ExperimentCLI
    from painseq.data.datamodule import PainDataModule
    from painseq.data.labels import LabelScheme
    from painseq.explain import Frames
    from painseq.model.pain_model import PainModel
    from painseq.records import Clip


def model_and_data(cli: ExperimentCLI) -> tuple[PainModel, PainDataModule, str]:
    """What is explained and on which data, and the device; every check that they fit together.

    Raises:
        PainseqError: no data set, other classes than the model's, or a model that only single videos can be explained
            of.
    """
    from painseq.data.datamodule import PainDataModule
    from painseq.data.labels import check_same_targets

    config, data, command = cli.config, cli.datamodule, f"painseq {cli.command}"
    if not isinstance(data, PainDataModule):
        raise PainseqError(f"`{command}` needs a data set: --config configs/data/ai4pain.yaml, or --data BioVid.")
    if config["clips"] < 1:
        raise PainseqError(f"--clips is {config['clips']}; it must be 1 or more.")
    device = pick_device(config["device"])
    model = chosen_model(config["checkpoint"], config["average_checkpoints"], config["prior"], config["trust"], device)
    check_same_targets(model.class_names, model.scale, data.scheme)
    if model.face is None:
        raise PainseqError(
            "This model cannot read videos (its extractor is not recorded), so no clip can be explained."
        )
    if model.record.baseline_clips:
        raise PainseqError(
            f"This model takes features relative to each subject's own, which `{command}` does not read. Explain "
            "single videos: painseq explain VIDEO --baseline VIDEO."
        )
    return model, data, device


def clips_of(data: PainDataModule, config: Namespace) -> list[Clip]:
    """So many of the part as are asked for, chosen `evenly`.

    Raises:
        PainseqError: the part has none.
    """
    clips = evenly(data.clips(config["part"]), data.scheme, config["clips"])
    if not clips:
        raise PainseqError(f"The {config['part']} part of {data.name} has no clips.")
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
    from painseq.data.datasets import target_of
    from painseq.records import UNKNOWN

    target = target_of(clip, scheme)
    if target == UNKNOWN or target != target:
        return ""
    return f"{target:g}" if scheme.scale is not None else scheme.class_names[int(target)]


def frames_of_clip(model: PainModel, data: PainDataModule, clip: Clip) -> Frames:
    """The crops as the model was fitted on them.

    Raises:
        PainseqError: see `painseq.explain.frames_of_video`.
    """
    from painseq.explain import frames_of_video

    table = table_of_clip(data, clip) if "action_units" in model.streams else None
    video = data.manifest.path(clip)
    return frames_of_video(model, video, clip.start_s, clip.end_s, image_fps=clip.fps, action_units=table)


def table_of_clip(data: PainDataModule, clip: Clip) -> Path | None:
    """OpenFace's table of a clip, where a folder of tables is named; None: beside the video, if at all."""
    from painseq.data.streams import ActionUnitStream

    folder = data.options.action_units
    return None if folder is None else ActionUnitStream(folder).path(clip, data.manifest.root)


def seen_in_training(model: PainModel, data: PainDataModule, clips: Sequence[Clip]) -> dict[str, int]:
    """How many of the subjects head or extractor were fitted on: their clips may be explained better than new ones."""
    from painseq.data.splits import qualified

    subjects = qualified(data.name, {clip.subject_id for clip in clips})
    seen = {*model.fitted_on, *model.extractor_trained_on}
    return {"subjects": len(subjects), "seen": len(subjects & seen)}
