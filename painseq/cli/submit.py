"""`painseq submit`: write test predictions as a challenge CSV, or check such a file."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from painseq.errors import PainseqError
from painseq.studies.submit import (
    SubmissionFormat,
    check_submission,
    lines_with_other_labels,
    listed,
    native_labels,
    read_class_predictions,
    read_items,
    write_submission,
)

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 1 if the checked file has problems."""
    args = _parser().parse_args(argv)
    labels = native_labels(args.dataset, args.labels) if args.label_names is None else label_names(args.label_names)
    layout = SubmissionFormat(labels, args.id_column, args.label_column, args.probabilities)
    items = None if args.items is None else read_items(args.items, args.id_column)
    predictions = None if args.predictions is None else read_class_predictions(args.predictions)
    if args.check is None:
        if predictions is None:
            raise PainseqError("A submission needs --predictions FILE, the predictions.csv of the test part.")
        rows = write_submission(predictions, args.out, layout, args.fill, items)
        log.info("%d items written to %s.", rows, args.out)
        return 0
    if args.fill is not None:
        raise PainseqError(f"--fill {args.fill} only applies to writing a submission. Omit it with --check.")
    if items is None and predictions is not None:
        items = {clip_id: clip_id for clip_id in predictions.clip_ids}
    problems = check_submission(args.check, layout, None if items is None else list(items.values()))
    for problem in problems:
        sys.stderr.write(f"{args.check}: {problem}\n")
    other = [] if problems or not layout.probabilities else lines_with_other_labels(args.check, layout)
    if other:
        log.warning(
            "%s: in %d rows the label is not the class with the highest probability (%s). This can be correct for a "
            "model that votes frame by frame or has a tuned threshold; otherwise check for mixed up columns or rows.",
            args.check,
            len(other),
            listed([f"line {line}" for line in other]),
        )
    if items is None:
        log.warning("Missing and unknown items were not checked. Add --items or --predictions to check them.")
    if not problems:
        log.info("%s has no problems.", args.check)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq submit",
        description="Write a challenge CSV from the predictions.csv of `painseq evaluate --part test`, or check "
        "such a file.",
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="write this CSV")
    task.add_argument("--check", type=Path, metavar="FILE", help="check this CSV instead, and list all its problems")
    parser.add_argument("--predictions", type=Path, help="predictions.csv of the test part")
    parser.add_argument(
        "--items",
        type=Path,
        help="CSV of the required items, in the order of the rows; see docs/submission.md",
    )
    parser.add_argument(
        "--fill", metavar="CLASS", help="label items without a prediction with this class; default: report an error"
    )
    form = parser.add_argument_group("format")
    form.add_argument(
        "--id-column", default=SubmissionFormat.id_column, help="name of the item column; default: %(default)s"
    )
    form.add_argument(
        "--label-column", default=SubmissionFormat.label_column, help="name of the label column; default: %(default)s"
    )
    form.add_argument(
        "--dataset", default="ai4pain", help="write the native labels of this data set; default: %(default)s"
    )
    form.add_argument(
        "--labels", default="three", help="label scheme that the model was fitted with; default: %(default)s"
    )
    form.add_argument(
        "--label-names", nargs="+", metavar="CLASS=NAME", help="write these names instead of native labels"
    )
    form.add_argument("--probabilities", action="store_true", help="also write a column prob_<label> for each class")
    return parser


def label_names(pairs: Sequence[str]) -> dict[str, str]:
    """Parse `["class=name", ...]` into class -> name, in the same order.

    Raises:
        PainseqError: a text that is not CLASS=NAME, or the same class twice.
    """
    names: dict[str, str] = {}
    for pair in pairs:
        class_name, equals, name = pair.partition("=")
        if not (class_name and equals and name):
            raise PainseqError(f"--label-names: {pair!r} is not CLASS=NAME, such as no_pain=0.")
        if class_name in names:
            raise PainseqError(f"--label-names gives class {class_name!r} twice.")
        names[class_name] = name
    return names
