"""`painseq audit`: how much leaky protocols inflate a model's scores, and leaks in a split."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.cli.arguments import Parser, add_tuning, chosen_tuning, experiment
from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.evaluation.audit import Audit

USAGE = """usage: painseq audit model | check [options]

  model  Fit one model under leaky protocols and under subject folds, on the same items, and report how much leakage
         inflates its scores.
  check  Check a split file, a table of clips or predictions for subjects, clips and copies on both sides; exit code 1
         if there are any.

`painseq audit model --help` and `painseq audit check --help` list their options.
"""
log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command; `check` returns 1 if anything leaks."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if argv[0] == "model":
        _audit_model(argv[1:])
        return 0
    if argv[0] == "check":
        from painseq.cli.audit_check import check

        return check(argv[1:])
    raise PainseqError(
        f"Unknown subcommand `painseq audit {argv[0]}`. Use `model` or `check`, followed by the options."
    )


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `audit model`."""
    parser.add_argument("--out", type=Path, required=True, help="write the audit to this folder; rerun to resume")
    parser.add_argument("--folds", type=int, default=5, help="number of folds of each protocol; default: 5")
    parser.add_argument("--epochs", type=int, help="train for this many epochs instead of stopping early")
    parser.add_argument("--frames-per-clip", type=int, help="use this many frames of each clip; default: all")
    add_tuning(parser, "--threshold-folds")


def _audit_model(argv: Sequence[str]) -> None:
    cli = experiment(
        "audit model",
        "Fit one model under leaky protocols and under subject folds, and report the inflation of its scores.",
        add_arguments,
        argv,
    )
    from painseq.cli.progress import progress_bar
    from painseq.studies.audit import AuditOptions, audit_model
    from painseq.studies.fold_fits import candidate_of

    args, parsed = cli.config, cli.experiment
    options = AuditOptions(args.folds, args.epochs, args.frames_per_clip)
    data, candidate = cli.data(), candidate_of(parsed)
    tuning = chosen_tuning(args.tune_threshold, args.threshold_folds)
    if tuning is not None:
        candidate = replace(candidate, options=replace(candidate.options, tune_threshold=tuning))
    with progress_bar("audit", "folds") as on_progress:
        audit = audit_model(candidate, data, args.out, options, parsed.config, on_progress)
    show(audit)
    log.info("Report: %s", args.out / "report.html")


def show(audit: Audit) -> None:
    """Print the balanced accuracies, their inflation, and a sentence for each."""
    from rich.table import Table

    from painseq.cli.printing import terminal
    from painseq.evaluation.tables import threshold_table
    from painseq.studies.audit_page import audit_cells, headlines

    console = terminal()
    for unit in audit.subject_folds.evaluations:
        table = Table(title=f"Balanced accuracy over {unit}", caption="95 % intervals over subjects")
        table.add_column("protocol", no_wrap=True)
        for column in ("score", "95 % interval", "inflation", "95 % interval"):
            table.add_column(column, justify="right")
        for protocol, scored_unit, name, *figures, _ in audit_cells(audit):
            if scored_unit == unit and name == "balanced accuracy":
                table.add_row(protocol, *figures)
        console.print(table)
    thresholds = threshold_table(
        {each.protocol.title: each.evaluations[audit.unit].threshold for each in audit.results}
    )
    if thresholds is not None:
        console.print(thresholds)
    for inflation in headlines(audit):
        console.print(inflation.sentence(), markup=False, highlight=False)
