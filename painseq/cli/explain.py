"""`painseq explain`: where in the face a checkpoint looked, and which frames decided."""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from painseq.cli.arguments import add_locator, chosen_locator
from painseq.cli.chosen_model import AVERAGE_HELP, PRIOR_HELP, chosen_model
from painseq.cli.explained_video import Explained, explanation
from painseq.errors import PainseqError
from painseq.files import write_json
from painseq.runs import new_run_folder, pick_device, versions

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    if argv[:1] == ["regions"]:
        from painseq.cli import explain_regions

        return explain_regions.main(argv[1:])
    if "--score" in argv:
        from painseq.cli import explain_scores

        return explain_scores.main([arg for arg in argv if arg != "--score"])
    parser = argparse.ArgumentParser(
        "painseq explain",
        description="Draw where in the face a checkpoint looked, and which frames decided. `painseq explain --score "
        "--help`: measure which method to trust; `painseq explain regions --help`: regions over many clips.",
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="best.ckpt of a run")
    parser.add_argument("--average-checkpoints", nargs="+", type=Path, default=[], help=AVERAGE_HELP)
    parser.add_argument("--prior", nargs="+", default=[], metavar="CLASS=SHARE", help=PRIOR_HELP)
    parser.add_argument("--out", type=Path, required=True, help="PNG to write, or a new folder for picture and numbers")
    parser.add_argument(
        "--method",
        help="for the map: gradcam, rollout, integrated_gradients, gradient_x_input, saliency, occlusion; default: "
        "gradcam for a CNN, rollout for a transformer",
    )
    parser.add_argument("--layer", help="for gradcam, e.g. block4 of VGG16, layer3 of a ResNet; default: the last one "
                        "whose maps are not too coarse")  # fmt: skip
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
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--trust", nargs="*", default=[], help="packages whose classes may be built")
    add_locator(parser)
    args = parser.parse_args(argv)

    if _is_png(args.out) and args.out.exists():
        raise PainseqError(f"{args.out} is there already, and nothing is overwritten. Give another --out.")
    device = pick_device(args.device)
    with nullcontext() if _is_png(args.out) else new_run_folder(args.out):
        model = chosen_model(args.checkpoint, args.average_checkpoints, args.prior, args.trust, device)
        with _bar() as show:
            explained = explanation(
                model,
                args.video,
                args.start_s,
                args.end_s,
                args.class_name,
                args.show_faces,
                chosen_locator(args),
                args.image_fps,
                baseline=args.baseline,
                method=args.method,
                layer=args.layer,
                time_method=args.time_method,
                most_steps=args.most_steps,
                action_units=args.action_units,
                on_progress=show,
            )
        made_of = {
            "checkpoints": [str(path) for path in args.average_checkpoints or [args.checkpoint]],
            "start_s": args.start_s,
            "end_s": args.end_s,
            "versions": versions(),
        }
        _write(explained, args.out, made_of)
    backends = explained.prediction.backends
    log.info("Backends: %s.", ", ".join(f"{key} {value}" for key, value in backends.items()))
    log.info("Written to %s.", args.out)
    return 0


def _write(explained: Explained, out: Path, made_of: Mapping[str, object]) -> None:
    """A PNG; or a folder with picture and video, explanation.json, frames.csv and the maps as maps.npz."""
    from painseq.explain import write_overlay_video

    picture = explained.picture()
    try:
        if _is_png(out):
            out.write_bytes(picture)
            return
        (out / "explanation.png").write_bytes(picture)
        write_json(out / "explanation.json", {**explained.to_dict(), **made_of})
        time = explained.time
        with (out / "frames.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["time_s", "face", time.method])
            for row in zip(time.times_s.tolist(), time.present.tolist(), time.over_time.tolist(), strict=True):
                rows.writerow([f"{row[0]:.4f}", int(row[1]), f"{row[2]:.6g}"])
        if explained.space is not None:
            space = explained.space
            maps = space.maps.numpy().astype(np.float32)
            np.savez_compressed(
                out / "maps.npz", maps=maps, times_s=space.times_s.numpy(), present=space.present.numpy()
            )
            write_overlay_video(out / "overlay.mp4", space, explained.faces, explained.curves(), explained.cut)
    except OSError as error:
        raise PainseqError(f"{out} cannot be written: {error}.") from error


def _is_png(out: Path) -> bool:
    return out.suffix.lower() == ".png"


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def show(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=1.0)
            bar.update(tasks[what], completed=share)

        yield show
