"""`painseq audit check`: who and what is on both sides of a split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from painseq.cli.progress import progress_bar
from painseq.files import write_json
from painseq.studies.audit_check import CheckOptions, SplitAudit, audit_files

ITEMS_SHOWN = 10


def check(argv: Sequence[str]) -> int:
    """Check files as the command line says; 1 if anything leaks."""
    parser = argparse.ArgumentParser(
        "painseq audit check",
        description="Look for people, clips and copies of videos on both sides of a split. Exit code 0: nothing found; "
        "1: a leak.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a split or folds (JSON), a CSV of clips with a part or fold each, predictions, or several CSVs that are "
        "a part each, such as train.csv and test.csv",
    )
    parser.add_argument("--subject-column", help="column of subjects; default: guessed by its name")
    parser.add_argument("--part-column", help="column of parts or folds; default: guessed by its name")
    parser.add_argument("--split", type=Path, help="a split (JSON) that predictions or a CSV without parts belong to")
    parser.add_argument("--checkpoint", type=Path, help="the model whose predictions are checked")
    parser.add_argument(
        "--dataset",
        help="whose people the predictions are of; default: the data set whose people the checkpoint has seen, if it "
        "is one",
    )
    parser.add_argument("--root", type=Path, help="folder of the videos, to find copies by their content")
    parser.add_argument("--json", type=Path, help="write what was found here too")
    args = parser.parse_args(argv)

    options = CheckOptions(args.subject_column, args.part_column, args.split, args.checkpoint, args.dataset, args.root)
    with progress_bar("audit check", "videos") as on_progress:
        audit = audit_files(args.files, options, on_progress)
    show(audit)
    if args.json is not None:
        write_json(args.json, audit.to_dict())
    return 1 if audit.leaks else 0


def show(audit: SplitAudit) -> None:
    """Print what was found in each file, and whether anything leaks."""
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for what, findings in audit.findings.items():
        console.print(f"{what}: {'ok' if not findings else ''}".rstrip())
        for finding in findings:
            lines = [f"  {finding.severity.upper()}: {finding.text} ({len(finding.items)}):"]
            lines += [f"    {item}" for item in finding.items[:ITEMS_SHOWN]]
            more = len(finding.items) - ITEMS_SHOWN
            lines += [f"    and {more} more; --json FILE writes all"] if more > 0 else []
            console.print("\n".join(lines), style="bold red" if finding.severity == "leak" else "yellow")
    console.print(f"Leaks: {audit.leaks}." if audit.leaks else "No leak found.")
