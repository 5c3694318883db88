"""`painseq explain score`: which explanation method to trust for a checkpoint, measured over many clips."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from painseq.cli.arguments import Parser, add_clips, add_explained, chosen_model, experiment
from painseq.cli.printing import tell_of_training, terminal

if TYPE_CHECKING:
    from painseq.explain.ranking import Rank
    from painseq.studies.score_methods import MethodRanking

DESCRIPTION = (
    "Measure which explanation method to trust for a checkpoint, over many clips of a data set. Rerun the same command "
    "to resume."
)
log = logging.getLogger("painseq")

HEADINGS = {
    "gain": "gain",
    "infidelity": "infid.",
    "sensitivity": "sens.",
    "truth_mass": "mass",
    "truth_area": "area",
    "truth_pointing": "point.",
}
"""The measures that fit on a terminal, and their headings; the files have all measures."""


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    add_explained(parser, "write the results to this folder; rerun to resume")
    add_clips(parser)
    parser.add_argument(
        "--methods",
        type=str,
        nargs="*",
        default=[],
        metavar="METHOD",
        help="score these methods; default: all that fit the model",
    )
    parser.add_argument(
        "--most-steps",
        type=int,
        default=64,
        help="compute at most this many gradients for integrated_gradients; default: 64",
    )


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("explain score", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import progress_bar
    from painseq.runs import pick_device
    from painseq.studies.score_methods import ScoringOptions, score_methods

    args = cli.config
    options = ScoringOptions(
        part=args.part,
        clips=args.clips,
        methods=args.methods,
        class_name=args.class_name,
        most_steps=args.most_steps,
        seed=int(args.seed_everything or 0),
        checkpoints=tuple(map(Path, args.checkpoint)),
    )
    data, model = cli.data(), chosen_model(args, pick_device(args.device))
    with progress_bar("explain score", "steps") as show:
        ranking = score_methods(model, data, args.out, options, cli.experiment, show)
    _show(ranking)
    log.info("Results written to %s.", args.out)
    return 0


def _show(ranking: MethodRanking) -> None:
    """Print the tables, and which method to use."""
    from painseq.studies.score_methods import TITLES

    console, details = terminal(), ranking.details
    subjects = len({scored.clip.subject_id for scored in ranking.clips})
    for kind, ranks in ranking.ranks.items():
        names = [name for name in HEADINGS if any(ranked.means[name].value is not None for ranked in ranks)]
        title = f"{TITLES[kind].capitalize()}: {len(ranking.clips)} clips of {subjects} subjects"
        table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=0)
        table.add_column("method", no_wrap=True)
        for name in (*names, "shuffled"):
            table.add_column(HEADINGS.get(name, name), justify="right", no_wrap=True)
        for ranked in ranks:
            check = details["randomisation"][kind].get(ranked.method)
            table.add_row(ranked.method, *(_cell(ranked, name) for name in names), _similarity(check))
        console.print(table)
        console.print(details["verdict"][kind], highlight=False)
    for clip_id, reason in ranking.skipped.items():
        log.warning("Skipped %s: %s", clip_id, reason)
    tell_of_training(details)


def _cell(ranked: Rank, name: str) -> str:
    mean = ranked.means[name]
    if mean.value is None:
        return "-"
    low, high = mean.interval.low, mean.interval.high
    ends = f"\n{low:.2f}..{high:.2f}" if name == "gain" and low is not None and high is not None else ""
    return f"{mean.value:.2f}{ends}"


def _similarity(check: Mapping[str, Any] | None) -> str:
    """Return the mean rank correlations with the maps of randomised models, of values and of absolute values."""
    if check is None:
        return ""
    means = [check["similarity"]["everything"][key]["value"] for key in ("signed", "absolute")]
    correlations = "\n".join("-" if value is None else f"{value:.2f}" for value in means)
    return f"{correlations}\nFLAGGED" if check["survives"] else correlations
