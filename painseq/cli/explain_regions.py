"""`painseq explain regions`: which regions of the face carry a checkpoint's scores, over many clips."""

from __future__ import annotations

import csv
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from painseq.cli.explained_clips import (
    clips_of,
    frames_of_clip,
    model_and_data,
    named_truth,
    none_explained,
    seen_in_training,
    table_of_clip,
)
from painseq.errors import PainseqError
from painseq.files import write_json
from painseq.runs import new_run_folder, versions

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from painseq.data.datamodule import PainDataModule
    from painseq.explain import Attribution, BlinkCheck, BlinkClip, Frames, Method, RegionRow, RegionShares
    from painseq.faces import Locator
    from painseq.model.pain_model import PainModel
    from painseq.records import Clip

log = logging.getLogger("painseq")

ALL = "all classes"


@dataclass(frozen=True)
class ExplainedClip:
    """What one clip tells.

    Args:
        truth: its class, or number; empty where it is hidden.
        explained: the class whose score is explained; the scale's name for a model of a scale.
        score: of it, see `painseq.explain.score_of`.
        layer: looked at, for gradcam.
        blinks: None where the clip has no blink.
    """

    clip: Clip
    truth: str
    explained: str
    score: float
    layer: str | None
    shares: RegionShares
    blinks: BlinkClip | None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    from painseq.cli.experiment import ExperimentCLI
    from painseq.explain import blink_check, region_table

    cli = ExperimentCLI("explain regions", argv)
    config = cli.config
    model, data, device = model_and_data(cli)
    wish = _wish(model, config)
    clips = clips_of(data, config)
    with new_run_folder(Path(config["out"])) as out:
        done, skipped = _explain(model, data, clips, wish)
        cli.parser.save(config, out / "config.yaml", skip_validation=True)

    groups: dict[str, list[ExplainedClip]] = defaultdict(list)
    for row in done:
        groups[row.explained].append(row)
    groups = {name: groups[name] for name in (*model.class_names, *groups) if name in groups}
    named = {ALL: done, **groups} if len(groups) > 1 else groups
    tables = {
        name: region_table([row.shares for row in rows], [row.clip.subject_id for row in rows])
        for name, rows in named.items()
    }
    # By class alone: a blink that counts for one class counts against another.
    blinks = {
        name: blink_check([row.blinks for row in rows], [row.clip.subject_id for row in rows])
        for name, rows in groups.items()
    }
    details = {
        "part": config["part"],
        "data": {"name": data.name, "labels": data.options.labels, "fingerprint": data.manifest.fingerprint()},
        "checkpoints": [str(path) for path in config["average_checkpoints"] or [config["checkpoint"]]],
        "method": wish.method,
        "layer": done[0].layer,
        "class": config["class_name"],
        "landmarks": config["landmarks"] or "of the model's own locator",
        "clips": len(done),
        "skipped": skipped,
        "seen_in_training": seen_in_training(model, data, clips),
        "device": device,
        "versions": versions(),
    }
    _write(out, done, tables, blinks, details)
    _tell(done, tables, blinks, details)
    log.info("Written to %s.", out)
    return 0


@dataclass(frozen=True)
class Wish:
    """What to explain, and how.

    Args:
        target: name of the class; None: the predicted one.
        landmarks: another locator for the landmarks; None: the model's.
    """

    method: Method
    layer: str | None
    target: str | None
    landmarks: Locator | None


def _wish(model: PainModel, config: Namespace) -> Wish:
    from painseq.explain import class_number, space_methods
    from painseq.faces import FaceAlignment, Sidecar

    known = space_methods(model)
    if not known:
        raise PainseqError(
            "This model does not see the face's picture from videos (its streams: "
            f"{', '.join(model.streams)}), so there are no maps whose regions could be told."
        )
    method = config["method"] or known[0]
    if method not in known:
        raise PainseqError(f"--method {method} does not fit this model; those that do: {', '.join(known)}.")
    if config["layer"] is not None and method != "gradcam":
        raise PainseqError(f"--layer goes with --method gradcam, not {method}.")
    target = config["class_name"]
    if target is not None:
        class_number(model, target)
    locators: dict[str | None, Callable[[], Locator]] = {"sidecar": Sidecar, "face_alignment": FaceAlignment}
    chosen = config["landmarks"]
    return Wish(cast("Method", method), config["layer"], target, None if chosen is None else locators[chosen]())


def _explain(
    model: PainModel, data: PainDataModule, clips: Sequence[Clip], wish: Wish
) -> tuple[list[ExplainedClip], dict[str, str]]:
    """The clips that could be explained, and why the others could not.

    Raises:
        PainseqError: none could; the first that has a face comes without 68 landmarks, as then all will.
    """
    from painseq.explain import blink_frames, check_blinks, explain, known_units, region_shares
    from painseq.explain.regions import check_landmarks, has_regions

    done: list[ExplainedClip] = []
    skipped: dict[str, str] = {}
    with _bar(wish.method, len(clips)) as step:
        for clip in clips:
            try:
                frames = _frames(model, data, clip, wish)
            except PainseqError as error:
                skipped[clip.clip_id] = str(error)
                step(len(skipped))
                continue
            if not done and frames.present.any():
                check_landmarks(frames)
            if not (frames.present.any() and has_regions(frames)):
                lacking = "not the 68 landmarks of iBUG" if frames.present.any() else "no face found in any frame"
                skipped[clip.clip_id] = lacking
                step(len(skipped))
                continue
            found: Attribution = explain(model, frames, wish.method, wish.target, layer=wish.layer)
            known = known_units(
                data.manifest.path(clip), frames.times_s.numpy(), clip.start_s, clip.fps, table_of_clip(data, clip)
            )
            shares = region_shares(found)
            blinks = check_blinks(model, found, *blink_frames(frames, known))
            truth = named_truth(clip, data.scheme)
            done.append(ExplainedClip(clip, truth, found.class_name, found.score, found.layer, shares, blinks))
            step(len(skipped))
    if not done:
        raise none_explained(skipped)
    return done, skipped


def _frames(model: PainModel, data: PainDataModule, clip: Clip, wish: Wish) -> Frames:
    """The crops as the model was fitted on them, with the landmarks of the locator that is asked for."""
    import torch

    from painseq.explain.frames import landmarks_in_crops

    frames = frames_of_clip(model, data, clip)
    if wish.landmarks is None:
        return frames
    assert model.face is not None and frames.boxes is not None
    face = model.face.with_locator(wish.landmarks)
    video, image_fps = data.manifest.path(clip), clip.fps
    track = face.follow(video, clip.start_s, clip.end_s, model.fps, image_fps)
    if track.landmarks is None:
        return dataclasses.replace(frames, landmarks=None)
    points = landmarks_in_crops(torch.from_numpy(track.landmarks), frames.boxes, frames.x.shape[-1])
    return dataclasses.replace(frames, landmarks=points)


@contextmanager
def _bar(method: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips, {task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(method, total=total, note="0 skipped")

        def step(skipped: int) -> None:
            bar.advance(task)
            speed = bar.tasks[0].speed
            rate = f"{60 * speed:.1f} a minute, " if speed else ""
            bar.update(task, note=f"{rate}{skipped} skipped")

        yield step


def _write(
    out: Path,
    done: Sequence[ExplainedClip],
    tables: Mapping[str, Sequence[RegionRow]],
    blinks: Mapping[str, BlinkCheck],
    details: Mapping[str, object],
) -> None:
    from painseq.explain import REGIONS, region_bars

    with (out / "regions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(
            ["clip_id", "subject_id", "truth", "explained", "score", "region", "share", "area", "frames", "left_out"]
        )
        for row in done:
            about = [row.clip.clip_id, row.clip.subject_id, row.truth, row.explained, f"{row.score:.6g}"]
            counts = [row.shares.frames, row.shares.left_out]
            for region, share, area in zip(REGIONS, row.shares.share, row.shares.area, strict=True):
                # An empty map has no share.
                said = "" if share != share else f"{share:.6f}"
                rows.writerow([*about, region, said, f"{area:.6f}", *counts])
    by_class = {name: [row.to_dict() for row in rows] for name, rows in tables.items()}
    write_json(out / "regions.json", {**details, "regions": by_class})
    write_json(out / "blink.json", {**details, "blinks": {name: check.to_dict() for name, check in blinks.items()}})
    title = f"{details['method']}, {details['clips']} clips"
    (out / "region_bars.svg").write_bytes(region_bars(tables, title, "svg"))
    (out / "region_bars.png").write_bytes(region_bars(tables, title, "png"))


def _tell(
    done: Sequence[ExplainedClip],
    tables: Mapping[str, Sequence[RegionRow]],
    blinks: Mapping[str, BlinkCheck],
    details: Mapping[str, object],
) -> None:
    from painseq.explain.regions import ACTION_UNITS

    table = Table(
        caption="Shares of the attribution, in brackets of the area; below them 95 % intervals over subjects. Research "
        "software, no medical device."
    )
    table.add_column("region,\naction units")
    for name in tables:
        # As wide as an interval, also on a narrow screen.
        table.add_column(name, justify="right", min_width=10)
    for rows in zip(*tables.values(), strict=True):
        units = " ".join(unit.removeprefix("AU") for unit in ACTION_UNITS[rows[0].region])
        table.add_row(f"{rows[0].region}\n{units}", *map(_cell, rows))
    Console().print(table)
    for name, check in blinks.items():
        Console().print(
            f"Blinks, {name} ({check.clips} clips of {check.area.interval.subjects} people): {check.verdict} "
            f"{check.figures}",
            highlight=False,
        )
    layer = "" if details["layer"] is None else f", layer {details['layer']}"
    log.info(
        "%s%s, %d clips of %d people.", details["method"], layer, len(done), len({r.clip.subject_id for r in done})
    )
    for clip_id, reason in cast("dict[str, str]", details["skipped"]).items():
        log.warning("Skipped %s: %s", clip_id, reason)
    seen = cast("dict[str, int]", details["seen_in_training"])
    if seen["seen"]:
        log.warning("The model was fitted on %d of these %d people.", seen["seen"], seen["subjects"])


def _cell(row: RegionRow) -> str:
    if row.share.value is None or row.area.value is None:
        return "-"
    low, high = row.share.interval.low, row.share.interval.high
    ends = "" if low is None or high is None else f"\n{low:.2f}..{high:.2f}"
    return f"{row.share.value:.2f} ({row.area.value:.2f}){ends}"
