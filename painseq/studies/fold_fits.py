"""Fits of many folds, one after another, or in processes that share one copy of the features."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from pickle import PicklingError
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.seed import isolate_rng

from painseq.data.datamodule import PainDataModule
from painseq.data.splits import Split
from painseq.errors import PainseqError
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.files import parse_json, write_json
from painseq.model.pain_model import PainModel
from painseq.runs import end_with_parent
from painseq.studies.predict_part import predict_part, predict_values
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions, fit_fold

if TYPE_CHECKING:
    from painseq.studies.experiment import Experiment

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Candidate:
    """A model and its fit options, which a study fits on its folds.

    Args:
        name: name in tables and folders.
        make: creates a new classifier, with new weights, on each call: a function, or the `classifier` of an
            `Experiment`. It must be picklable for worker processes, which functions at the top level of a module are,
            but lambdas are not.
        options: options of each fit.

    Example:
        >>> experiment = read_experiment("configs/head/lstm.yaml")
        >>> candidate = Candidate("LSTM", experiment.classifier, experiment.fit_options())
    """

    name: str
    make: Callable[[], PainClassifier]
    options: FitOptions = field(default_factory=FitOptions)


def candidate_of(experiment: Experiment, name: str | None = None) -> Candidate:
    """Return the model of an experiment, and its fit options, as a candidate.

    Args:
        name: name of the candidate; None: name of the head's class.

    Raises:
        PainseqError: no head; a setting that folds do not accept.
    """
    if experiment.config["model"]["head"] is None:
        raise PainseqError("The experiment has no head to fit. Add one, e.g. configs/head/lstm.yaml.")
    return Candidate(name or experiment.head_name, experiment.classifier, experiment.fit_options())


def grid_of(experiment: Experiment, grid: Mapping[str, Sequence[object]]) -> list[Candidate]:
    """Return a candidate for each combination of values of the head's arguments.

    Args:
        experiment: experiment with a head.
        grid: argument of the head -> its values.

    Raises:
        PainseqError: no head, or an argument without two different values or more that the head has.

    Example:
        >>> grid_of(read_experiment("configs/head/histogram_boosting.yaml"), {"max_depth": [2, 3], "trees": [50, 200]})
    """
    for name, values in grid.items():
        if len(set(map(str, values))) < max(2, len(values)):
            raise PainseqError(f"grid has {list(values)} for {name}; give two different values or more.")
    candidates = []
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        changed = experiment.changed({"model": {"head": {"init_args": chosen}}})
        candidates.append(candidate_of(changed, ",".join(f"{name}={value}" for name, value in chosen.items())))
    return candidates


@dataclass(frozen=True)
class FoldFit:
    """One fit on one fold.

    Args:
        out: folder of the fit.
        split: subjects to fit on; test subjects, if any, are predicted.
        candidate: index of the candidate.
        epochs: train for this many epochs; None: stop early.
        inner: whether the fit only serves the choice of a candidate; its threshold is then not tuned.
    """

    out: Path
    split: Split
    candidate: int = 0
    epochs: int | None = None
    inner: bool = False

    @property
    def predictions(self) -> Path:
        """File of the predictions of the test subjects."""
        return self.out / "predictions.csv"

    @property
    def finished(self) -> bool:
        """Whether the fit is finished."""
        return (self.predictions if self.split.test else self.out / "run.json").is_file()


@dataclass(frozen=True)
class FitResult:
    """The result of a fit.

    Args:
        fit: the fit.
        left_out: why there is no model; None if there is one.
        warnings: logged warnings.
    """

    fit: FoldFit
    left_out: str | None
    warnings: tuple[str, ...] = ()


RunFits = Callable[[Sequence[FoldFit]], Iterator[FitResult]]


def reason_to_leave_out(data: PainDataModule) -> str | None:
    """Return why this split cannot be fitted or scored; None if it can."""
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


def run_fit(fit: FoldFit, candidates: Sequence[Candidate], data: PainDataModule) -> FitResult:
    """Fit a model and predict the test subjects; a finished fit is not repeated."""
    warnings_file = fit.out / "warnings.json"
    if fit.finished:
        logged = parse_json(warnings_file.read_bytes()) if warnings_file.is_file() else ()
        return FitResult(fit, None, tuple(logged))
    with _warnings_kept() as warnings:
        fold = data.with_split(fit.split)
        left_out = reason_to_leave_out(fold)
        if left_out is None:
            candidate = candidates[fit.candidate]
            model = fit_fold(candidate.make, fold, fit.out, _options(fit, candidate), fit.epochs)
            predictions = _predict(model, fold) if fit.split.test else None
    unique = tuple(dict.fromkeys(warnings))
    if left_out is None:
        # A resumed run reports them again.
        write_json(warnings_file, unique)
        if predictions is not None:
            # Written last: its presence marks the fold as finished.
            predictions.write_csv(fit.predictions)
    return FitResult(fit, left_out, unique)


def _options(fit: FoldFit, candidate: Candidate) -> FitOptions:
    """Return the options of a fit: a threshold is tuned only where a fold's test subjects are predicted."""
    tunes = bool(fit.split.test) and not fit.inner
    return candidate.options if tunes else replace(candidate.options, tune_threshold=None)


def check_finished(fits: Sequence[FoldFit], candidates: Sequence[Candidate], data: PainDataModule) -> None:
    """Check that finished fits are of these candidates, by the first finished fit of each.

    Raises:
        PainseqError: a finished fit has another model or other fit options.
    """
    first = {fit.candidate: fit for fit in reversed(fits) if fit.finished and (fit.out / "run.json").is_file()}
    with _warnings_kept():
        for number, fit in first.items():
            candidate = candidates[number]
            # A finished fold is not fitted again: `fit_fold` compares its checkpoint with the model.
            fit_fold(candidate.make, data.with_split(fit.split), fit.out, _options(fit, candidate), fit.epochs)


def all_fitted_in_epochs(candidates: Sequence[Candidate], data: PainDataModule) -> bool:
    """Return whether all candidates' heads are fitted in epochs, whose number inner folds can choose.

    Args:
        candidates: the models.
        data: data module with the split of a fold.

    Raises:
        PainseqError: a single candidate that is fitted at once, so that inner folds have nothing to choose.
    """
    for candidate in candidates:
        with _warnings_kept(), isolate_rng():
            model = candidate.make()
            model.bind(data)
        assert model.head is not None
        if not model.head.fitted_by_gradients:
            if len(candidates) == 1:
                raise PainseqError(
                    f"Inner folds choose a number of epochs or a candidate, but {model.head.name} of candidate "
                    f"{candidate.name!r} is fitted at once, not in epochs. Leave inner_folds out (command line: "
                    "--inner-folds), or give several candidates (command line: --candidates, --grid)."
                )
            return False
    return True


def _predict(model: PainModel, data: PainDataModule) -> Predictions | ValuePredictions:
    return predict_values(model, data, "test") if model.predicts_values else predict_part(model, data, "test")


@contextmanager
def _warnings_kept() -> Iterator[list[str]]:
    """Collect painseq's warnings instead of logging them, as a hundred folds may have the same."""
    kept: list[str] = []
    log = logging.getLogger("painseq")

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                kept.append(record.getMessage())

    handler, propagate = Keep(), log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield kept
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


def device_of(options: FitOptions) -> torch.device:
    """Return the device of fits with these options."""
    trainer = Trainer(accelerator=options.accelerator, devices=1, logger=False, enable_checkpointing=False)
    return trainer.strategy.root_device


def default_jobs(device: torch.device, threads: int, fits: int) -> int:
    """Return the number of processes: on a CPU as many as fill the cores, which is faster than one fit on all cores."""
    return 1 if device.type != "cpu" else max(1, min(fits, cores() // threads))


def cores() -> int:
    """Return the number of cores available to this process, which a batch system or container may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def fold_fitter(
    candidates: Sequence[Candidate], data: PainDataModule, jobs: int, threads: int, device: torch.device
) -> Iterator[RunFits]:
    """Provide a function that runs fits, in any order; the number of processes does not change results.

    Args:
        candidates: candidates of the fits.
        data: data; if its features are in memory, the processes share them.
        jobs: number of processes; 1 fits in this process.
        threads: number of threads of each fit.
        device: device of the fits.

    Raises:
        PainseqError: several processes with a candidate that cannot be pickled; too little shared memory; a process
            that ended unexpectedly.
    """
    if jobs == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield lambda fits: (run_fit(fit, candidates, data) for fit in fits)
        finally:
            torch.set_num_threads(before)
        return
    _check_picklable(candidates)
    _share(data, device)
    others = set(multiprocessing.active_children())
    context = torch.multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (candidates, data, threads))

    def run(fits: Sequence[FoldFit]) -> Iterator[FitResult]:
        for future in as_completed([pool.submit(_work, fit) for fit in fits]):
            yield future.result()

    try:
        yield run
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            # Lightning catches milder signals, ends the batch, and the process continues with the next fold.
            process.kill()
        if isinstance(error, BrokenProcessPool):
            raise PainseqError(
                "A process that fitted folds ended unexpectedly, perhaps because memory ran out. Finished folds are "
                "kept; rerun with fewer jobs. In a Python script, the call must be under "
                '`if __name__ == "__main__":`; in a notebook that defines the model, jobs must be 1.'
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _check_picklable(candidates: Sequence[Candidate]) -> None:
    for candidate in candidates:
        try:
            ForkingPickler.dumps(candidate)
        except (PicklingError, AttributeError, TypeError) as error:
            raise PainseqError(
                f"Candidate {candidate.name!r} cannot be sent to other processes ({error}). Use as `make` a function "
                "at the top level of a module or the classifier of an Experiment, or fit in this process: jobs=1."
            ) from error


def _share(data: PainDataModule, device: torch.device) -> None:
    """Move the features to memory shared by processes; on a GPU, to the GPU."""
    if data.options.view == "pixels":
        return
    resident = data.everything().resident
    needed = sum(tensor.nbytes for tensor in (resident.frames, resident.present, resident.times_s))
    if SHARED_MEMORY.is_dir():
        state = os.statvfs(SHARED_MEMORY)
        if needed > state.f_bavail * state.f_frsize:
            raise PainseqError(
                f"The features need {needed / 2**30:.1f} GiB, but shared memory ({SHARED_MEMORY}) has only "
                f"{state.f_bavail * state.f_frsize / 2**30:.1f} GiB free. Fit in one process (jobs=1), or increase "
                "shared memory (docker run --shm-size)."
            )
    for tensor in (resident.frames, resident.present, resident.times_s):
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        resident.to(device)


_worker: tuple[Sequence[Candidate], PainDataModule]


def _start_worker(candidates: Sequence[Candidate], data: PainDataModule, threads: int) -> None:
    global _worker
    # Ctrl-C reaches all processes of a terminal; the first process ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(threads)
    _worker = candidates, data


def _work(fit: FoldFit) -> FitResult:
    candidates, data = _worker
    return run_fit(fit, candidates, data)
