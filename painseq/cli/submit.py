"""`painseq submit`: the predictions of a test set as a challenge CSV."""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from painseq.errors import PainseqError
from painseq.evaluation import Predictions, read_predictions
from painseq.labels import SCHEMES, label_scheme

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq submit",
        description="Write a challenge CSV from predictions.csv, as `painseq evaluate --part test` writes it.",
    )
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv of the test part")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write: columns item,label")
    parser.add_argument("--dataset", choices=sorted(SCHEMES), default="ai4pain", help="whose native labels to write")
    parser.add_argument("--labels", default="three", help="label scheme that the model was fitted with")
    parser.add_argument("--fill", help="class for clips without a prediction; without it they are an error")
    args = parser.parse_args(argv)
    rows = write_submission(read_predictions(args.predictions), args.out, args.dataset, args.labels, args.fill)
    log.info("%d items written to %s.", rows, args.out)
    return 0


def write_submission(
    predictions: Predictions, path: Path, dataset: str = "ai4pain", labels: str = "three", fill: str | None = None
) -> int:
    """Write `item,label`, one row a test item, labels in the data set's native words.

    The challenge's own file format is not public; this is its plainest form.

    Args:
        fill: class name for clips without a prediction.

    Returns:
        The number of rows.

    Raises:
        PainseqError: a clip without a prediction and no `fill`; other classes than the scheme's; no such folder.
    """
    scheme = label_scheme(dataset, labels)
    if predictions.class_names != scheme.class_names:
        raise PainseqError(
            f"The predictions are of the classes {', '.join(predictions.class_names)}, but scheme {labels!r} of "
            f"{dataset} has {', '.join(scheme.class_names)}. Give --labels the scheme of the model."
        )
    if fill is not None and fill not in scheme.class_names:
        raise PainseqError(f"--fill {fill!r} is no class; classes are {', '.join(scheme.class_names)}.")
    none = [clip for clip, label in zip(predictions.clip_ids, predictions.label, strict=True) if label < 0]
    if none and fill is None:
        raise PainseqError(
            f"{len(none)} clips have no prediction, such as {none[0]!r} (unreadable, or no face in any frame). A "
            "submission needs a label for each: say which class they get with --fill CLASS."
        )
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["item", "label"])
            for clip_id, label in zip(predictions.clip_ids, predictions.label, strict=True):
                name = scheme.class_names[label] if label >= 0 else str(fill)
                writer.writerow([clip_id, scheme.native(name)])
    except OSError as error:
        raise PainseqError(f"{path} cannot be written: {error}.") from error
    return len(predictions)
