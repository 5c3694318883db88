"""`painseq store`: what a feature store holds, and whether it is whole."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from painseq.features import FeatureStore

NAMES_SHOWN = 10


def main(argv: Sequence[str]) -> int:
    """Run the command; `check` returns 1 if anything is wrong."""
    parser = argparse.ArgumentParser("painseq store", description="Tell what a feature store holds, or verify it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="info | check")
    info = commands.add_parser("info", help="print contents, fingerprint, and how the features were made")
    check = commands.add_parser("check", help="read everything, and compare it with the digests that were recorded")
    for command in (info, check):
        command.add_argument("path", type=Path, help="the store's folder")
        command.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument("--trust", nargs="*", default=[], help="packages whose classes may be built")
    args = parser.parse_args(argv)

    from painseq.features import FeatureStore

    store = FeatureStore(args.path)
    if args.command == "check":
        return _check(store, args.trust, args.json)
    told = describe(store)
    if args.json:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        _print_info(told)
    return 0


def describe(store: FeatureStore) -> dict[str, object]:
    """A store's contents and origin, in plain values.

    Raises:
        PainseqError: the file of the extractor's weights is damaged.
    """
    frames = {clip_id: (store.num_frames(clip_id), store.num_faceless(clip_id)) for clip_id in store}
    total, faceless = (sum(counts) for counts in zip(*frames.values(), strict=True)) if frames else (0, 0)
    sampling, face = _table(store.spec.get("sampling")), _table(store.spec.get("face"))
    return {
        "path": str(store.path),
        "clips": len(store),
        "frames": total,
        "faceless_frames": faceless,
        "faceless_share": faceless / total if total else 0.0,
        "clips_without_face": [clip_id for clip_id, (count, none) in frames.items() if count == none],
        "failed": store.failed,
        "pending_clips": len(store.pending),
        "shards": len(store.digests),
        "shard_bytes": store.shard_bytes,
        "dtype": store.dtype,
        "precision": store.precision,
        "out_shape": list(store.out_shape),
        "landmarks": store.landmarks,
        "fps": sampling.get("fps"),
        "face": _table(face.get("identity")) or face,
        "extractor": _extractor(store),
        "fingerprint": store.fingerprint,
    }


def _extractor(store: FeatureStore) -> dict[str, object]:
    from painseq.extractors import read_weights
    from painseq.extractors.weights import card_of

    recorded = _table(store.spec.get("extractor"))
    init_args = _table(recorded.get("init_args"))
    file = store.path / "extractor.safetensors"
    metadata = read_weights(str(file))[1] if file.is_file() else {}
    return {
        "class_path": recorded.get("class_path"),
        "init_args": init_args,
        "fingerprint": recorded.get("fingerprint"),
        "weights": init_args.get("weights"),
        "weights_in_store": file.is_file(),
        "trained_on": dict(Counter(subject.rpartition("/")[0] for subject in store.trained_on)),
        "card": card_of(metadata, str(file)),
    }


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _print_info(told: Mapping[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    extractor, failed, no_face = told["extractor"], told["failed"], told["clips_without_face"]
    assert isinstance(extractor, dict) and isinstance(failed, dict) and isinstance(no_face, list)
    assert isinstance(told["out_shape"], list | tuple)
    trained_on = ", ".join(f"{count} subjects of {data}" for data, count in extractor["trained_on"].items())
    kept = "kept in the store" if extractor["weights_in_store"] else "not kept in the store"
    shape = " x ".join(map(str, told["out_shape"]))
    rows = {
        "clips": f"{told['clips']}, {len(failed)} more failed",
        "frames": f"{told['frames']}, {told['faceless_share']:.1%} without a face",
        "clips without a face": f"{len(no_face)}{_some(no_face)}",
        "shards": f"{told['shards']}, {told['shard_bytes']} bytes",
        "features": f"{shape} a frame, {told['dtype']}, computed in {told['precision']}",
        "landmarks": f"{told['landmarks']} a frame",
        "frames a second": "all of the video's" if told["fps"] is None else str(told["fps"]),
        "face": json.dumps(told["face"]),
        "extractor": f"{extractor['class_path']}, fingerprint {extractor['fingerprint']}",
        "its weights": f"{extractor['weights'] or 'no file named'}; {kept}",
        "trained on": trained_on or "nobody that is known",
        "fingerprint": str(told["fingerprint"]),
    }
    table = Table(title=str(told["path"]), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, text)
    console = Console(markup=False)
    console.print(table)
    for clip_id, reason in failed.items():
        console.print(f"failed: {clip_id}: {reason}")
    if told["pending_clips"]:
        console.print(
            f"Clips in no shard yet: {told['pending_clips']}. An extraction is going on, or was ended; the same "
            "`painseq extract` completes the store."
        )
    if extractor["card"] is not None:
        console.print("The extractor's card:")
        console.print_json(data=extractor["card"])


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f": {', '.join(names[:NAMES_SHOWN])}{more}"


def _check(store: FeatureStore, trust: Sequence[str], as_json: bool) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("check", total=None)
        problems = store.check(lambda done, total: bar.update(task, completed=done, total=total), trust)
    if as_json:
        found = [{"file": problem.file, "what": problem.what, "repair": problem.repair} for problem in problems]
        sys.stdout.write(json.dumps({"path": str(store.path), "clips": len(store), "problems": found}, indent=2) + "\n")
    else:
        for problem in problems:
            sys.stdout.write(f"{problem.file} {problem.what}. {problem.repair}\n")
        pending = f", {len(store.pending)} of them in no shard yet" if store.pending else ""
        shards = "1 shard" if len(store.digests) == 1 else f"{len(store.digests)} shards"
        sys.stdout.write(
            f"{store.path}: {len(store)} clips{pending}, {shards} of {store.shard_bytes} bytes: "
            f"{f'problems: {len(problems)}' if problems else 'everything is as it was written'}.\n"
        )
    return 1 if problems else 0
