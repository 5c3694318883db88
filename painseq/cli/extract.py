"""`painseq extract`: videos into a feature store."""

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
    parser.add_argument("--out", type=Path, required=True, help="folder of the feature store")
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16", help="of the features kept")
    add_device(parser)
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of the network; auto: bf16 where the device has it natively, or that of the store to complete",
    )
    parser.add_argument("--batch-frames", type=int, help="frames the network takes at once; default: 8, on a GPU 128")
    parser.add_argument("--workers", type=int, help="threads that read videos; default: 1, for a GPU up to 8")
    parser.add_argument("--strict", action="store_true", help="end at the first clip that fails")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="also write one .npz a clip here")
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
    log.info("%s", summary)
    if args.export is not None:
        log.info("Exported to %s.", args.export)
    if args.json:
        sys.stdout.write(json.dumps(summary.to_dict(), indent=2) + "\n")
    return 0
