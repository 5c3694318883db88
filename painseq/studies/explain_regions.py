"""How much each region of the face contributes to a model's scores, over many clips of a data set."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from painseq.data.datamodule import PainDataModule
from painseq.errors import CLIP_FAILURES, PainseqError, reason_of
from painseq.explain import (
    REGIONS,
    BlinkCheck,
    BlinkClip,
    Frames,
    Method,
    MethodOptions,
    RegionRow,
    RegionShares,
    blink_check,
    blink_frames,
    check_blinks,
    check_gradients,
    class_number,
    explain,
    known_units,
    region_bars,
    region_shares,
    region_table,
    space_methods,
)
from painseq.explain.frames import landmarks_in_crops
from painseq.explain.regions import check_landmarks, has_regions
from painseq.faces import FaceAlignment, FaceMesh, Locator, Sidecar
from painseq.files import write_atomically, write_csv, write_json
from painseq.model.pain_model import PainModel
from painseq.records import Clip, Part
from painseq.runs import OnProgress, new_run_folder, no_progress, versions
from painseq.studies.experiment import Experiment
from painseq.studies.explained_clips import (
    check_explainable,
    chosen_clips,
    frames_of_clip,
    named_truth,
    none_explained,
    run_config,
    seen_in_training,
    table_of_clip,
    with_tracks,
    write_config,
)

log = logging.getLogger("painseq")

ALL = "all classes"


@dataclass(frozen=True)
class RegionOptions:
    """Options of an explanation by regions.

    Args:
        part: part of the split.
        clips: number of clips, chosen evenly by class and subject.
        method: one of `space_methods`; None: the first of them.
        layer: for gradcam, see `list_layers`.
        class_name: class to explain; None: the predicted class of each clip.
        landmarks: locator of the landmarks, if the model's own finds none; the crops stay those of the model.
        face_mesh_model: for the landmarks face_mesh, see `painseq.faces.FaceMesh`.
        yunet_model: likewise.
        checkpoints: files that the model was loaded from, named in the results.
    """

    part: Part = "test"
    clips: int = 20
    method: str | None = None
    layer: str | None = None
    class_name: str | None = None
    landmarks: Literal["face_mesh", "sidecar", "face_alignment"] | None = None
    face_mesh_model: str | None = None
    yunet_model: str | None = None
    checkpoints: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for name in ("face_mesh_model", "yunet_model"):
            model = getattr(self, name)
            if model is not None and self.landmarks != "face_mesh":
                raise PainseqError(f"{name} is {model}, but only the landmarks face_mesh use it. Add them, or omit it.")

    def locator(self) -> Locator | None:
        """Return the locator of the landmarks; None: the model's own."""
        if self.landmarks == "face_mesh":
            return FaceMesh(self.face_mesh_model, self.yunet_model)
        return (
            None if self.landmarks is None else {"sidecar": Sidecar, "face_alignment": FaceAlignment}[self.landmarks]()
        )


DEFAULT_OPTIONS = RegionOptions()


@dataclass(frozen=True)
class ExplainedClip:
    """The explanation of one clip.

    Args:
        clip: the clip.
        truth: its true class or value; empty if hidden.
        explained: name of the explained class; for a model of a scale, name of the scale.
        score: the explained score, see `painseq.explain.score_of`.
        layer: the layer, for gradcam.
        shares: the regions' shares.
        blinks: the blink check; None if the clip has no blink.
    """

    clip: Clip
    truth: str
    explained: str
    score: float
    layer: str | None
    shares: RegionShares
    blinks: BlinkClip | None


@dataclass(frozen=True)
class RegionsExplanation:
    """The explanation of many clips.

    Args:
        clips: the explained clips.
        skipped: clip id -> why the clip was skipped.
        tables: explained class -> one row per region; `ALL` first, if there are several classes.
        blinks: explained class -> blink check.
        details: content of regions.json besides the tables.
    """

    clips: Sequence[ExplainedClip]
    skipped: Mapping[str, str]
    tables: Mapping[str, Sequence[RegionRow]]
    blinks: Mapping[str, BlinkCheck]
    details: Mapping[str, Any]


def explain_regions(
    model: PainModel,
    data: PainDataModule,
    out: str | Path,
    options: RegionOptions = DEFAULT_OPTIONS,
    experiment: Experiment | None = None,
    on_progress: OnProgress = no_progress,
) -> RegionsExplanation:
    """Measure how much each region of the face contributes to a model's scores, and whether blinks do.

    Clips that cannot be read, or have no landmarks, are skipped and reported. Faces are taken from the folder of tracks
    of the data's face crop, if these are the model's.

    Args:
        out: new folder for config.yaml, regions.csv (one row per clip and region), regions.json (means over
            subjects), region_bars.svg and .png, and blink.json.
        experiment: experiment that `data` was built from, written to config.yaml with the options.

    Raises:
        PainseqError: no clip could be explained, model and data do not fit together, a method, layer or class that does
            not fit the model, or the folder is not empty.

    Example:
        >>> from painseq.studies.explain_regions import RegionOptions, explain_regions
        >>> found = explain_regions(model, data, Path("regions"), RegionOptions(clips=40, class_name="high_pain"))
        >>> {row.region: row.share.value for row in found.tables["high_pain"]}
    """
    out = Path(out)
    check_explainable(model, data)
    method = _method(model, options)
    if options.class_name is not None:
        class_number(model, options.class_name)
    clips = chosen_clips(data, options.part, options.clips)
    model = with_tracks(model, data)
    with new_run_folder(Path(out)):
        done, skipped = _explain_clips(model, data, clips, method, options, on_progress)
        write_config(out, run_config(experiment, "explain_regions", options, model))
    tables, blinks = _over_subjects(model, done)
    details = {
        "part": options.part,
        "data": {"name": data.name, "labels": data.options.labels, "fingerprint": data.manifest.fingerprint()},
        "checkpoints": [str(path) for path in options.checkpoints],
        "method": method,
        "layer": done[0].layer,
        "class": options.class_name,
        "landmarks": options.landmarks or "of the model's own locator",
        "clips": len(done),
        "skipped": skipped,
        "seen_in_training": seen_in_training(model, data, clips),
        "device": str(model.device),
        "versions": versions(),
    }
    explanation = RegionsExplanation(done, skipped, tables, blinks, details)
    _write(explanation, out)
    return explanation


def _method(model: PainModel, options: RegionOptions) -> Method:
    known = space_methods(model)
    if not known:
        raise PainseqError(
            "This model does not take crops of the face from videos (its streams: "
            f"{', '.join(model.streams)}), so it has no maps to divide into regions."
        )
    method = options.method or known[0]
    check_gradients(model, method)
    if method not in known:
        raise PainseqError(f"method {method} does not fit this model; methods that do: {', '.join(known)}.")
    if options.layer is not None and method != "gradcam":
        raise PainseqError(f"layer {options.layer} applies to method gradcam only, not to {method}.")
    return method


def _explain_clips(
    model: PainModel,
    data: PainDataModule,
    clips: Sequence[Clip],
    method: Method,
    options: RegionOptions,
    on_progress: OnProgress,
) -> tuple[list[ExplainedClip], dict[str, str]]:
    """Explain clips; also returns why others were skipped.

    Raises:
        PainseqError: no clip could be explained; the first clip with a face has no landmarks that tell its regions, as
            then none will.
    """
    locator = options.locator()
    done: list[ExplainedClip] = []
    skipped: dict[str, str] = {}
    for number, clip in enumerate(clips):
        on_progress(number, len(clips), f"{method}, {len(skipped)} skipped")
        try:
            frames = _frames(model, data, clip, locator)
        except CLIP_FAILURES as error:
            skipped[clip.clip_id] = reason_of(error)
            continue
        if not done and frames.present.any():
            check_landmarks(frames)
        if not (frames.present.any() and has_regions(frames)):
            missing = (
                "neither the 68 iBUG landmarks nor a face mesh"
                if frames.present.any()
                else "no face found in any frame"
            )
            skipped[clip.clip_id] = missing
            continue
        done.append(_explain_clip(model, data, clip, frames, method, options))
    on_progress(len(clips), len(clips), f"{method}, {len(skipped)} skipped")
    if not done:
        raise none_explained(skipped)
    return done, skipped


def _explain_clip(
    model: PainModel, data: PainDataModule, clip: Clip, frames: Frames, method: Method, options: RegionOptions
) -> ExplainedClip:
    attribution = explain(model, frames, method, options.class_name, MethodOptions(layer=options.layer))
    video, table = data.manifest.path(clip), table_of_clip(data, clip)
    known = known_units(video, frames.times_s.numpy(), clip.start_s, clip.fps, table)
    return ExplainedClip(
        clip=clip,
        truth=named_truth(clip, data.scheme),
        explained=attribution.class_name,
        score=attribution.score,
        layer=attribution.layer,
        shares=region_shares(attribution),
        blinks=check_blinks(model, attribution, *blink_frames(frames, known)),
    )


def _frames(model: PainModel, data: PainDataModule, clip: Clip, locator: Locator | None) -> Frames:
    """Return the crops as for fitting, with the landmarks of another locator, if one is given."""
    frames = frames_of_clip(model, data, clip)
    if locator is None:
        return frames
    assert model.face is not None and frames.boxes is not None
    face = model.face.with_locator(locator)
    track = face.follow(data.manifest.path(clip), clip.start_s, clip.end_s, model.fps, clip.fps)
    if track.landmarks is None:
        return dataclasses.replace(frames, landmarks=None)
    side_px = frames.x.shape[-1]
    points = landmarks_in_crops(torch.from_numpy(track.landmarks), frames.boxes, side_px, frames.angles_rad)
    return dataclasses.replace(frames, landmarks=points)


def _over_subjects(
    model: PainModel, done: Sequence[ExplainedClip]
) -> tuple[dict[str, tuple[RegionRow, ...]], dict[str, BlinkCheck]]:
    groups: dict[str, list[ExplainedClip]] = defaultdict(list)
    for row in done:
        groups[row.explained].append(row)
    groups = {name: groups[name] for name in (*model.class_names, *groups) if name in groups}
    together = {ALL: list(done), **groups} if len(groups) > 1 else groups
    tables = {
        name: region_table([row.shares for row in rows], [row.clip.subject_id for row in rows])
        for name, rows in together.items()
    }
    # By class only, since a blink that counts for one class counts against another.
    blinks = {
        name: blink_check([row.blinks for row in rows], [row.clip.subject_id for row in rows])
        for name, rows in groups.items()
    }
    return tables, blinks


def _write(explanation: RegionsExplanation, out: Path) -> None:
    rows: list[list[object]] = [
        ["clip_id", "subject_id", "truth", "explained", "score", "region", "share", "area", "frames", "left_out"]
    ]
    for row in explanation.clips:
        prefix = [row.clip.clip_id, row.clip.subject_id, row.truth, row.explained, f"{row.score:.6g}"]
        counts = [row.shares.frames, row.shares.left_out]
        for region, share, area in zip(REGIONS, row.shares.share, row.shares.area, strict=True):
            # An empty map has no share.
            rows.append([*prefix, region, "" if share != share else f"{share:.6f}", f"{area:.6f}", *counts])
    write_csv(out / "regions.csv", rows, line_end="\n")
    by_class = {name: [row.to_dict() for row in table] for name, table in explanation.tables.items()}
    write_json(out / "regions.json", {**explanation.details, "regions": by_class})
    checks = {name: check.to_dict() for name, check in explanation.blinks.items()}
    write_json(out / "blink.json", {**explanation.details, "blinks": checks})
    title = f"{explanation.details['method']}, {len(explanation.clips)} clips"
    write_atomically(out / "region_bars.svg", region_bars(explanation.tables, title, "svg"))
    write_atomically(out / "region_bars.png", region_bars(explanation.tables, title, "png"))
