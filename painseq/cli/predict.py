"""`painseq predict`: predict the pain in video files with checkpoints."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from painseq.cli.arguments import (
    add_device,
    add_locator,
    add_min_face_share,
    add_model,
    add_person,
    chosen_locator,
    model_files,
)
from painseq.cli.printing import terminal
from painseq.runs import short_names

if TYPE_CHECKING:
    from painseq.model.prediction import VideoPrediction
    from painseq.studies.model_files import ModelFiles
    from painseq.studies.predict_videos import VideoOptions, VideoResult

CAPTION = "Research software, not a medical device."
log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command. A video that cannot be read is reported, does not stop the others, and makes it return 1."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.json and args.out is not None:
        parser.error("--out writes what --json prints; leave one of them out")
    from painseq.cli.progress import progress_bar
    from painseq.studies.predict_files import predict_to_file
    from painseq.studies.predict_videos import VideoOptions

    options = VideoOptions(
        args.start_s,
        args.end_s,
        chosen_locator(args),
        args.baseline,
        args.image_fps,
        args.action_units,
        args.min_face_share,
        tuple(args.same_person),
        args.causal,
    )
    models = model_files(args)
    if args.out is None:
        return _print(models, args, options)
    problems = predicted = 0
    with progress_bar("predict", "videos") as show:
        for _, result in predict_to_file(models, args.videos, args.out, options, args.jobs, show):
            problems += _told(result)
            predicted += 1
    sys.stdout.write(f"{predicted - problems} predictions are added to {args.out}; {problems} failed. {CAPTION}\n")
    return 1 if problems else 0


def _print(models: ModelFiles, args: argparse.Namespace, options: VideoOptions) -> int:
    from painseq.cli.progress import progress_bar
    from painseq.studies.predict_files import all_videos, predict_in_processes

    videos = all_videos(args.videos)
    of_video: dict[Path, Mapping[str, VideoResult]] = {}
    with progress_bar("predict", "videos") as show:
        for results in predict_in_processes(models, videos, options, args.jobs):
            of_video[results[0][1].video] = dict(results)
            show(len(of_video), len(videos))
    told = [of_video[video] for video in videos]
    failed = sum(_told(result) for results in told for result in results.values())
    predictions: dict[str, list[VideoPrediction]] = {name: [] for name in told[0]}
    for of_models in told:
        for name, result in of_models.items():
            if result.prediction is not None:
                predictions[name].append(result.prediction)
    if args.json:
        plain = {name: [prediction.to_dict() for prediction in of_model] for name, of_model in predictions.items()}
        content = plain if len(plain) > 1 else next(iter(plain.values()))
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    elif first := next(iter(predictions.values())):
        terminal().print(_side_by_side(predictions) if len(predictions) > 1 else _table(first))
        log.info("Backends: %s.", ", ".join(f"{key} {value}" for key, value in first[0].backends.items()))
    return 1 if failed else 0


def _told(result: VideoResult) -> bool:
    """Print why there is no label or value, and return whether there is none."""
    if result.problem is not None:
        sys.stderr.write(f"{result.video}: {result.problem}\n")
    return result.problem is not None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq predict",
        description="Predict the pain in videos with a checkpoint, or with a model that `painseq export` wrote.",
    )
    parser.add_argument("videos", nargs="+", type=Path, help="video files, folders of videos, or folders of images")
    add_model(parser)
    add_person(parser)
    parser.add_argument(
        "--action-units",
        type=Path,
        metavar="CSV",
        help="table of the video's action units, if the model needs one; default: the CSV of the same name next to the "
        "video",
    )
    parser.add_argument("--start-s", type=float, default=0.0, help="start at this time, in seconds; default: 0")
    parser.add_argument("--end-s", type=float, help="end at this time, in seconds; default: the end of the video")
    parser.add_argument("--image-fps", type=float, help="images per second, if a video is a folder of images")
    parser.add_argument(
        "--causal", action="store_true", help="look at no later frame when following the face, as with a camera"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="append a line of JSON for each video to this file (.jsonl); rerun to resume, without the videos in it",
    )
    parser.add_argument("--jobs", type=int, default=1, help="predict in this many processes; default: %(default)s")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON list with the probabilities of each frame; for several models, one list per model",
    )
    add_min_face_share(parser)
    add_device(parser)
    add_locator(parser)
    return parser


def _table(predictions: Sequence[VideoPrediction]) -> Table:
    """Return a table with one row per video, and the probability of each class."""
    classes = next(([*each.probabilities] for each in predictions if each.probabilities), [])
    scale = predictions[0].scale
    table = Table(caption=_caption(predictions))
    table.add_column("video")
    for name in ("label", *classes) if scale is None else (scale,):
        table.add_column(name, justify="left" if name == "label" else "right")
    table.add_column("frames", justify="right")
    table.add_column("faceless", justify="right")
    for prediction in predictions:
        table.add_row(
            Path(prediction.video).name,
            *_cells(prediction, classes),
            str(prediction.frames),
            str(len(prediction.faceless_times_s)),
        )
    return table


def _caption(predictions: Sequence[VideoPrediction]) -> Text:
    """Return the warnings and notes of the predictions; models that saw the same frames share one."""
    told = [(each.video, line) for each in predictions for line in (each.warning, each.note) if line is not None]
    notes = [f"{Path(video).name}: {line}" for video, line in told]
    notes += [
        f"The label is {[*each.probabilities][1]} from a probability of {each.threshold:.4f} on (tuned threshold)."
        for each in predictions
        if each.threshold is not None and each.probabilities
    ]
    return Text("\n".join([*dict.fromkeys(notes), CAPTION]))


def _cells(prediction: VideoPrediction, classes: Sequence[str]) -> list[str]:
    if prediction.scale is not None:
        return ["-" if prediction.value is None else f"{prediction.value:.2f}"]
    if prediction.label is None:
        return ["-"] * (1 + len(classes))
    return [prediction.label, *(f"{prediction.probabilities[name]:.2f}" for name in classes)]


def _side_by_side(predictions: Mapping[str, Sequence[VideoPrediction]]) -> Table:
    """Return a table with one row per video and one column per model."""
    caption = _caption([prediction for of_model in predictions.values() for prediction in of_model])
    table = Table("video", *short_names([Path(name) for name in predictions]), caption=caption)
    by_video = [{prediction.video: prediction for prediction in of_model} for of_model in predictions.values()]
    for video in dict.fromkeys(video for of_model in by_video for video in of_model):
        table.add_row(Path(video).name, *(_short_cell(of_model.get(video)) for of_model in by_video))
    return table


def _short_cell(prediction: VideoPrediction | None) -> str:
    """The label with its probability, or the value with its scale."""
    if prediction is None or (prediction.label is None and prediction.value is None):
        return "-"
    if prediction.label is None:
        return f"{prediction.value:.2f} {prediction.scale}"
    return f"{prediction.label} {prediction.probabilities[prediction.label]:.2f}"
