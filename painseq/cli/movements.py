"""`painseq movements`: 52 facial-movement coefficients of each frame of videos."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.arguments import add_locator_models

CAPTION = "Facial-movement coefficients are not FACS action units, and no PSPI can be computed from them."


def main(argv: Sequence[str]) -> int:
    """Run the command. A video that cannot be read is reported, does not stop the others, and makes it return 1."""
    parser = argparse.ArgumentParser(
        "painseq movements",
        description="Write 52 facial-movement coefficients of each frame of videos, with a picture of their course. "
        f"{CAPTION} Rerun the same command to resume.",
    )
    parser.add_argument("videos", nargs="+", type=Path, help="video files, folders of videos, or folders of images")
    parser.add_argument(
        "--out", type=Path, required=True, help="write a CSV, a PNG and a JSON per video to this folder"
    )
    parser.add_argument("--start-s", type=float, default=0.0, help="start at this time, in seconds; default: 0")
    parser.add_argument("--end-s", type=float, help="end at this time, in seconds; default: the end of the video")
    parser.add_argument("--image-fps", type=float, help="images per second, if a video is a folder of images")
    parser.add_argument("--video", action="store_true", help="also write an MP4 with the mesh of the face drawn")
    parser.add_argument("--show-faces", action="store_true", help="draw faces even if they may be patients'")
    parser.add_argument("--json", action="store_true", help="print a JSON list with the values of each video")
    add_locator_models(parser)
    args = parser.parse_args(argv)
    from painseq.cli.progress import progress_bar
    from painseq.faces import FaceMesh
    from painseq.faces.movements import Movements
    from painseq.studies.movements import MovementOptions, write_movements

    options = MovementOptions(
        FaceMesh(args.face_mesh_model, args.yunet_model),
        args.start_s,
        args.end_s,
        args.image_fps,
        args.video,
        args.show_faces,
    )
    done, tables = [], []
    with progress_bar("movements", "videos") as show:
        for result in write_movements(args.videos, args.out, options, show):
            done.append(result.table is not None)
            if result.problem is not None:
                sys.stderr.write(f"{result.video}: {result.problem}\n")
            if args.json and result.table is not None and result.summary is not None:
                tables.append({**result.summary, "values": Movements.read_csv(result.table).to_dict()})
    if args.json:
        sys.stdout.write(json.dumps(tables, indent=2) + "\n")
    else:
        sys.stdout.write(f"{sum(done)} of {len(done)} videos are written to {args.out}. {CAPTION}\n")
    return 0 if all(done) else 1
