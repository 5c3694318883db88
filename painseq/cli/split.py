"""`painseq split`: who is in which part, shown and written as a file to be published."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from painseq.cli.experiment import ExperimentCLI
from painseq.data.datamodule import PainDataModule
from painseq.data.splits import read_made_with, write_split
from painseq.errors import PainseqError

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        PainseqError: no data set; a split that cannot be made; a file that exists already.
    """
    cli = ExperimentCLI("split", argv)
    data, out = cli.datamodule, Path(cli.config["out"])
    if not isinstance(data, PainDataModule):
        raise PainseqError("`painseq split` needs a data set: --config configs/data/biovid.yaml, or --data BioVid.")
    options = data.options.split
    # A file made of a file tells what made the first one, not where that lies here.
    made_with = options.decisive()
    if options.protocol == "file" and options.file is not None:
        made_with = read_made_with(options.file)
    write_split(out, data.split, data.manifest, made_with)
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
