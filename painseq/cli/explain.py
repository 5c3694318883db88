"""`painseq explain`: where in the face a checkpoint looked."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.cli.predict import add_locator, chosen_locator
from painseq.cli.run_folder import pick_device
from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.checkpoint import PainModel
    from painseq.faces import Locator

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser("painseq explain", description="Draw Grad-CAM of a checkpoint over a video.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="best.ckpt of a run")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--image-fps", type=float, help="images a second, where VIDEO is a folder of images")
    parser.add_argument("--class-name", help="class to explain; default: the predicted one")
    parser.add_argument("--start-s", type=float, default=0.0, help="where to start, in seconds")
    parser.add_argument("--end-s", type=float, help="where to end, in seconds; default: the end of the video")
    parser.add_argument("--show-faces", action="store_true", help="draw the face too, though it may be a patient's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--trust", nargs="*", default=[], help="packages whose classes may be built")
    add_locator(parser)
    args = parser.parse_args(argv)

    from painseq.checkpoint import load

    model = load(args.checkpoint, args.trust, pick_device(args.device))
    picture = explain_video(
        model,
        args.video,
        args.start_s,
        args.end_s,
        args.class_name,
        args.show_faces,
        chosen_locator(args),
        args.image_fps,
    )
    try:
        args.out.write_bytes(picture)
    except OSError as error:
        raise PainseqError(f"{args.out} cannot be written: {error}.") from error
    log.info("Written to %s.", args.out)
    return 0


def explain_video(
    model: PainModel,
    video: Path,
    start_s: float = 0.0,
    end_s: float | None = None,
    class_name: str | None = None,
    show_faces: bool = False,
    locator: Locator | None = None,
    image_fps: float | None = None,
) -> bytes:
    """Grad-CAM of a span of a video as a film strip, with the class's probability over time below it.

    Faces are drawn if they are generated ones, or if `show_faces` says so.

    Returns:
        A PNG.

    Raises:
        PainseqError: no face, an unknown class, an extractor without maps, an unreadable file.
    """
    from painseq.explain import film_strip, grad_cam
    from painseq.streams import assemble
    from painseq.synthetic import is_generated

    prediction = model.predict(video, start_s, end_s, locator, image_fps=image_fps)
    if prediction.label is None:
        raise PainseqError(f"{video}: no face found in any frame, so there is nothing to explain.")
    name = class_name or prediction.label
    if name not in model.class_names:
        raise PainseqError(f"No class {name!r}; this model's classes: {', '.join(model.class_names)}.")
    target = model.class_names.index(name)
    clip = model.crops(video, start_s, end_s, locator, image_fps)
    beside = [stream for stream in model.streams if stream != "cnn"]
    extra = assemble(clip, beside, model.openface(video, clip.times_s, start_s, image_fps)) if beside else None
    heat = grad_cam(model, clip.features, clip.present, target, extra)
    faces = show_faces or is_generated(video)
    log.info("%s: %s %.2f.%s", video.name, name, prediction.probabilities[name], "" if faces else " Faces not drawn.")
    return film_strip(
        clip.features,
        heat,
        clip.present,
        clip.times_s,
        f"Grad-CAM for {name}; predicted {prediction.label} ({prediction.probabilities[prediction.label]:.2f})",
        faces,
        curve=(
            prediction.frame_times_s,
            prediction.frame_probabilities[:, target],
            f"{name}\n({prediction.frame_meaning})",
        ),
    )
