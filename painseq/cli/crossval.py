"""`painseq crossval`: fit and score a head on every fold, with settings chosen inside the folds if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.cli.arguments import Parser, experiment
from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.studies.crossval_report import CrossValidationResult
    from painseq.studies.experiment import Experiment
    from painseq.studies.fold_fits import Candidate

DESCRIPTION = "Fit and score a head on every fold. Run again with the same --out, it goes on."


def add_arguments(parser: Parser) -> None:
    """What the command asks for itself."""
    parser.add_argument("--out", type=Path, required=True, help="run folder; run again, it goes on")
    parser.add_argument("--repeats", type=int, default=1, help="draw the folds so many times; default: 1")
    parser.add_argument(
        "--inner-folds",
        type=int,
        help="choose the number of epochs, and the candidate, on so many folds inside each fold",
    )
    parser.add_argument(
        "--candidates",
        type=str,
        nargs="*",
        default=[],
        metavar="FILE",
        help="YAML files to choose from, with --inner-folds",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="processes that fit folds, which share the features; default: cores / threads, and 1 on a GPU",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads a fold; they can change last digits")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cli = experiment("crossval", DESCRIPTION, add_arguments, argv)
    from painseq.cli.progress import progress_bar
    from painseq.studies.crossval import CrossValidation, cross_validate

    args, parsed = cli.config, cli.experiment
    if args.candidates and args.inner_folds is None:
        raise PainseqError(
            "Candidates are chosen on folds inside each fold, never on its test subjects. Add --inner-folds 3, or "
            "leave --candidates out."
        )
    data, candidates = cli.data(), _candidates(parsed, args.candidates, argv)
    options = CrossValidation(args.repeats, args.inner_folds, args.jobs, args.threads)
    with progress_bar("crossval", "fits") as on_progress:
        result = cross_validate(candidates, data, args.out, options, parsed.config, on_progress)
    show(result)
    return 0


def _candidates(base: Experiment, files: Sequence[str], argv: Sequence[str]) -> list[Candidate]:
    """The model of the command line; with files, one of each: what the command line says goes over all of them."""
    from painseq.studies.fold_fits import candidate_of

    if not files:
        return [candidate_of(base)]
    if base.config["model"]["head"] is not None:
        raise PainseqError("A head is given, and candidates too. Leave it out, or make it a candidate.")
    candidates = []
    for path in files:
        other = experiment("crossval", DESCRIPTION, add_arguments, ["--config", path, *argv]).experiment
        if other.config["data"] != base.config["data"]:
            raise PainseqError(f"{path} changes the data. Candidates differ in the model and its training alone.")
        candidates.append(candidate_of(other, Path(path).stem))
    return candidates


def show(result: CrossValidationResult) -> None:
    """Print the scores of all folds together, how far the folds lie apart, and what to be wary of."""
    from rich.console import Console

    from painseq.cli.evaluate import show as show_scores
    from painseq.evaluation.value_scores import value_table
    from painseq.studies.crossval_report import SPREAD, spread_sentences

    console = Console()
    if result.evaluations:
        show_scores(result.evaluations)
    if result.value_evaluations:
        console.print(value_table(result.value_evaluations))
    for line in (*spread_sentences(result.spread), SPREAD):
        console.print(line, markup=False, soft_wrap=True)
    for line in result.warnings:
        console.print(line, style="yellow", markup=False, soft_wrap=True)
