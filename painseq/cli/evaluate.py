"""`painseq evaluate`: evaluate checkpoints, or a predictions file, on held-out subjects."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from painseq.cli.arguments import (
    Parser,
    add_device,
    add_min_face_share,
    add_model,
    add_part,
    chosen_models,
    experiment,
)
from painseq.cli.printing import terminal
from painseq.evaluation import Evaluation, read_people, read_truth
from painseq.evaluation.tables import probability_table, subgroup_table, table, threshold_table
from painseq.evaluation.value_scores import ValueEvaluation, value_table
from painseq.studies.evaluate_predictions import PredictionsOptions, evaluate_predictions
from painseq.studies.evaluation_files import EvaluationResult

DESCRIPTION = """Evaluate a checkpoint on held-out subjects: scores with intervals over subjects, baselines,
calibration, scores by sex and age, scores per subject, and a report. Sex and age come from the data set's manifest.

To evaluate a predictions file without a model, use painseq evaluate --predictions FILE; `painseq evaluate
--predictions FILE --help` lists its options."""


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    add_model(parser)
    add_part(parser)
    parser.add_argument("--truth", type=Path, metavar="FILE", help="read hidden labels from this CSV of clip_id,truth")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="calibrate the probabilities with a temperature fitted on the validation part",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write predictions.csv, metrics.json, subjects.csv and report.html to this folder; several models get a "
        "folder each in it; default: runs/evaluate-<time>",
    )
    add_min_face_share(parser)
    add_device(parser)


def main(argv: Sequence[str]) -> int:
    """Run the command; with --predictions, without a model."""
    if any(arg.partition("=")[0] == "--predictions" for arg in argv):
        _evaluate_file(argv)
    else:
        evaluate_checkpoints(argv or ["--help"])
    return 0


def evaluate_checkpoints(argv: Sequence[str]) -> dict[str, EvaluationResult]:
    """Evaluate the models that the command line names, print their scores side by side, and return them."""
    cli = experiment("evaluate", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import progress_bar
    from painseq.runs import pick_device
    from painseq.studies.evaluate import EvaluateOptions, evaluate, evaluate_models

    args, data = cli.config, cli.data()
    models = chosen_models(args, pick_device(args.device))
    truth = None if args.truth is None else read_truth(args.truth)
    out = args.out or Path("runs") / f"evaluate-{time.strftime('%Y%m%d-%H%M%S')}"
    options = EvaluateOptions(
        args.part,
        truth,
        args.calibrate,
        checkpoints=tuple(map(Path, args.checkpoint)),
        min_face_share=args.min_face_share,
    )
    with progress_bar("evaluate", "clips") as on_progress:
        if len(models) == 1:
            (model,) = models.values()
            result = evaluate(model, data, out, options, cli.experiment, on_progress)
            results = {result.name: result}
        else:
            results = evaluate_models(models, data, out, options, cli.experiment, on_progress)
    print_results(results)
    return results


def _evaluate_file(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("painseq evaluate", description="Evaluate a predictions file without a model.")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv, or your own file")
    parser.add_argument(
        "--truth", type=Path, help="read the truth from this CSV of clip_id,truth, if the predictions have none"
    )
    parser.add_argument("--dataset", help="data set of the truth file's native labels: biovid, ai4pain, ...")
    parser.add_argument(
        "--labels", default="three", help="label scheme that maps native labels to classes; default: %(default)s"
    )
    parser.add_argument(
        "--classes", nargs="+", help="class names in order of pain, if the predictions have no prob_ columns"
    )
    parser.add_argument("--subjects", type=Path, help="add scores by sex and age from this CSV of subject_id,sex,age")
    parser.add_argument(
        "--calibrate-on", type=Path, metavar="FILE", help="fit a temperature on these predictions of other subjects"
    )
    add_min_face_share(parser)
    parser.add_argument("--out", type=Path, help="write metrics.json, report.html and the other results to this folder")
    args = parser.parse_args(argv)
    options = PredictionsOptions(
        truth=None if args.truth is None else read_truth(args.truth),
        dataset=args.dataset,
        labels=args.labels,
        class_names=args.classes,
        subjects=None if args.subjects is None else read_people(args.subjects),
        calibrate_on=args.calibrate_on,
        min_face_share=args.min_face_share,
    )
    result = evaluate_predictions(args.predictions, args.out, options)
    print_results({result.name: result})


def print_results(results: Mapping[str, EvaluationResult]) -> None:
    """Print side by side the scores of the results whose truth is known."""
    evaluations = {name: result.evaluation for name, result in results.items() if result.evaluation is not None}
    if evaluations:
        show(evaluations)


def show(evaluations: Mapping[str, Evaluation | ValueEvaluation]) -> None:
    """Print tables of scores, with one column per model, and warnings."""
    console = terminal()
    classes = {name: scores for name, scores in evaluations.items() if isinstance(scores, Evaluation)}
    values = {name: scores for name, scores in evaluations.items() if isinstance(scores, ValueEvaluation)}
    tuned = threshold_table({name: scores.threshold for name, scores in classes.items()})
    tables = [table(classes), tuned, probability_table(classes), subgroup_table(classes)] if classes else []
    for printed in (*tables, value_table(values) if values else None):
        if printed is not None:
            console.print(printed)
    for name, evaluation in evaluations.items():
        for warning in evaluation.warnings:
            console.print(f"{name}: {warning}", style="yellow", markup=False)
