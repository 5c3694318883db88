"""`painseq extract`: extract features of videos into a feature store."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.arguments import Parser, add_device, add_parts, experiment

DESCRIPTION = "Extract the features of a data set's videos into a store. Rerun the same command to resume."
log = logging.getLogger("painseq")


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("--out", type=Path, required=True, help="write the feature store to this folder")
    parser.add_argument(
        "--dtype",
        choices=["float16", "float32"],
        default="float16",
        help="data type of the stored features; default: float16",
    )
    add_device(parser)
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="precision of the network; default: auto, which is the precision of an existing store, else bf16 where "
        "the "
        "device supports it natively, else fp32",
    )
    parser.add_argument("--batch-frames", type=int, help="frames per batch; default: 8, or 128 on a GPU")
    parser.add_argument(
        "--workers", type=int, help="read videos with this many threads; default: 1, or up to 8 for a GPU"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first clip that fails")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="also write one .npz per clip to this folder")
    add_parts(parser)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("extract", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import extract_bar
    from painseq.features import ExtractOptions
    from painseq.runs import pick_device, this_process
    from painseq.studies.extract import extract_data_set

    args, process = cli.config, this_process()
    options = ExtractOptions(
        dtype=args.dtype,
        device=pick_device(args.device, process),
        precision=args.precision,
        batch_frames=args.batch_frames,
        workers=args.workers,
        strict=args.strict,
        process=process,
    )
    with extract_bar("extract", shown=process.rank == 0) as show:
        summary = extract_data_set(cli.data(), cli.extractor(), args.out, options, args.parts, args.export, show)
    if args.export is not None:
        log.info("Exported to %s.", args.export)
    if args.json:
        sys.stdout.write(json.dumps(summary.to_dict(), indent=2) + "\n")
    return 0
