"""`painseq store`: show what a feature store holds, or verify its files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.cli.arguments import add_trust
from painseq.errors import first_few

if TYPE_CHECKING:
    from painseq.features import FeatureStore

NAMES_SHOWN = 10


def main(argv: Sequence[str]) -> int:
    """Run the command; `check` returns 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        "painseq store", description="Show what a feature store holds, or verify its files."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="info | check")
    info = commands.add_parser("info", help="print contents, fingerprint and settings of the extraction")
    check = commands.add_parser("check", help="compare every file with its recorded digest")
    for command in (info, check):
        command.add_argument("path", type=Path, help="folder of the feature store")
        command.add_argument("--json", action="store_true", help="print JSON")
    add_trust(check)
    args = parser.parse_args(argv)

    from painseq.features import FeatureStore
    from painseq.features.summary import summarise_store

    store = FeatureStore(args.path)
    if args.command == "check":
        return _check(store, args.trust, args.json)
    summary = summarise_store(store)
    if args.json:
        sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    else:
        _print_info(summary)
    return 0


def _print_info(summary: Mapping[str, object]) -> None:
    from rich.table import Table

    from painseq.cli.printing import terminal

    extractor, failed, no_face = summary["extractor"], summary["failed"], summary["clips_without_face"]
    assert isinstance(extractor, dict) and isinstance(failed, dict) and isinstance(no_face, list)
    assert isinstance(summary["out_shape"], list | tuple)
    trained_on = ", ".join(f"{count} subjects of {data}" for data, count in extractor["trained_on"].items())
    if not extractor["people_known"]:
        trained_on = f"{trained_on}, and unknown subjects" if trained_on else "unknown subjects"
    kept = "kept in the store" if extractor["weights_in_store"] else "not kept in the store"
    shape = " x ".join(map(str, summary["out_shape"]))
    rows = {
        "clips": f"{summary['clips']}, {len(failed)} more failed",
        "frames": f"{summary['frames']}, {summary['faceless_share']:.1%} without a face",
        "clips without a face": f"{len(no_face)}{_some(no_face)}",
        "shards": f"{summary['shards']}, {summary['shard_bytes']} bytes",
        "features": f"{shape} per frame, {summary['dtype']}, computed in {summary['precision']}",
        "landmarks": f"{summary['landmarks']} per frame",
        "frames per second": "those of the video" if summary["fps"] is None else str(summary["fps"]),
        "face": json.dumps(summary["face"]),
        "extractor": f"{extractor['class_path']}, fingerprint {extractor['fingerprint']}",
        "weights": f"{extractor['weights'] or 'no file'}; {kept}",
        "trained on": trained_on or "nobody",
        "fingerprint": str(summary["fingerprint"]),
    }
    table = Table(title=str(summary["path"]), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, text)
    console = terminal()
    console.print(table)
    for clip_id, reason in failed.items():
        console.print(f"failed: {clip_id}: {reason}")
    if summary["pending_clips"]:
        console.print(
            f"Clips in no shard yet: {summary['pending_clips']}. An extraction is running, or was interrupted. "
            "Rerun the "
            "same `painseq extract` to complete the store."
        )
    if extractor["card"] is not None:
        console.print("Card of the extractor:")
        console.print_json(data=extractor["card"])


def _some(names: Sequence[str]) -> str:
    return f": {first_few(names, NAMES_SHOWN)}" if names else ""


def _check(store: FeatureStore, trust: Sequence[str], as_json: bool) -> int:
    from painseq.cli.progress import progress_bar

    with progress_bar("check", "bytes") as show:
        problems = store.check(show, trust)
    if as_json:
        content = [{"file": problem.file, "what": problem.what, "repair": problem.repair} for problem in problems]
        sys.stdout.write(
            json.dumps({"path": str(store.path), "clips": len(store), "problems": content}, indent=2) + "\n"
        )
    else:
        for problem in problems:
            sys.stdout.write(f"{problem.file} {problem.what}. {problem.repair}\n")
        pending = f", {len(store.pending)} of them in no shard yet" if store.pending else ""
        shards = "1 shard" if len(store.digests) == 1 else f"{len(store.digests)} shards"
        sys.stdout.write(
            f"{store.path}: {len(store)} clips{pending}, {shards} of {store.shard_bytes} bytes: "
            f"{f'problems: {len(problems)}' if problems else 'all files are unchanged'}.\n"
        )
    return 1 if problems else 0
