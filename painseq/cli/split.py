"""`painseq split`: who is in which part, shown and written as a file to be published."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from painseq.cli.arguments import Parser, experiment

if TYPE_CHECKING:
    from painseq.data.datamodule import PainDataModule

DESCRIPTION = "Show who is in which part of a data set, and write it as a file that others can use."
log = logging.getLogger("painseq")


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("--out", type=Path, required=True, help="JSON to write; it must not exist yet")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("split", DESCRIPTION, add_arguments, argv)
    from painseq.data.splits import made_with, write_split

    data, out = cli.data(), cli.config.out
    write_split(out, data.split, data.manifest, made_with(data.options.split))
    Console().print(parts_table(data))
    log.info("Written to %s. To use it: --data.options.split.protocol file --data.options.split.file %s", out, out)
    return 0


def parts_table(data: PainDataModule) -> Table:
    """Subjects and clips, by class, of each part of a data set's split."""
    shown = Table(title=f"{data.name}, {data.split.protocol}", caption="Clips by class; ? is a hidden label.")
    for column in ("part", "subjects", "clips", *data.scheme.groups, "?"):
        shown.add_column(column, justify="left" if column == "part" else "right")
    for part in data.split.parts():
        clips = data.split.clips(data.manifest, part)
        counts = data.scheme.counts(clips)
        hidden = len(clips) - sum(counts.values())
        cells = (len(data.split.subjects(part)), len(clips), *counts.values(), hidden)
        shown.add_row(part, *(str(cell) for cell in cells))
    return shown
