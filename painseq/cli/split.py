"""`painseq split`: show the subjects of each part, and write the split as a file to publish."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from painseq.cli.arguments import Parser, experiment
from painseq.cli.printing import terminal

if TYPE_CHECKING:
    from painseq.data.datamodule import PainDataModule

DESCRIPTION = "Show the subjects of each part of a data set, and write the split as a file to publish."
log = logging.getLogger("painseq")


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "--out", type=Path, required=True, help="write the split to this JSON file; it must not exist yet"
    )


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("split", DESCRIPTION, add_arguments, argv)
    from painseq.data.splits import made_with, write_split

    data, out = cli.data(), cli.config.out
    write_split(out, data.split, data.manifest, made_with(data.options.split))
    terminal().print(parts_table(data))
    log.info(
        "Split written to %s. To use it: --data.options.split.protocol file --data.options.split.file %s", out, out
    )
    return 0


def parts_table(data: PainDataModule) -> Table:
    """Return a table of the subjects, and of the clips by class, in each part of a data set's split."""
    table = Table(title=f"{data.name}, {data.split.protocol}", caption="Clips by class; ?: hidden label.")
    for column in ("part", "subjects", "clips", *data.scheme.groups, "?"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part in data.split.parts():
        clips = data.split.clips(data.manifest, part)
        counts = data.scheme.counts(clips)
        hidden = len(clips) - sum(counts.values())
        cells = (len(data.split.subjects(part)), len(clips), *counts.values(), hidden)
        table.add_row(part, *(str(cell) for cell in cells))
    return table
