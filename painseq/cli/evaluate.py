"""`painseq evaluate`: scores with intervals and baselines, of a checkpoint or of a predictions file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from painseq.cli.chosen_model import chosen_model
from painseq.cli.run_folder import make_run_folder, pick_device, versions, write_json
from painseq.errors import PainseqError
from painseq.evaluation import Evaluation, Predictions, read_predictions, read_truth, score, table
from painseq.labels import NATIVE, LabelScheme, label_scheme

if TYPE_CHECKING:
    from painseq.checkpoint import PainModel

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command: without a model if --predictions is given."""
    if any(arg.partition("=")[0] == "--predictions" for arg in argv):
        _evaluate_file(argv)
    else:
        evaluate(argv)
    return 0


def _evaluate_file(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("painseq evaluate", description="Score a predictions file; no model needed.")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv, or a file of your own")
    parser.add_argument("--truth", type=Path, help="CSV of clip_id,truth where the file has none")
    parser.add_argument("--dataset", choices=sorted(NATIVE), help="whose native labels the truth file holds, if any")
    parser.add_argument("--labels", default="three", help="label scheme that maps them; default: %(default)s")
    parser.add_argument(
        "--classes", nargs="+", help="class names in order of pain, where the file has no prob_ columns"
    )
    parser.add_argument("--out", type=Path, help="folder for metrics.json")
    args = parser.parse_args(argv)
    predictions = read_predictions(args.predictions, args.classes)
    if args.truth is not None:
        truth = read_truth(args.truth)
        if args.dataset is not None:
            predictions, truth = in_classes(predictions, truth, label_scheme(args.dataset, args.labels))
        predictions = predictions.with_truth(truth)
    if not predictions.scored.any():
        raise PainseqError(
            f"{args.predictions}: no clip has both a truth and a prediction, so there is nothing to score. Give the "
            "truth with --truth FILE (columns clip_id, truth)."
        )
    evaluation = score(predictions)
    show({args.predictions.stem: evaluation})
    if args.out is not None:
        out = make_run_folder(args.out)
        write_json(out / "metrics.json", {"models": {args.predictions.stem: evaluation.to_dict()}})


def evaluate(argv: Sequence[str]) -> tuple[Predictions, Evaluation | None]:
    """Score a checkpoint as the command line says.

    Returns:
        The predictions, and their evaluation where the truth is known.

    Raises:
        LeakError: the model has seen somebody of this part.
        PainseqError: see `painseq.evaluation.predict`.
    """
    from painseq.cli.experiment import ExperimentCLI
    from painseq.datamodule import PainDataModule
    from painseq.evaluation.predict import predict_part

    cli = ExperimentCLI("evaluate", argv)
    config, data = cli.config, cli.datamodule
    if not isinstance(data, PainDataModule):
        raise PainseqError("`painseq evaluate` needs a data set: --config configs/data/ai4pain.yaml, or --data BioVid.")
    device = pick_device(config["device"])
    averaged = config["average_checkpoints"]
    model = chosen_model(config["checkpoint"], averaged, config["prior"], config["trust"], device)
    out = make_run_folder(Path(config["out"]))
    predictions = predict_part(model, data, config["part"])
    if config["truth"] is not None:
        predictions, truth = in_classes(predictions, read_truth(Path(config["truth"])), data.scheme)
        predictions = predictions.with_truth(truth)
    cli.parser.save(config, out / "config.yaml", skip_validation=True)
    predictions.write_csv(out / "predictions.csv")
    evaluation = score(predictions) if predictions.scored.any() else None
    name = model_name(model)
    write_json(
        out / "metrics.json",
        {
            "models": {} if evaluation is None else {name: evaluation.to_dict()},
            "part": config["part"],
            "split": data.split.to_dict(),
            "data": {"name": data.name, "labels": data.options.labels, "fingerprint": data.manifest.fingerprint()},
            "checkpoints": [str(path) for path in averaged or [config["checkpoint"]]],
            "prior": list(config["prior"]),
            "baseline_clips": model.record["baseline_clips"],
            "device": device,
            "versions": versions(),
        },
    )
    if evaluation is None:
        log.info("The labels of this part are hidden: predictions written to %s, no score.", out / "predictions.csv")
    else:
        show({name: evaluation})
    return predictions, evaluation


def model_name(model: PainModel) -> str:
    """What a model is called in tables: its head, and whatever makes its score another than a plain one."""
    from painseq.checkpoint import AveragedModel

    name = type(model.head).__name__
    if isinstance(model, AveragedModel):
        name += f", mean of {len(model.members)}"
    data = model.record.get("data")
    if isinstance(data, Mapping) and data.get("shuffled_labels") is not None:
        name += ", SHUFFLED LABELS"
    return name


def in_classes(
    predictions: Predictions, truth: Mapping[str, str], scheme: LabelScheme
) -> tuple[Predictions, dict[str, str]]:
    """Truth in native labels or in class names, as class names; clips whose label the scheme leaves out leave both.

    Raises:
        PainseqError: a label that is neither.
    """
    named: dict[str, str] = {}
    for clip_id, label in truth.items():
        if label in scheme.classes:
            named[clip_id] = label
            continue
        if not scheme.knows(label):
            raise PainseqError(
                f"The truth of {clip_id} is {label!r}, which is neither a class ({', '.join(scheme.class_names)}) nor "
                f"a label of {scheme.dataset} ({', '.join(scheme.known)})."
            )
        target = scheme.target(label)
        if target is not None:
            named[clip_id] = scheme.class_names[target]
    kept = [row for row, clip in enumerate(predictions.clip_ids) if clip in named or clip not in truth]
    if len(kept) < len(predictions):
        log.info("%d clips left out: the scheme %r has no class for them.", len(predictions) - len(kept), scheme.name)
    return predictions.only(kept), named


def show(evaluations: Mapping[str, Evaluation]) -> None:
    """Print the table of scores, and what to be wary of."""
    console = Console()
    console.print(table(evaluations))
    for name, evaluation in evaluations.items():
        for warning in evaluation.warnings:
            console.print(f"{name}: {warning}", style="yellow", markup=False)
