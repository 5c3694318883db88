"""`painseq submit`: write the predictions of a test set as a challenge CSV, or check such a file."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from painseq.errors import PainseqError
from painseq.evaluation import Predictions, read_predictions
from painseq.evaluation.value_predictions import holds_values
from painseq.studies.submit import (
    SubmissionFormat,
    check_submission,
    lines_with_other_labels,
    listed,
    native_labels,
    read_items,
    write_submission,
)

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 1 if a checked file is not in order."""
    args = _parser().parse_args(argv)
    labels = native_labels(args.dataset, args.labels) if args.label_names is None else label_names(args.label_names)
    layout = SubmissionFormat(labels, args.id_column, args.label_column, args.probabilities)
    items = None if args.items is None else read_items(args.items, args.id_column)
    predictions = None if args.predictions is None else _predicted_classes(args.predictions)
    if args.check is None:
        if predictions is None:
            raise PainseqError("--predictions FILE is needed to write a submission: predictions.csv of the test part.")
        rows = write_submission(predictions, args.out, layout, args.fill, items)
        log.info("%d items written to %s.", rows, args.out)
        return 0
    if args.fill is not None:
        raise PainseqError("--fill is for writing a submission; --check changes nothing.")
    if items is None and predictions is not None:
        items = {clip_id: clip_id for clip_id in predictions.clip_ids}
    problems = check_submission(args.check, layout, None if items is None else list(items.values()))
    for problem in problems:
        sys.stderr.write(f"{args.check}: {problem}\n")
    other = [] if problems or not layout.probabilities else lines_with_other_labels(args.check, layout)
    if other:
        log.warning(
            "%s: in %d rows another class than the label's has the highest probability (%s). A model that votes frame "
            "by frame may say so; otherwise look whether columns or rows were mixed up.",
            args.check,
            len(other),
            listed([f"line {line}" for line in other]),
        )
    if items is None:
        log.warning("Without --items or --predictions nobody can tell whether items are missing or unknown.")
    if not problems:
        log.info("%s is in order.", args.check)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq submit",
        description="Write a challenge CSV from predictions.csv, as `painseq evaluate --part test` writes it; or check "
        "any such file.",
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="CSV to write")
    task.add_argument("--check", type=Path, metavar="FILE", help="check this CSV instead; all its problems are listed")
    parser.add_argument("--predictions", type=Path, help="predictions.csv of the test part")
    parser.add_argument(
        "--items",
        type=Path,
        help="CSV of the items that must be there, in the order of the rows; see docs/submission.md",
    )
    parser.add_argument("--fill", metavar="CLASS", help="class of items without a prediction; otherwise an error")
    form = parser.add_argument_group("format")
    form.add_argument("--id-column", default=SubmissionFormat.id_column, help="default: %(default)s")
    form.add_argument("--label-column", default=SubmissionFormat.label_column, help="default: %(default)s")
    form.add_argument("--dataset", default="ai4pain", help="whose native labels to write; default: %(default)s")
    form.add_argument("--labels", default="three", help="label scheme that the model was fitted with")
    form.add_argument(
        "--label-names", nargs="+", metavar="CLASS=NAME", help="what to write for each class, instead of native labels"
    )
    form.add_argument("--probabilities", action="store_true", help="also a column prob_<label> a class")
    return parser


def _predicted_classes(path: Path) -> Predictions:
    if holds_values(path):
        raise PainseqError(f"{path} holds numbers on a scale; a submission names classes, so none can be made of it.")
    return read_predictions(path)


def label_names(pairs: Sequence[str]) -> dict[str, str]:
    """Class -> name, of "class=name"; the order is that of the pairs.

    Raises:
        PainseqError: not such a pair, or a class twice.
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
