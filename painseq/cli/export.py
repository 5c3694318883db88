"""`painseq export`: write a checkpoint as ONNX files, which predict without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.cli.arguments import add_locator, add_trust, chosen_locator, parse_prior
from painseq.errors import PainseqError

if TYPE_CHECKING:
    from rich.table import Table

    from painseq.export import Int8, OpenVino
    from painseq.runtime.folder import Int8Record

DESCRIPTION = (
    "Write a checkpoint as ONNX files with everything that prediction from videos needs, and compare each file with "
    "the checkpoint. `painseq predict --checkpoint FOLDER` then needs no torch."
)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    own, of_data = _divided(argv)
    args = _parser().parse_args(own)
    locator = chosen_locator(args)
    from rich.table import Table

    from painseq.cli.printing import terminal
    from painseq.cli.progress import progress_bars
    from painseq.export import export
    from painseq.runtime.folder import MODEL

    prior = parse_prior(args.prior) if args.prior else None
    extractor = _chosen_extractor(args, of_data)
    with progress_bars() as show:
        record = export(args.checkpoint, args.out, locator, prior, args.trust, show, extractor)
    table = Table("file", "MB", title=str(args.out))
    table.columns[1].justify = "right"
    sizes = {name: file.bytes for name, file in record.files.items()}
    for name, size in {**sizes, MODEL: (args.out / MODEL).stat().st_size}.items():
        table.add_row(name, f"{size / 1e6:.3f}")
    terminal().print(table)
    if record.int8 is not None:
        terminal().print(_int8_table(record.int8))
    return 0


def _divided(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide the arguments into the command's own, and those of the data set: `--config` and `--data...`."""
    own: list[str] = []
    of_data: list[str] = []
    value_follows = False
    for arg in argv:
        name = arg.partition("=")[0]
        is_data = name in ("--config", "--data") or name.startswith("--data.")
        (of_data if is_data or value_follows else own).append(arg)
        value_follows = is_data and "=" not in arg and not value_follows
    return own, of_data


def _chosen_extractor(args: argparse.Namespace, of_data: Sequence[str]) -> Int8 | OpenVino | None:
    """Return what `--int8` and `--openvino` ask for.

    Raises:
        PainseqError: a data set without int8, or int8 without a data set.
    """
    from painseq.export import Int8, OpenVino

    if not args.int8 and args.openvino != "int8":
        if of_data:
            raise PainseqError(f"{of_data[0]} names a data set, which only int8 is calibrated on. Add --int8.")
        return None if args.openvino is None else OpenVino(args.openvino)
    if args.openvino not in (None, "int8"):
        raise PainseqError(f"--int8 and --openvino {args.openvino} ask for two precisions. Give one.")
    if not of_data:
        raise PainseqError(
            "Int8 is calibrated on crops of the training subjects, so it needs the model's data set: --config "
            "configs/data/biovid.yaml --data.root FOLDER --data.options.view pixels --data.options.store CROPS"
        )
    from painseq.cli.arguments import experiment

    data = experiment("export", DESCRIPTION, lambda parser: None, of_data).data()
    int8 = Int8(data, args.int8_people, args.int8_frames, args.int8_clips, args.int8_floor)
    return int8 if args.openvino is None else OpenVino(int8)


def _int8_table(int8: Int8Record) -> Table:
    from rich.table import Table

    table = Table("int8 against fp32", f"{int8.clips} clips of {len(int8.measured_on)} validation subjects")
    table.add_row("calibrated on", f"{int8.frames} crops of {len(int8.calibrated_on)} training subjects")
    table.add_row("agreement", f"{int8.agreement:.3f} (floor {int8.floor})")
    if int8.changed_lead is not None:
        table.add_row("largest lead of a label that changed", f"{int8.changed_lead:.4f}")
    table.add_row("mean change", f"{int8.mean_change:.4f}")
    table.add_row("largest change", f"{int8.largest_change:.4f}")
    accuracy = int8.balanced_accuracy
    if accuracy is not None and accuracy.change is not None:
        table.add_row("balanced accuracy", f"{accuracy.fp32:.3f} in fp32, {accuracy.int8:.3f} in int8")
        interval = "" if accuracy.low is None else f" (95 % interval {accuracy.low:+.3f} to {accuracy.high:+.3f})"
        table.add_row("its change", f"{accuracy.change:+.3f}{interval}")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq export",
        description=DESCRIPTION,
        epilog="--int8 takes the data set as one or more YAML files and keys: --config FILE, --data.root FOLDER, "
        "--data.options.view pixels, --data.options.store CROPS, ...",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="best.ckpt of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="write to this new folder")
    parser.add_argument(
        "--prior",
        nargs="*",
        default=[],
        metavar="CLASS=SHARE",
        help="correct the probabilities for these class shares, where they differ from training",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="run the extractor in 8-bit integers, calibrated on crops of training subjects and measured on validation "
        "subjects of the model's own split",
    )
    parser.add_argument(
        "--openvino",
        choices=["fp32", "bf16", "int8"],
        help="run the extractor by OpenVINO in this precision instead of by onnxruntime",
    )
    parser.add_argument("--int8-people", type=int, default=12, help="training subjects to calibrate on; default: 12")
    parser.add_argument("--int8-frames", type=int, default=240, help="their crops to calibrate on; default: 240")
    parser.add_argument("--int8-clips", type=int, default=200, help="validation clips to measure on; default: 200")
    parser.add_argument(
        "--int8-floor",
        type=float,
        default=0.95,
        metavar="SHARE",
        help="refuse a smaller agreement with fp32: of labels, or of values (concordance correlation); default: 0.95",
    )
    add_trust(parser)
    add_locator(parser)
    return parser
