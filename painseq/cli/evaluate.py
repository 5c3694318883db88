"""`painseq evaluate`: scores with intervals and baselines, of checkpoints or of a predictions file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from painseq.cli.arguments import Parser, add_device, add_model, add_part, chosen_models, experiment, parse_prior
from painseq.evaluation import Evaluation, read_people, read_truth
from painseq.evaluation.tables import probability_table, subgroup_table, table
from painseq.evaluation.value_scores import ValueEvaluation, value_table
from painseq.studies.evaluate_predictions import PredictionsOptions, evaluate_predictions
from painseq.studies.evaluation_files import EvaluationResult

DESCRIPTION = """Evaluate a checkpoint on held-out subjects: scores with intervals over subjects, baselines,
calibration, groups by sex and age, a row a subject, a page. Sex and age come from the data set's manifest.

A file of predictions is evaluated without a model: painseq evaluate --predictions FILE; see its own options with
`painseq evaluate --predictions FILE --help`."""


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    add_model(parser)
    add_part(parser)
    parser.add_argument("--truth", type=Path, metavar="FILE", help="CSV of clip_id,truth for hidden labels")
    parser.add_argument(
        "--calibrate", action="store_true", help="fit a temperature on the validation part, and apply it"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for predictions.csv, metrics.json, subjects.csv, report.html; a folder a model below it where there are "
        "several; default: runs/evaluate-<time>",
    )
    add_device(parser)


def main(argv: Sequence[str]) -> int:
    """Run the command: without a model if --predictions is given."""
    if any(arg.partition("=")[0] == "--predictions" for arg in argv):
        _evaluate_file(argv)
    else:
        evaluate_checkpoints(argv or ["--help"])
    return 0


def evaluate_checkpoints(argv: Sequence[str]) -> dict[str, EvaluationResult]:
    """Score the models that the command line names, print their scores side by side, and return them."""
    cli = experiment("evaluate", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import progress_bar
    from painseq.runs import make_run_folder, pick_device
    from painseq.studies.evaluate import EvaluateOptions, evaluate

    args, data = cli.config, cli.data()
    models = chosen_models(args, pick_device(args.device))
    paths = [Path(path) for path in args.checkpoint]
    truth = None if args.truth is None else read_truth(args.truth)
    prior = parse_prior(args.prior) if args.prior else None
    out = args.out or Path("runs") / f"evaluate-{time.strftime('%Y%m%d-%H%M%S')}"
    folders = [out]
    if len(models) > 1:
        make_run_folder(out)
        folders = [out / name for name in short_names(paths)]
    results = {}
    for number, (folder, model) in enumerate(zip(folders, models.values(), strict=True)):
        checkpoints = tuple(paths) if len(models) == 1 else (paths[number],)
        options = EvaluateOptions(args.part, truth, args.calibrate, prior, checkpoints)
        with progress_bar("evaluate", "clips") as show:
            result = evaluate(model, data, folder, options, cli.experiment, show)
        results[result.name if len(models) == 1 else folder.name] = result
    print_results(results)
    return results


def _evaluate_file(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("painseq evaluate", description="Evaluate a predictions file; no model needed.")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv, or a file of your own")
    parser.add_argument("--truth", type=Path, help="CSV of clip_id,truth where the file has none")
    parser.add_argument("--dataset", help="whose native labels the truth file holds, if any: biovid, ai4pain, ...")
    parser.add_argument("--labels", default="three", help="label scheme that maps them; default: %(default)s")
    parser.add_argument(
        "--classes", nargs="+", help="class names in order of pain, where the file has no prob_ columns"
    )
    parser.add_argument("--subjects", type=Path, help="CSV of subject_id,sex,age: scores by sex and age band")
    parser.add_argument(
        "--calibrate-on", type=Path, metavar="FILE", help="predictions of other people, to fit a temperature on"
    )
    parser.add_argument("--out", type=Path, help="folder for metrics.json, report.html and the like")
    args = parser.parse_args(argv)
    options = PredictionsOptions(
        truth=None if args.truth is None else read_truth(args.truth),
        dataset=args.dataset,
        labels=args.labels,
        class_names=args.classes,
        subjects=None if args.subjects is None else read_people(args.subjects),
        calibrate_on=args.calibrate_on,
    )
    result = evaluate_predictions(args.predictions, args.out, options)
    print_results({result.name: result})


def print_results(results: Mapping[str, EvaluationResult]) -> None:
    """Print the scores of those whose truth is known, side by side."""
    evaluations = {name: result.evaluation for name, result in results.items() if result.evaluation is not None}
    if evaluations:
        show(evaluations)


def show(evaluations: Mapping[str, Evaluation | ValueEvaluation]) -> None:
    """Print tables of scores, a column a model, and their warnings."""
    console = Console()
    classes = {name: each for name, each in evaluations.items() if isinstance(each, Evaluation)}
    values = {name: each for name, each in evaluations.items() if isinstance(each, ValueEvaluation)}
    tables = [table(classes), probability_table(classes), subgroup_table(classes)] if classes else []
    for shown in (*tables, value_table(values) if values else None):
        if shown is not None:
            console.print(shown)
    for name, evaluation in evaluations.items():
        for warning in evaluation.warnings:
            console.print(f"{name}: {warning}", style="yellow", markup=False)


def short_names(checkpoints: Sequence[Path]) -> list[str]:
    """A name for each checkpoint: its run folder's, with as many of the folders above as tell them apart."""
    runs = [path.resolve().with_suffix("").parts[1:] for path in checkpoints]
    if len({run[:-1] for run in runs}) == len(runs):
        runs = [run[:-1] for run in runs]
    depth = next(n for n in range(1, 1 + max(map(len, runs))) if len({run[-n:] for run in runs}) == len(runs))
    return ["-".join(run[-depth:]) for run in runs]
