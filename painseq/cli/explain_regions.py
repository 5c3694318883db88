"""`painseq explain regions`: how much each region of the face contributes to a checkpoint's scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from painseq.cli.arguments import (
    Parser,
    add_clips,
    add_explained,
    add_locator_models,
    chosen_model,
    experiment,
)
from painseq.cli.printing import tell_of_training, terminal

if TYPE_CHECKING:
    from painseq.explain import RegionRow
    from painseq.studies.explain_regions import RegionsExplanation

DESCRIPTION = (
    "Measure how much each region of the face contributes to a checkpoint's scores, over many clips of a data set."
)
log = logging.getLogger("painseq")


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    add_explained(parser, "write tables and pictures to this folder")
    add_clips(parser)
    parser.add_argument("--method", type=str, help="method of the maps, as for `painseq explain`")
    parser.add_argument("--layer", type=str, help="layer for gradcam")
    parser.add_argument(
        "--landmarks",
        choices=["face_mesh", "sidecar", "face_alignment"],
        help="read landmarks from this locator, if the model's own finds none; crops stay the model's",
    )
    add_locator_models(parser)


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
        face_mesh_model=args.face_mesh_model,
        yunet_model=args.yunet_model,
        checkpoints=tuple(map(Path, args.checkpoint)),
    )
    data, model = cli.data(), chosen_model(args, pick_device(args.device))
    with progress_bar("explain regions", "clips") as show:
        explanation = explain_regions(model, data, args.out, options, cli.experiment, show)
    _show(explanation)
    log.info("Results written to %s.", args.out)
    return 0


def _show(explanation: RegionsExplanation) -> None:
    from painseq.explain.regions import ACTION_UNITS

    table = Table(
        caption="Share of the attribution (share of the area), with 95 % intervals over subjects. Research "
        "software, not "
        "a medical device."
    )
    table.add_column("region,\naction units")
    for name in explanation.tables:
        # Wide enough for an interval on a narrow screen.
        table.add_column(name, justify="right", min_width=10)
    for rows in zip(*explanation.tables.values(), strict=True):
        units = " ".join(unit.removeprefix("AU") for unit in ACTION_UNITS[rows[0].region])
        table.add_row(f"{rows[0].region}\n{units}", *map(_cell, rows))
    terminal().print(table)
    for name, check in explanation.blinks.items():
        terminal().print(
            f"Blinks, {name} ({check.clips} clips of {check.area.interval.subjects} subjects): {check.verdict} "
            f"{check.figures}",
            highlight=False,
        )
    layer = "" if explanation.details["layer"] is None else f", layer {explanation.details['layer']}"
    subjects = {row.clip.subject_id for row in explanation.clips}
    log.info(
        "%s%s, %d clips of %d subjects.", explanation.details["method"], layer, len(explanation.clips), len(subjects)
    )
    for clip_id, reason in explanation.skipped.items():
        log.warning("Skipped %s: %s", clip_id, reason)
    tell_of_training(explanation.details)


def _cell(row: RegionRow) -> str:
    if row.share.value is None or row.area.value is None:
        return "-"
    low, high = row.share.interval.low, row.share.interval.high
    ends = "" if low is None or high is None else f"\n{low:.2f}..{high:.2f}"
    return f"{row.share.value:.2f} ({row.area.value:.2f}){ends}"
