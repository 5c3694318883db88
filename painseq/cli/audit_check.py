"""`painseq audit check`: who and what is on both sides of a split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from painseq.errors import PainseqError
from painseq.evaluation.split_check import (
    Finding,
    Member,
    Table,
    check_contents,
    check_members,
    check_seen,
    joined,
    read_table,
)
from painseq.files import write_json

ITEMS_SHOWN = 10


def check(argv: Sequence[str]) -> int:
    """Check files as the command line says; 1 if anything leaks.

    Raises:
        PainseqError: a file that cannot be read, or that there is nothing to compare with.
    """
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
        help="whose people the predictions are of; default: that of whom the checkpoint has seen people, if it is one",
    )
    parser.add_argument("--root", type=Path, help="folder of the videos, to find copies by their content")
    parser.add_argument("--json", type=Path, help="write what was found here too")
    args = parser.parse_args(argv)

    found = _check(args)
    leaks = sum(finding.severity == "leak" for findings in found.values() for finding in findings)
    _print(found, leaks)
    if args.json is not None:
        checked = {what: [finding.to_dict() for finding in findings] for what, findings in found.items()}
        write_json(args.json, {"leaks": leaks, "checked": checked})
    return 1 if leaks else 0


def _check(args: argparse.Namespace) -> dict[str, list[Finding]]:
    """What was looked at -> what was found."""
    tables = [read_table(path, args.subject_column, args.part_column) for path in args.files]
    split = None if args.split is None else read_table(args.split)
    if split is not None and any(member.fold for member in split.members):
        raise PainseqError(f"--split {split.path} holds several folds. Name a split of one, or its --checkpoint.")
    predictions = [table for table in tables if table.kind == "predictions"]
    divided = {_named(table): table.members for table in tables if table.kind in ("split", "table")}
    partless = [table for table in tables if table.kind == "parts unknown"]
    if partless:
        divided[" and ".join(str(table.path) for table in partless)] = joined(partless, split)
    found = {what: [*check_members(members)] for what, members in divided.items()}
    for table in predictions:
        found[_named(table)] = _check_predictions(table, split, args)
    if args.root is not None:
        for what, members in divided.items():
            found[what] += _contents(members, args.root)
        if not divided:
            raise PainseqError("--root compares the videos of a split, and predictions alone name none.")
    return found


def _named(table: Table) -> str:
    read = ", ".join(f"{what} in {column!r}" for what, column in table.columns.items())
    return f"{table.path} ({table.kind}{f'; {read}' if read else ''})"


def _check_predictions(table: Table, split: Table | None, args: argparse.Namespace) -> list[Finding]:
    """Whether anybody scored was seen by the model."""
    found = list(table.marks)
    if split is not None:
        seen = [member.subject for member in split.members if member.part != "test"]
        found += check_seen(table.members, seen, f"{split.path} trains or stops early on")
    if args.checkpoint is not None:
        for who, seen in _seen(args.checkpoint, args.dataset).items():
            found += check_seen(table.members, seen, who)
    if split is None and args.checkpoint is None and not found:
        raise PainseqError(
            f"{table.path} holds predictions, which tell nothing of whom the model had seen. Give its --checkpoint, or "
            "the --split that it was fitted on."
        )
    return found


def _seen(checkpoint: Path, data_set: str | None) -> dict[str, list[str]]:
    """How a model has seen people -> these, of one data set."""
    from painseq.model.checkpoint import read_checkpoint

    record = read_checkpoint(checkpoint).record
    people = {
        f"{checkpoint} was fitted on": record.fitted_on,
        f"{checkpoint} has an extractor trained on": record.extractor_trained_on,
    }
    data_sets = sorted({name.partition("/")[0] for names in people.values() for name in names})
    if data_set is None and len(data_sets) > 1:
        raise PainseqError(
            f"{checkpoint} has seen people of {' and '.join(data_sets)}, and their names may be alike. Say of whom the "
            "predictions are: --dataset."
        )
    own = f"{data_set or ''.join(data_sets)}/"
    return {what: [name.removeprefix(own) for name in names if name.startswith(own)] for what, names in people.items()}


def _contents(members: Sequence[Member], root: Path) -> list[Finding]:
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("videos", total=None)
        return check_contents(members, root, lambda done, total: bar.update(task, completed=done, total=total))


def _print(found: dict[str, list[Finding]], leaks: int) -> None:
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for what, findings in found.items():
        console.print(f"{what}: {'ok' if not findings else ''}".rstrip())
        for finding in findings:
            lines = [f"  {finding.severity.upper()}: {finding.text} ({len(finding.items)}):"]
            lines += [f"    {item}" for item in finding.items[:ITEMS_SHOWN]]
            more = len(finding.items) - ITEMS_SHOWN
            lines += [f"    and {more} more; --json FILE writes all"] if more > 0 else []
            console.print("\n".join(lines), style="bold red" if finding.severity == "leak" else "yellow")
    console.print(f"Leaks: {leaks}." if leaks else "No leak found.")
