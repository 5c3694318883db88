"""`painseq fit`: train a head with Lightning's command line, as `painseq.training.fit` does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.arguments import Parser, add_tuning, print_help_if_asked

DESCRIPTION = (
    "Train a head, or an extractor, on a data set. A YAML file names classes to run, so it is code: use only files you "
    "trust."
)


def add_arguments(parser: Parser) -> None:
    """Declare the command's own arguments."""
    dated = Path("runs") / f"fit-{time.strftime('%Y%m%d-%H%M%S')}"
    parser.add_argument("--out", type=Path, default=dated, help="new run folder; default: runs/fit-<time>")
    parser.add_argument("--resume", action="store_true", help="resume the interrupted run in --out from last.ckpt")
    parser.add_argument(
        "--refit",
        type=int,
        metavar="EPOCHS",
        help="train on the training and validation parts for this many epochs, not stopping early; writes last.ckpt",
    )
    add_tuning(parser, "--inner-folds")
    parser.add_argument(
        "--shuffle-labels",
        action="store_true",
        help="as a control, permute each subject's training and validation labels",
    )


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    fit(argv)
    return 0


def fit(argv: Sequence[str]) -> Path:
    """Fit a model from command line arguments; see `painseq.training.fit`.

    Returns:
        The run folder.
    """
    print_help_if_asked("fit", DESCRIPTION, add_arguments, argv)
    from painseq.cli.fit_trainer import FitCLI
    from painseq.training.fitting import run_fit, settings_refused

    args = ["--help" if arg == "--help-all" else arg for arg in argv]
    with settings_refused():
        cli = FitCLI("fit", args, DESCRIPTION, add_arguments)
        data = cli.data()
        if cli.config["shuffle_labels"]:
            data.shuffle_labels(int(cli.config["seed_everything"] or 0))
        run_fit(cli.trainer, cli.model, data, cli.out, cli.plan)
    return cli.out
