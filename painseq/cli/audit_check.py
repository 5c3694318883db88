"""`painseq audit check`: subjects, clips and copies of videos on both sides of a split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.printing import terminal
from painseq.cli.progress import progress_bar
from painseq.files import write_json
from painseq.studies.audit_check import CheckOptions, SplitAudit, audit_files

ITEMS_SHOWN = 10


def check(argv: Sequence[str]) -> int:
    """Run the command; returns 1 if anything leaks."""
    parser = argparse.ArgumentParser(
        "painseq audit check",
        description="Check a split for subjects, clips and copies of videos on both sides. Exit code 0: no leak; 1: "
        "a leak.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a split or folds (JSON), a CSV of clips with a column of parts or folds, predictions, or one CSV per "
        "part, "
        "such as train.csv and test.csv",
    )
    parser.add_argument("--subject-column", help="read subjects from this column; default: guessed by name")
    parser.add_argument("--part-column", help="read parts or folds from this column; default: guessed by name")
    parser.add_argument("--split", type=Path, help="split (JSON) that predictions, or a CSV without parts, belong to")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="model that made the predictions; with --root, compares its training videos with those of the test part",
    )
    parser.add_argument(
        "--dataset",
        help="data set of the predictions' subjects; default: the data set that the checkpoint was trained on, if "
        "there "
        "is only one",
    )
    parser.add_argument("--root", type=Path, help="folder of the videos; compares their content to find copies")
    parser.add_argument("--json", type=Path, help="also write the findings to this file")
    args = parser.parse_args(argv)

    options = CheckOptions(args.subject_column, args.part_column, args.split, args.checkpoint, args.dataset, args.root)
    with progress_bar("audit check", "videos") as on_progress:
        audit = audit_files(args.files, options, on_progress)
    show(audit)
    if args.json is not None:
        write_json(args.json, audit.to_dict())
    return 1 if audit.leaks else 0


def show(audit: SplitAudit) -> None:
    """Print the findings of each file, and the number of leaks."""
    console = terminal(highlight=False, soft_wrap=True)
    for checked, findings in audit.findings.items():
        console.print(f"{checked}: {'ok' if not findings else ''}".rstrip())
        for finding in findings:
            lines = [f"  {finding.severity.upper()}: {finding.text} ({len(finding.items)}):"]
            lines += [f"    {item}" for item in finding.items[:ITEMS_SHOWN]]
            more = len(finding.items) - ITEMS_SHOWN
            lines += [f"    and {more} more; --json FILE writes all of them"] if more > 0 else []
            console.print("\n".join(lines), style="bold red" if finding.severity == "leak" else "yellow")
    console.print(f"Leaks: {audit.leaks}." if audit.leaks else "No leak found.")
