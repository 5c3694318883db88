"""`painseq explain`: which places in the face, and which frames, a checkpoint's score depends on."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.arguments import (
    add_device,
    add_locator,
    add_min_face_share,
    add_model,
    add_person,
    chosen_locator,
    chosen_model,
)

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    if argv[:1] == ["regions"]:
        from painseq.cli import explain_regions

        return explain_regions.main(argv[1:])
    if argv[:1] == ["columns"]:
        from painseq.cli import explain_columns

        return explain_columns.main(argv[1:])
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
        same_person=tuple(args.same_person),
        action_units=args.action_units,
        checkpoints=tuple(map(Path, args.checkpoint)),
        min_face_share=args.min_face_share,
    )
    model = chosen_model(args, pick_device(args.device))
    with progress_bar("explain", "%") as show:
        explained = explain_video(model, args.video, args.out, options, show)
    log.info("Backends: %s.", ", ".join(f"{key} {value}" for key, value in explained.prediction.backends.items()))
    log.info("Results written to %s.", args.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq explain",
        description="Draw which places in the face, and which frames, a checkpoint's score depends on.",
        epilog="`painseq explain regions --help`: measure the face's regions over many clips. `painseq explain columns "
        "--help`: measure named columns, such as movements. `painseq explain score --help`: measure which method to "
        "trust.",
    )
    parser.add_argument("video", type=Path, help="video file, or a folder of images")
    add_model(parser)
    parser.add_argument("--out", type=Path, required=True, help="write a PNG, or picture and numbers to a new folder")
    parser.add_argument(
        "--method",
        help="method of the map: gradcam (default for a CNN), rollout (for a transformer), occlusion (under trees), "
        "integrated_gradients, gradient_x_input, saliency",
    )
    parser.add_argument(
        "--layer",
        help="layer for gradcam, e.g. block4 of VGG16, layer3 of a ResNet; default: the last with fine enough maps",
    )
    parser.add_argument(
        "--time-method",
        help="method of the curve over time: integrated_gradients, gradient_x_input, saliency, frame_occlusion, "
        "attention, votes; "
        "default: integrated_gradients on the features, attention for ViViT, frame_occlusion for trees",
    )
    parser.add_argument(
        "--most-steps", type=int, help="compute at most this many gradients for integrated_gradients; default: 1024"
    )
    add_person(parser)
    parser.add_argument(
        "--action-units",
        type=Path,
        metavar="CSV",
        help="table of the video's action units, for the PSPI curve and for models of them; default: the CSV beside",
    )
    parser.add_argument("--image-fps", type=float, help="images per second, if VIDEO is a folder of images")
    parser.add_argument("--class-name", help="explain this class; default: the predicted class")
    parser.add_argument("--start-s", type=float, default=0.0, help="start at this time, in seconds; default: 0")
    parser.add_argument("--end-s", type=float, help="end at this time, in seconds; default: the end of the video")
    parser.add_argument("--show-faces", action="store_true", help="draw the face even if it may be a patient's")
    add_min_face_share(parser)
    add_device(parser)
    add_locator(parser)
    return parser
