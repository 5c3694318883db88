"""Fits of many folds: one after the other, or in processes that share one copy of the features."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import Trainer

from painseq.cli.experiment import ExperimentCLI, Recipe, recipe_of
from painseq.data.datamodule import PainDataModule
from painseq.data.splits import Split
from painseq.errors import PainseqError
from painseq.model.pain_model import PainModel
from painseq.runs import write_json
from painseq.studies.predict_part import predict_part, predict_values
from painseq.training.fitting import fit_fold

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Fit:
    """One fit of a cross-validation.

    Args:
        out: its folder.
        split: whom it is fitted on; if it has test subjects, they are predicted too.
        recipe: number of the recipe.
        epochs: train for so many; None stops early.
    """

    out: Path
    split: Split
    recipe: int = 0
    epochs: int | None = None

    @property
    def predictions(self) -> Path:
        """Where the predictions of the test subjects are."""
        return self.out / "predictions.csv"

    @property
    def finished(self) -> bool:
        """Whether it was done before."""
        return (self.predictions if self.split.test else self.out / "run.json").is_file()


@dataclass(frozen=True)
class Done:
    """What came of a fit.

    Args:
        fit: which.
        left_out: why it could not be made; None if it was.
        warnings: what was told on the way.
    """

    fit: Fit
    left_out: str | None
    warnings: tuple[str, ...] = ()


Run = Callable[[Sequence[Fit]], Iterator[Done]]


def recipes_of(args: Sequence[str], candidates: Sequence[Path]) -> list[Recipe]:
    """The recipe of a command line; with candidates, one for each: what the command line says goes over all of them.

    Raises:
        PainseqError: see `recipe_of`; a head beside candidates; a candidate that changes the data.
    """
    base = ExperimentCLI("crossval", args)
    if not candidates:
        return [recipe_of(base)]
    if base.config["model"]["head"] is not None:
        raise PainseqError("A head is given, and candidates too. Leave it out, or make it a candidate.")
    recipes = []
    for path in candidates:
        cli = ExperimentCLI("crossval", ["--config", str(path), *args])
        if cli.config["data"] != base.config["data"]:
            raise PainseqError(f"{path} changes the data. Candidates differ in the model and its training alone.")
        recipes.append(recipe_of(cli, path.stem))
    return recipes


def why_not(data: PainDataModule) -> str | None:
    """Why nothing can be learned or scored with this split, if so."""
    missing = [name for name, clips in data.train_counts().items() if not clips]
    if missing:
        return f"no training clip of class {', '.join(missing)}"
    if not data.learnable("train"):
        return "no training clip has a frame with a face"
    if data.split.validation and not data.learnable("validation"):
        return "no validation clip has a label and a frame with a face"
    if data.split.test and not len(data.dataset("test")):
        return "no clip of the test subjects could be read"
    return None


def make_fit(fit: Fit, recipes: Sequence[Recipe], data: PainDataModule) -> Done:
    """Fit, and predict the test subjects; what is finished already is passed over."""
    told = fit.out / "warnings.json"
    if fit.finished:
        return Done(fit, None, tuple(json.loads(told.read_text(encoding="utf-8")) if told.is_file() else ()))
    with _warnings_kept() as warnings:
        fold = data.with_split(fit.split)
        left_out = why_not(fold)
        if left_out is None:
            recipe = recipes[fit.recipe]
            model = fit_fold(recipe.make, fold, fit.out, recipe.options, fit.epochs)
            partial = _predict(model, fold, fit.predictions) if fit.split.test else None
    once = tuple(dict.fromkeys(warnings))
    if left_out is None:
        # A run that goes on tells them again.
        write_json(told, once)
        if partial is not None:
            # The last file: where it lies, the fold is whole.
            partial.replace(fit.predictions)
    return Done(fit, left_out, once)


def _predict(model: PainModel, data: PainDataModule, path: Path) -> Path:
    predict = predict_part if model.scale is None else predict_values
    partial = path.with_name(f"{path.name}.partial")
    predict(model, data, "test").write_csv(partial)
    return partial


@contextmanager
def _warnings_kept() -> Iterator[list[str]]:
    """Keep what painseq logs: the same line for each of a hundred folds would be read by nobody."""
    kept: list[str] = []
    log = logging.getLogger("painseq")

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                kept.append(record.getMessage())

    handler, passed_on = Keep(), log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield kept
    finally:
        log.removeHandler(handler)
        log.propagate = passed_on


def device_of(recipe: Recipe) -> torch.device:
    """Where a recipe is fitted."""
    trainer = Trainer(accelerator=recipe.options.accelerator, devices=1, logger=False, enable_checkpointing=False)
    return trainer.strategy.root_device


def default_jobs(device: torch.device, threads: int, fits: int) -> int:
    """How many processes to fit in: on a CPU as many as fill the cores, which is faster than one fit on all of them."""
    return 1 if device.type != "cpu" else max(1, min(fits, cores() // threads))


def cores() -> int:
    """The cores that this process may use, which a batch system or a container may have limited; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def runner(
    recipes: Sequence[Recipe],
    data: PainDataModule,
    again: tuple[Sequence[str], Sequence[Path]],
    jobs: int,
    threads: int,
    device: torch.device,
) -> Iterator[Run]:
    """What makes fits, in any order; how many processes do so changes no result.

    Args:
        recipes: what to fit.
        data: whose features, if they are in memory, the processes share.
        again: arguments of `recipes_of`, with which each process makes the recipes anew.
        jobs: processes; 1 is this one.
        threads: of each fit.

    Raises:
        PainseqError: too little shared memory; a process that was killed.
    """
    if jobs == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield lambda fits: (make_fit(fit, recipes, data) for fit in fits)
        finally:
            torch.set_num_threads(before)
        return
    _share(data, device)
    others = set(multiprocessing.active_children())
    context = torch.multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (data, threads, *again))

    def run(fits: Sequence[Fit]) -> Iterator[Done]:
        for future in as_completed([pool.submit(_work, fit) for fit in fits]):
            yield future.result()

    try:
        yield run
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            # A milder signal is caught by Lightning, which ends the batch, and the process takes the next fold.
            process.kill()
        if isinstance(error, BrokenProcessPool):
            raise PainseqError(
                "A process that fitted folds came to an end, perhaps for want of memory. Finished folds are kept; run "
                "the command again with fewer --jobs."
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _share(data: PainDataModule, device: torch.device) -> None:
    """Move the features in memory to where other processes see them; on a GPU, put the one copy there."""
    if data.options.view == "pixels":
        return
    resident = data.everything().resident
    needed = sum(tensor.nbytes for tensor in (resident.frames, resident.present, resident.times_s))
    if SHARED_MEMORY.is_dir():
        state = os.statvfs(SHARED_MEMORY)
        if needed > state.f_bavail * state.f_frsize:
            raise PainseqError(
                f"The features take {needed / 2**30:.1f} GiB, and the memory that processes share ({SHARED_MEMORY}) "
                f"has {state.f_bavail * state.f_frsize / 2**30:.1f} GiB left. Fit in one process (--jobs 1), or give "
                "more (docker run --shm-size)."
            )
    for tensor in (resident.frames, resident.present, resident.times_s):
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        resident.to(device)


_worker: tuple[list[Recipe], PainDataModule]


def _start_worker(data: PainDataModule, threads: int, args: Sequence[str], candidates: Sequence[Path]) -> None:
    global _worker
    # Ctrl-C goes to all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _worker = recipes_of(args, candidates), data


def _work(fit: Fit) -> Done:
    recipes, data = _worker
    return make_fit(fit, recipes, data)
