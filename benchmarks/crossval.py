"""Leave-one-subject-out cross-validation of the LSTM on features of BioVid's size, against fitting fold by fold.

    python benchmarks/crossval.py            # on a CPU: 4 folds of 2 epochs, and from these all 87
    python benchmarks/crossval.py --whole    # all folds, as many epochs as early stopping takes
    python benchmarks/crossval.py --write    # and record the table in benchmarks/RESULTS.md

Generated: 87 subjects, 5 classes x 20 clips, 138 frames of 1024 random fp16 features, written through the real store;
the extractor is VGG16 with fc-1024, random weights. The plain way is `painseq fit` and the prediction of its test
subject for each fold, one after the other in one process: each opens and reads the store anew and builds the extractor
anew, with the logger and the two checkpoints an epoch that `fit` has by default. The other way is what `painseq
crossval` does. First it is checked that both give the same predictions, fold by fold; then both are timed. On a GPU:
`benchmarks/gpu.py`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from biovid_sized import FRAMES, LABELS, WIDTH, generate
from results import RESULTS, write_between

from painseq.cli.fit import fit
from painseq.data.splits import Split
from painseq.evaluation import read_predictions
from painseq.model.checkpoint import load
from painseq.studies.crossval import folds_of
from painseq.studies.experiment import Experiment, read_experiment
from painseq.studies.fold_fits import FoldFit, candidate_of, device_of, fold_fitter
from painseq.studies.predict_part import predict_part

SILENT = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")


def files(root: Path) -> list[str]:
    """The configuration of both ways."""
    options = {"labels": "native", "store": str(root / "store"), "split": {"protocol": "loso"}}
    data = {"root": str(root), "name": "biovid_sized", "manifest": str(root / "clips.csv"), "classes": list(LABELS)}
    config = {
        "data": {"class_path": "painseq.data_modules.Folder", "init_args": {**data, "options": options}},
        "trainer": {"accelerator": "cpu"},
    }
    (root / "data.yaml").write_text(json.dumps(config), encoding="utf-8")
    return ["configs/head/lstm.yaml", str(root / "data.yaml")]


def plain(configs: list[str], epochs: int | None, folds: int, out: Path) -> float:
    """Fold by fold; seconds."""
    begin = time.perf_counter()
    limit = [] if epochs is None else ["--trainer.max_epochs", str(epochs)]
    for fold in range(folds):
        args = [f"--config={config}" for config in configs]
        chosen = [*args, *limit, "--data.options.split.fold", str(fold)]
        run = fit([*chosen, *SILENT, "--out", str(out / f"fold-{fold:02d}")])
        data = read_experiment(*configs, {"data": {"init_args": {"options": {"split": {"fold": fold}}}}}).data()
        model = load(run / "best.ckpt")
        predict_part(model, data, "test").write_csv(run / "predictions.csv")
    return time.perf_counter() - begin


def limited(configs: list[str], epochs: int | None) -> Experiment:
    return read_experiment(*configs, {} if epochs is None else {"trainer": {"max_epochs": epochs}})


def together(experiment: Experiment, folds: int, out: Path, jobs: int, threads: int) -> tuple[float, float]:
    """With shared features; seconds until they are read and the processes are up, and seconds of the folds."""
    begin = time.perf_counter()
    data, candidate = experiment.data(), candidate_of(experiment)
    chosen = folds_of(data, out, 1)[:folds]
    data.everything()
    with fold_fitter([candidate], data, jobs, threads, device_of(candidate.options)) as run:
        if jobs > 1:
            # A fold that cannot be fitted needs no time, and comes back when its process is up.
            nothing = FoldFit(out / "nothing", Split("none", (), (), ()))
            list(run([nothing] * jobs))
        ready = time.perf_counter()
        for done in run([FoldFit(fold.out, fold.split) for fold in chosen]):
            assert done.left_out is None, done
    return ready - begin, time.perf_counter() - ready


def check(configs: list[str], out: Path) -> str:
    """Both ways on two folds of one epoch, one thread each: how far apart their probabilities are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain(configs, 1, 2, out / "plain")
    short = limited(configs, 1)
    torch.set_num_threads(threads)
    together(short, 2, out / "together", 1, 1)
    together(short, 2, out / "processes", 2, 1)
    apart = 0.0
    for fold in ("fold-00", "fold-01"):
        one, *others = (
            read_predictions(out / way / fold / "predictions.csv") for way in ("plain", "together", "processes")
        )
        for other in others:
            assert one.clip_ids == other.clip_ids and np.array_equal(one.truth, other.truth)
            apart = max(apart, float(np.abs(one.probabilities - other.probabilities).max()))
    if apart > 0:
        raise SystemExit(f"Predictions differ by {apart:.2g}; nothing is timed.")
    return f"Same predictions in both ways, and in two processes: largest difference of a probability {apart:g}."


def measure(
    configs: list[str],
    epochs: int | None,
    out: Path,
    folds: int,
    all_folds: int,
    jobs: list[int],
    threads: list[int],
) -> list[str]:
    """Rows of the table."""
    cores = torch.get_num_threads()
    seconds = plain(configs, epochs, folds, out / "plain")
    shutil.rmtree(out / "plain")
    whole = seconds / folds * all_folds
    rows = [f"| fold by fold, {cores} threads | – | {seconds / folds:.1f} | {whole / 60:.0f} | 1 |"]
    for number, each in zip(jobs, threads, strict=True):
        ready, fitting = together(limited(configs, epochs), folds, out / f"together-{number}-{each}", number, each)
        ours = ready + fitting / folds * all_folds
        rows.append(
            f"| crossval, {number} at a time, {each} thread(s) each | {ready:.1f} | {fitting / folds:.1f} "
            f"| {ours / 60:.0f} | {whole / ours:.2f} |"
        )
        shutil.rmtree(out / f"together-{number}-{each}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=87)
    parser.add_argument("--clips", type=int, default=20, help="clips of each class of each subject")
    parser.add_argument(
        "--folds", type=int, default=4, help="folds to time, unless --whole; a multiple of the jobs is fair"
    )
    parser.add_argument("--epochs", type=int, default=2, help="epochs of these")
    parser.add_argument("--whole", action="store_true", help="all folds, until early stopping")
    parser.add_argument("--jobs", type=int, nargs="+", help="how many folds at a time to measure")
    parser.add_argument("--threads", type=int, nargs="+", help="threads of each fold, for each of the jobs")
    parser.add_argument("--write", action="store_true", help="record the table in benchmarks/RESULTS.md")
    options_given = parser.parse_args()
    cores = os.cpu_count() or 1
    jobs = options_given.jobs or [1, 1, cores]
    threads = options_given.threads or [cores, 1, 1]
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("painseq").setLevel(logging.ERROR)
    folds = options_given.subjects if options_given.whole else options_given.folds
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        generate(root, options_given.subjects, options_given.clips)
        configs = files(root)
        agreement = check(configs, root / "check")
        print(agreement, flush=True)
        epochs = None if options_given.whole else options_given.epochs
        rows = measure(configs, epochs, root, folds, options_given.subjects, jobs, threads)
    device = f"{cores} cores, {platform.machine()}"
    clips = options_given.subjects * len(LABELS) * options_given.clips
    timed = (
        "all folds, with early stopping"
        if options_given.whole
        else f"{folds} folds of at most {options_given.epochs} epochs; the minutes of all folds EXTRAPOLATED from these"
    )
    table = "\n".join(
        [
            f"{device}, Python {platform.python_version()}. {options_given.subjects} subjects, {clips} clips of "
            f"{FRAMES} frames x {WIDTH}; {timed}. {agreement}",
            "",
            f"| way | until ready, s | a fold, s | all {options_given.subjects} folds, min | times faster |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )
    print(table)
    if options_given.write:
        write_between(RESULTS, "crossval", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
