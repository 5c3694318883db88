"""`painseq predict`: what checkpoints predict for video files."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from painseq.cli.arguments import add_device, add_locator, add_model, chosen_locator, chosen_models
from painseq.runs import pick_device

if TYPE_CHECKING:
    from painseq.data.labels import Scale
    from painseq.model.pain_model import VideoPrediction

CAPTION = "Research software, no medical device."
log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command; a video that cannot be read is reported and counted, and the rest go on."""
    parser = argparse.ArgumentParser("painseq predict", description="Predict the pain in videos with a checkpoint.")
    parser.add_argument("videos", nargs="+", type=Path, help="video files, or folders of images")
    add_model(parser)
    parser.add_argument("--baseline", type=Path, help="video of this person without pain, if the model needs it")
    parser.add_argument(
        "--action-units",
        type=Path,
        metavar="CSV",
        help="OpenFace's table of the video, if the model needs it; default: the one of the video's name beside it",
    )
    parser.add_argument("--start-s", type=float, default=0.0, help="where to start, in seconds")
    parser.add_argument("--end-s", type=float, help="where to end, in seconds; default: the end of the video")
    parser.add_argument("--image-fps", type=float, help="images a second, where a video is a folder of images")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, with the probabilities of each frame: a list, with several models a list a model",
    )
    add_device(parser)
    add_locator(parser)
    args = parser.parse_args(argv)
    models = chosen_models(args, pick_device(args.device))
    from painseq.studies.predict_videos import VideoOptions, predict_videos

    options = VideoOptions(
        args.start_s, args.end_s, chosen_locator(args), args.baseline, args.image_fps, args.action_units
    )
    predictions: dict[str, list[VideoPrediction]] = {}
    failed = False
    for name, model in models.items():
        of_model = predictions.setdefault(name, [])
        for result in predict_videos(model, args.videos, options):
            if result.prediction is not None:
                of_model.append(result.prediction)
            if result.problem is not None:
                failed = True
                sys.stderr.write(f"{result.video}: {result.problem}\n")
    if args.json:
        plain = {name: [each.to_dict() for each in of_model] for name, of_model in predictions.items()}
        content = plain if len(plain) > 1 else next(iter(plain.values()))
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    elif first := next(iter(predictions.values())):
        model = next(iter(models.values()))
        several = len(models) > 1
        Console().print(_side_by_side(predictions) if several else _table(first, model.class_names, model.scale))
        log.info("Backends: %s.", ", ".join(f"{key} {value}" for key, value in first[0].backends.items()))
    return 1 if failed else 0


def _table(predictions: Sequence[VideoPrediction], class_names: Sequence[str], scale: Scale | None) -> Table:
    """A row a video, with each class's probability."""
    table = Table(caption=CAPTION)
    table.add_column("video")
    for name in ("label", *class_names) if scale is None else (str(scale),):
        table.add_column(name, justify="left" if name == "label" else "right")
    table.add_column("frames", justify="right")
    table.add_column("faceless", justify="right")
    for prediction in predictions:
        table.add_row(
            Path(prediction.video).name,
            *_cells(prediction, class_names, scale),
            str(prediction.frames),
            str(len(prediction.faceless_times_s)),
        )
    return table


def _cells(prediction: VideoPrediction, class_names: Sequence[str], scale: Scale | None) -> list[str]:
    if scale is not None:
        return ["-" if prediction.value is None else f"{prediction.value:.2f}"]
    if prediction.label is None:
        return ["-"] * (1 + len(class_names))
    return [prediction.label, *(f"{prediction.probabilities[name]:.2f}" for name in class_names)]


def _side_by_side(predictions: Mapping[str, Sequence[VideoPrediction]]) -> Table:
    """A row a video, a column a model: its label with the probability, or its number."""
    from painseq.cli.evaluate import short_names

    table = Table("video", *short_names([Path(name) for name in predictions]), caption=CAPTION)
    found = {name: {each.video: each for each in of_model} for name, of_model in predictions.items()}
    for video in dict.fromkeys(video for of_model in found.values() for video in of_model):
        table.add_row(Path(video).name, *(_in_short(of_model.get(video)) for of_model in found.values()))
    return table


def _in_short(prediction: VideoPrediction | None) -> str:
    if prediction is None or (prediction.label is None and prediction.value is None):
        return "-"
    if prediction.label is None:
        return f"{prediction.value:.2f} {prediction.scale}"
    return f"{prediction.label} {prediction.probabilities[prediction.label]:.2f}"
