"""`painseq explain`: where in the face a checkpoint looked, and which frames decided."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.arguments import add_device, add_locator, add_model, chosen_locator, chosen_model

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    if argv[:1] == ["regions"]:
        from painseq.cli import explain_regions

        return explain_regions.main(argv[1:])
    if argv[:1] == ["score"]:
        from painseq.cli import explain_score

        return explain_score.main(argv[1:])
    args = _parser().parse_args(argv)
    from painseq.cli.progress import progress_bar
    from painseq.explain.by_input import MOST_STEPS
    from painseq.runs import pick_device
    from painseq.studies.explain_video import ExplainVideoOptions, explain_video

    options = ExplainVideoOptions(
        start_s=args.start_s,
        end_s=args.end_s,
        class_name=args.class_name,
        method=args.method,
        layer=args.layer,
        time_method=args.time_method,
        most_steps=MOST_STEPS if args.most_steps is None else args.most_steps,
        show_faces=args.show_faces,
        locator=chosen_locator(args),
        image_fps=args.image_fps,
        baseline=args.baseline,
        action_units=args.action_units,
        checkpoints=tuple(map(Path, args.checkpoint)),
    )
    model = chosen_model(args, pick_device(args.device))
    with progress_bar("explain", "%") as show:
        explained = explain_video(model, args.video, args.out, options, show)
    log.info("Backends: %s.", ", ".join(f"{key} {value}" for key, value in explained.prediction.backends.items()))
    log.info("Written to %s.", args.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq explain",
        description="Draw where in the face a checkpoint looked, and which frames decided.",
        epilog="`painseq explain regions --help`: shares of the face's regions over many clips. `painseq explain score "
        "--help`: which method to trust, measured over many clips.",
    )
    parser.add_argument("video", type=Path, help="video file, or a folder of images")
    add_model(parser)
    parser.add_argument("--out", type=Path, required=True, help="PNG to write, or a new folder for picture and numbers")
    parser.add_argument(
        "--method",
        help="for the map: gradcam, rollout, integrated_gradients, gradient_x_input, saliency, occlusion; default: "
        "gradcam for a CNN, rollout for a transformer",
    )
    parser.add_argument(
        "--layer",
        help="for gradcam, e.g. block4 of VGG16, layer3 of a ResNet; default: the last one whose maps are fine enough",
    )
    parser.add_argument(
        "--time-method",
        help="for the curve: integrated_gradients, gradient_x_input, saliency, frame_occlusion, attention, votes; "
        "default: integrated_gradients on the features, attention for ViViT",
    )
    parser.add_argument("--most-steps", type=int, help="for integrated_gradients: gradients at most; default: 1024")
    parser.add_argument("--baseline", type=Path, help="video of this person without pain, if the model needs it")
    parser.add_argument(
        "--action-units",
        type=Path,
        metavar="CSV",
        help="OpenFace's table of the video, for PSPI below the curve, and for a model that needs it; default: the one "
        "of the video's name beside it",
    )
    parser.add_argument("--image-fps", type=float, help="images a second, where VIDEO is a folder of images")
    parser.add_argument("--class-name", help="class to explain; default: the predicted one")
    parser.add_argument("--start-s", type=float, default=0.0, help="where to start, in seconds")
    parser.add_argument("--end-s", type=float, help="where to end, in seconds; default: the end of the video")
    parser.add_argument("--show-faces", action="store_true", help="draw the face too, though it may be a patient's")
    add_device(parser)
    add_locator(parser)
    return parser
