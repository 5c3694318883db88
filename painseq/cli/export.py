"""`painseq export`: write a checkpoint as ONNX files, which predict without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.arguments import add_locator, add_trust, chosen_locator, parse_prior


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = _parser().parse_args(argv)
    locator = chosen_locator(args)
    from rich.table import Table

    from painseq.cli.printing import terminal
    from painseq.cli.progress import progress_bar
    from painseq.export import export
    from painseq.runtime.folder import MODEL

    prior = parse_prior(args.prior) if args.prior else None
    with progress_bar("export", "graphs") as show:
        record = export(args.checkpoint, args.out, locator, prior, args.trust, show)
    table = Table("file", "MB", title=str(args.out))
    table.columns[1].justify = "right"
    sizes = {name: file.bytes for name, file in record.files.items()}
    for name, size in {**sizes, MODEL: (args.out / MODEL).stat().st_size}.items():
        table.add_row(name, f"{size / 1e6:.3f}")
    terminal().print(table)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq export",
        description="Write a checkpoint as ONNX files with everything that prediction from videos needs, and compare "
        "each file with the checkpoint. `painseq predict --checkpoint FOLDER` then needs no torch.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="best.ckpt of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="write to this new folder")
    parser.add_argument(
        "--prior",
        nargs="*",
        default=[],
        metavar="CLASS=SHARE",
        help="correct the probabilities for these class shares, where they differ from training",
    )
    add_trust(parser)
    add_locator(parser)
    return parser
