"""`painseq faces`: detect and track faces, and store the tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from painseq.cli.arguments import Parser, add_parts, experiment

DESCRIPTION = (
    "Detect and track the face in a data set's videos, and store the tracks. Rerun the same command to resume."
)


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("--out", type=Path, required=True, help="write the face tracks to this folder")
    parser.add_argument("--workers", type=int, default=1, help="read videos with this many threads; default: 1")
    add_parts(parser)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("faces", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import extract_bar
    from painseq.runs import this_process
    from painseq.studies.tracks import track_faces

    args, process = cli.config, this_process()
    with extract_bar("faces", shown=process.rank == 0) as show:
        track_faces(cli.data(), args.out, args.parts, args.workers, process, show)
    return 0
