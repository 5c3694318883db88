"""`painseq predict`: what a checkpoint makes of video files."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from painseq.cli.chosen_model import AVERAGE_HELP, PRIOR_HELP, chosen_model
from painseq.errors import PainseqError
from painseq.runs import pick_device

if TYPE_CHECKING:
    from painseq.data.labels import Scale
    from painseq.faces import Locator
    from painseq.model.pain_model import VideoPrediction

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command; a video that cannot be read is told and counted, and the rest go on."""
    parser = argparse.ArgumentParser("painseq predict", description="Say what a checkpoint makes of videos.")
    parser.add_argument("videos", nargs="+", type=Path, help="video files, or folders of images")
    parser.add_argument("--checkpoint", type=Path, help="best.ckpt of a run")
    parser.add_argument("--average-checkpoints", nargs="+", type=Path, default=[], help=AVERAGE_HELP)
    parser.add_argument("--prior", nargs="+", default=[], metavar="CLASS=SHARE", help=PRIOR_HELP)
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
    parser.add_argument("--json", action="store_true", help="print JSON, with the probabilities of each frame")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--trust", nargs="*", default=[], help="packages whose classes may be built")
    add_locator(parser)
    args = parser.parse_args(argv)

    device = pick_device(args.device)
    model = chosen_model(args.checkpoint, args.average_checkpoints, args.prior, args.trust, device)
    locator = chosen_locator(args)
    if args.action_units is not None and len(args.videos) > 1:
        raise PainseqError(
            f"--action-units names the table of one video, and {len(args.videos)} are given. Put each video's table "
            "beside it, under its name, or predict them one by one."
        )
    done: list[VideoPrediction] = []
    failed = 0
    for video in args.videos:
        try:
            done.append(
                model.predict(
                    video, args.start_s, args.end_s, locator, args.baseline, args.image_fps, args.action_units
                )
            )
        except PainseqError as error:
            failed += 1
            sys.stderr.write(f"{video}: {error}\n")
            continue
        if done[-1].label is None and done[-1].value is None:
            failed += 1
            sys.stderr.write(f"{video}: no face found in any frame, so no prediction.\n")
    if args.json:
        sys.stdout.write(json.dumps([prediction.to_dict() for prediction in done], indent=2) + "\n")
    elif done:
        Console().print(_table(done, model.class_names, model.scale))
        backends = done[0].backends
        log.info("Backends: %s.", ", ".join(f"{key} {value}" for key, value in backends.items()))
    return 1 if failed else 0


def _table(predictions: Sequence[VideoPrediction], class_names: Sequence[str], scale: Scale | None) -> Table:
    table = Table(caption="Research software, no medical device.")
    table.add_column("video")
    for name in ("label", *class_names) if scale is None else (str(scale),):
        table.add_column(name, justify="left" if name == "label" else "right")
    table.add_column("frames", justify="right")
    table.add_column("faceless", justify="right")
    for prediction in predictions:
        table.add_row(
            Path(prediction.video).name,
            *_said(prediction, class_names, scale),
            str(prediction.frames),
            str(len(prediction.faceless_times_s)),
        )
    return table


def _said(prediction: VideoPrediction, class_names: Sequence[str], scale: Scale | None) -> list[str]:
    if scale is not None:
        return ["-" if prediction.value is None else f"{prediction.value:.2f}"]
    if prediction.label is None:
        return ["-"] * (1 + len(class_names))
    return [prediction.label, *(f"{prediction.probabilities[name]:.2f}" for name in class_names)]


def add_locator(parser: argparse.ArgumentParser) -> None:
    """Options that replace the locator a model was fitted with."""
    parser.add_argument(
        "--locator",
        choices=["yunet", "sidecar", "full_frame", "face_alignment"],
        help="find faces so, instead of as the model was fitted",
    )
    parser.add_argument("--yunet-model", help="path of YuNet's .onnx, instead of fetching it")


def chosen_locator(args: argparse.Namespace) -> Locator | None:
    """The locator that the options name; None leaves the model's own.

    Raises:
        PainseqError: a YuNet file for another locator.
    """
    from painseq.faces import FaceAlignment, FullFrame, Sidecar, YuNet

    if args.yunet_model is not None and args.locator != "yunet":
        raise PainseqError("--yunet-model goes with --locator yunet.")
    if args.locator is None:
        return None
    if args.locator == "yunet":
        return YuNet(args.yunet_model)
    if args.locator == "sidecar":
        return Sidecar()
    return FullFrame() if args.locator == "full_frame" else FaceAlignment()
