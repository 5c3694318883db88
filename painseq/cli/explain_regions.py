"""`painseq explain regions`: which regions of the face carry a checkpoint's scores, over many clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from painseq.cli.arguments import Parser, add_device, add_model, add_part, chosen_model, experiment

if TYPE_CHECKING:
    from painseq.explain import RegionRow
    from painseq.studies.explain_regions import RegionsExplanation

DESCRIPTION = "Measure which regions of the face carry a checkpoint's scores, over many clips of a data set."
log = logging.getLogger("painseq")


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and pictures")
    add_model(parser)
    add_part(parser)
    add_clips(parser)
    parser.add_argument("--method", type=str, help="as for `painseq explain`")
    parser.add_argument("--layer", type=str, help="for gradcam")
    parser.add_argument(
        "--landmarks",
        choices=["sidecar", "face_alignment"],
        help="where landmarks come from, if the model's own locator finds none; its crops stay",
    )
    add_device(parser)


def add_clips(parser: Parser) -> None:
    """`--clips` and `--class-name`."""
    parser.add_argument(
        "--clips", type=int, default=20, help="how many clips, chosen evenly by class and subject; default: 20"
    )
    parser.add_argument("--class-name", type=str, help="class to explain; default: the predicted one")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("explain regions", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import progress_bar
    from painseq.runs import pick_device
    from painseq.studies.explain_regions import RegionOptions, explain_regions

    args = cli.config
    options = RegionOptions(
        part=args.part,
        clips=args.clips,
        method=args.method,
        layer=args.layer,
        class_name=args.class_name,
        landmarks=args.landmarks,
        checkpoints=tuple(map(Path, args.checkpoint)),
    )
    data, model = cli.data(), chosen_model(args, pick_device(args.device))
    with progress_bar("explain regions", "clips") as show:
        found = explain_regions(model, data, args.out, options, cli.experiment, show)
    _show(found)
    log.info("Written to %s.", args.out)
    return 0


def _show(found: RegionsExplanation) -> None:
    from painseq.explain.regions import ACTION_UNITS

    table = Table(
        caption="Shares of the attribution, in brackets of the area; below them 95 % intervals over subjects. Research "
        "software, no medical device."
    )
    table.add_column("region,\naction units")
    for name in found.tables:
        # As wide as an interval, also on a narrow screen.
        table.add_column(name, justify="right", min_width=10)
    for rows in zip(*found.tables.values(), strict=True):
        units = " ".join(unit.removeprefix("AU") for unit in ACTION_UNITS[rows[0].region])
        table.add_row(f"{rows[0].region}\n{units}", *map(_cell, rows))
    Console().print(table)
    for name, check in found.blinks.items():
        Console().print(
            f"Blinks, {name} ({check.clips} clips of {check.area.interval.subjects} subjects): {check.verdict} "
            f"{check.figures}",
            highlight=False,
        )
    layer = "" if found.details["layer"] is None else f", layer {found.details['layer']}"
    subjects = {row.clip.subject_id for row in found.clips}
    log.info("%s%s, %d clips of %d subjects.", found.details["method"], layer, len(found.clips), len(subjects))
    for clip_id, reason in found.skipped.items():
        log.warning("Skipped %s: %s", clip_id, reason)
    if found.details["seen_in_training"]["seen"]:
        log.warning(
            "The model was fitted on %(seen)d of these %(subjects)d subjects.", found.details["seen_in_training"]
        )


def _cell(row: RegionRow) -> str:
    if row.share.value is None or row.area.value is None:
        return "-"
    low, high = row.share.interval.low, row.share.interval.high
    ends = "" if low is None or high is None else f"\n{low:.2f}..{high:.2f}"
    return f"{row.share.value:.2f} ({row.area.value:.2f}){ends}"
