"""`painseq crossval`: fit and score a head on every fold, with nested selection of settings on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from painseq.cli.arguments import Parser, add_tuning, chosen_tuning, experiment
from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.studies.crossval_report import CrossValidationResult
    from painseq.studies.experiment import Experiment
    from painseq.studies.fold_fits import Candidate

DESCRIPTION = "Cross-validate a head: fit and score it on every fold. Rerun the same command to resume."


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("--out", type=Path, required=True, help="write to this run folder; rerun to resume")
    parser.add_argument(
        "--repeats", type=int, default=1, help="repeat with newly drawn folds this many times; default: 1"
    )
    parser.add_argument(
        "--inner-folds",
        type=int,
        help="select the number of epochs, and the candidate, on this many folds inside each fold",
    )
    parser.add_argument(
        "--candidates",
        type=str,
        nargs="*",
        default=[],
        metavar="FILE",
        help="select among these YAML files; needs --inner-folds",
    )
    parser.add_argument(
        "--grid",
        type=str,
        nargs="*",
        default=[],
        metavar="ARGUMENT=VALUES",
        help="select among all combinations of these values of the head's arguments, such as max_depth=2,3 "
        "trees=100,200; needs --inner-folds",
    )
    add_tuning(parser, "--threshold-folds")
    parser.add_argument(
        "--jobs",
        type=int,
        help="fit folds in this many processes; default: cores / threads, or 1 on a GPU",
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads per fold; more than 1 can change the last digits; default: 1"
    )


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("crossval", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import progress_bar
    from painseq.studies.crossval import CrossValidation, cross_validate
    from painseq.studies.fold_fits import grid_of

    args, parsed = cli.config, cli.experiment
    if (args.candidates or args.grid) and args.inner_folds is None:
        raise PainseqError(
            "--candidates and --grid are selected on folds inside each fold, never on its test subjects. Add "
            "--inner-folds 3, or omit them."
        )
    tuning = chosen_tuning(args.tune_threshold, args.threshold_folds)
    if args.grid:
        if args.candidates:
            raise PainseqError("Both --grid and --candidates are given. Give one of them.")
        candidates = grid_of(parsed, parsed_grid(args.grid))
    else:
        candidates = _candidates(parsed, args.candidates, argv)
    data = cli.data()
    if tuning is not None:
        candidates = [replace(each, options=replace(each.options, tune_threshold=tuning)) for each in candidates]
    options = CrossValidation(args.repeats, args.inner_folds, args.jobs, args.threads)
    with progress_bar("crossval", "fits") as on_progress:
        result = cross_validate(candidates, data, args.out, options, parsed.config, on_progress)
    show(result)
    return 0


def _candidates(base: Experiment, files: Sequence[str], argv: Sequence[str]) -> list[Candidate]:
    """Return the model of the command line; with files, one model per file, each changed by the command line."""
    from painseq.studies.fold_fits import candidate_of

    if not files:
        return [candidate_of(base)]
    if base.config["model"]["head"] is not None:
        raise PainseqError("Both a head and --candidates are given. Omit the head, or make it a candidate.")
    candidates = []
    for path in files:
        candidate = experiment("crossval", DESCRIPTION, add_arguments, ["--config", path, *argv]).experiment
        if candidate.config["data"] != base.config["data"]:
            raise PainseqError(f"{path} changes the data. Candidates may only differ in the model and its training.")
        candidates.append(candidate_of(candidate, Path(path).stem))
    return candidates


def parsed_grid(arguments: Sequence[str]) -> dict[str, list[object]]:
    """Parse ARGUMENT=VALUE,VALUE of a grid; values are YAML.

    Raises:
        PainseqError: another form, or the same argument twice.
    """
    grid: dict[str, list[object]] = {}
    for text in arguments:
        name, equals, values = text.partition("=")
        if not (name and equals and values) or name in grid:
            raise PainseqError(f"--grid {text}: write each argument of the head once, such as max_depth=2,3.")
        grid[name] = [yaml.safe_load(value) for value in values.split(",")]
    return grid


def show(result: CrossValidationResult) -> None:
    """Print the pooled scores of all folds, their spread over folds, and warnings."""
    from painseq.cli.evaluate import show as show_scores
    from painseq.cli.printing import terminal
    from painseq.evaluation.value_scores import value_table
    from painseq.studies.crossval_report import SPREAD, spread_sentences

    console = terminal()
    if result.evaluations:
        show_scores(result.evaluations)
    if result.value_evaluations:
        console.print(value_table(result.value_evaluations))
    for line in (*spread_sentences(result.spread), SPREAD):
        console.print(line, markup=False, soft_wrap=True)
    for line in result.warnings:
        console.print(line, style="yellow", markup=False, soft_wrap=True)
