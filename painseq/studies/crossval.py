"""Cross-validation: a model fitted and scored on every fold, its settings chosen inside the folds if wanted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median_low
from typing import Any

import torch
import yaml

from painseq.data.datamodule import PainDataModule
from painseq.data.splits import check_no_leak, every_fold, inner_splits, qualified
from painseq.errors import PainseqError
from painseq.files import write_json
from painseq.runs import OnProgress, check_same_run, make_run_folder, no_progress, read_history, read_json
from painseq.studies.crossval_report import CrossValidationResult, Fold, FoldResult, write_results
from painseq.studies.fold_fits import (
    Candidate,
    FitResult,
    FoldFit,
    RunFits,
    check_finished,
    check_fitted_in_epochs,
    default_jobs,
    device_of,
    fold_fitter,
)
from painseq.training.fitting import best_epoch

log = logging.getLogger("painseq")

CHOICE = (
    "On folds inside each fold: the epochs of a candidate are the median of those with the smallest validation loss; "
    "the candidate is the one with the best mean validation score (balanced accuracy; on a scale, squared error). It "
    "is then fitted on all subjects that are not tested."
)


@dataclass(frozen=True)
class CrossValidation:
    """How to cross-validate.

    Args:
        repeats: draw the folds so many times.
        inner_folds: choose the number of epochs, and the candidate, on so many folds inside each fold; None stops
            early on the validation part of each fold.
        jobs: processes that fit folds, which share the features; None: as many as fill the cores, and 1 on a GPU.
        threads: of each fit; they can change last digits.
    """

    repeats: int = 1
    inner_folds: int | None = None
    jobs: int | None = None
    threads: int = 1


def cross_validate(
    candidates: Sequence[Candidate],
    data: PainDataModule,
    out: str | Path,
    options: CrossValidation | None = None,
    config: Mapping[str, Any] | None = None,
    on_progress: OnProgress = no_progress,
) -> CrossValidationResult:
    """Fit and score on every fold. Interrupted and called again with the same `out`, it goes on at the fold.

    Args:
        candidates: a model and how it is fitted; several are chosen from on folds inside each fold. Device, seed and
            precision that are reported are those of the first.
        data: whose split's protocol has folds.
        out: run folder: a folder a fold (`fold-00`, ..., with the checkpoint, the log and the predictions of its test
            subjects), `predictions.csv` of all folds together, `metrics.json`, `report.html`, `config.yaml`,
            `folds.json` (who is in which part of which fold). With repeats, all folds of one are in `repeat-0`, ...
        config: what else to write into `config.yaml`, such as an experiment's; a run to go on with must have been
            begun with the same.
        on_progress: called after each fit.

    Raises:
        PainseqError: a protocol without folds; a folder that holds another run; several processes and a candidate
            that cannot be pickled; no fold that can be fitted; see `painseq.training.fitting.fit_fold`.
        LeakError: the extractor was fitted on subjects to be tested.

    Example:
        >>> experiment = read_experiment("my_data.yaml", "configs/head/lstm.yaml")
        >>> result = cross_validate([candidate_of(experiment)], experiment.data(), Path("runs/lstm_loso"))
        >>> print(result.evaluations["LSTM"].scores.balanced_accuracy, result.spread["balanced_accuracy"]["std"])
    """
    out = Path(out)
    options = options or CrossValidation()
    _check(candidates, data, options)
    folds = folds_of(data, out, options.repeats)
    # Before the first fold is fitted: the one that would raise it may be the last.
    tested = {subject for fold in folds for subject in fold.split.test}
    check_no_leak(data.extractor_trained_on, qualified(data.name, tested), "The extractor")
    if options.inner_folds is not None:
        check_fitted_in_epochs(candidates, data.with_split(folds[0].split))
    _open(out, candidates, data, folds, options, config)
    if data.options.view == "features":
        data.everything()
    device = device_of(candidates[0].options)
    results, warnings = _fit(candidates, data, folds, out, options, device, on_progress)
    settings = {
        "protocol": data.options.split.protocol,
        "repeats": options.repeats,
        "inner_folds": options.inner_folds,
        "candidates": [candidate.name for candidate in candidates] if len(candidates) > 1 else [],
        "choice": None if options.inner_folds is None else CHOICE,
        "seed": candidates[0].options.seed,
        "device": str(device),
        "threads_a_fold": options.threads,
    }
    names = [candidate.name for candidate in candidates]
    name = names[0] if len(names) == 1 else f"best of {', '.join(names)}"
    return write_results(out, name, results, data, warnings, settings)


def _check(candidates: Sequence[Candidate], data: PainDataModule, options: CrossValidation) -> None:
    if not candidates:
        raise PainseqError("candidates is empty; give one model at least.")
    if options.repeats < 1:
        raise PainseqError(f"repeats is {options.repeats}; it must be 1 or more.")
    if options.inner_folds is not None and options.inner_folds < 2:
        raise PainseqError(f"inner_folds is {options.inner_folds}; it must be 2 or more.")
    if len(candidates) > 1 and options.inner_folds is None:
        raise PainseqError(
            "Candidates are chosen on folds inside each fold, never on its test subjects. Set inner_folds, e.g. to 3, "
            "or give one candidate."
        )
    if len({candidate.name for candidate in candidates}) < len(candidates):
        raise PainseqError("Two candidates have one name; give each a name of its own.")
    if (options.jobs is not None and options.jobs < 1) or options.threads < 1:
        raise PainseqError(f"jobs is {options.jobs} and threads {options.threads}; each must be 1 or more.")
    split = data.options.split
    if split.fold or split.fold_subject is not None:
        raise PainseqError("A cross-validation goes through every fold. Leave split.fold and split.fold_subject out.")
    if options.inner_folds is None and split.validation_share == 0:
        raise PainseqError(
            "No validation subjects, so nothing to stop early on. Set the data's split.validation_share above 0, or "
            "choose the number of epochs inside the folds: inner_folds, e.g. 3."
        )


def folds_of(data: PainDataModule, out: Path, repeats: int) -> list[Fold]:
    """Every fold of every repeat.

    Raises:
        PainseqError: see `every_fold`.
    """
    options, folds = data.options.split, []
    for repeat in range(repeats):
        drawn = every_fold(data.manifest, replace(options, repeat=options.repeat + repeat), data.scheme)
        folder = out if repeats == 1 else out / f"repeat-{repeat}"
        folds += [Fold(repeat, number, split, folder / f"fold-{number:02d}") for number, split in enumerate(drawn)]
    return folds


def _open(
    out: Path,
    candidates: Sequence[Candidate],
    data: PainDataModule,
    folds: Sequence[Fold],
    options: CrossValidation,
    config: Mapping[str, Any] | None,
) -> None:
    """Make the run folder, or see that what is there is this very run."""
    own = {
        "repeats": options.repeats,
        "inner_folds": options.inner_folds,
        "threads": options.threads,
        "candidates": {candidate.name: asdict(candidate.options) for candidate in candidates},
    }
    settings = {**(config or {}), "crossval": own}
    content = {
        "data": data.name,
        "fingerprint": data.manifest.fingerprint(),
        "pipeline": data.pipeline,
        "folds": [{"repeat": fold.repeat, "fold": fold.number, **fold.split.to_dict()} for fold in folds],
    }
    if not (out / "folds.json").is_file() or not any(out.rglob("run.json")):
        # A mistake before the first fold was whole must not keep the mended call out.
        if not (out / "folds.json").is_file():
            make_run_folder(out)
        (out / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        # The second file: with it, the folder can be gone on with.
        write_json(out / "folds.json", content)
        return
    then = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    check_same_run(out, {**then, "folds": read_json(out / "folds.json")}, {**settings, "folds": content})


def _fit(
    candidates: Sequence[Candidate],
    data: PainDataModule,
    folds: Sequence[Fold],
    out: Path,
    options: CrossValidation,
    device: torch.device,
    on_progress: OnProgress,
) -> tuple[list[FoldResult], list[str]]:
    """Fit every fold, with inner folds if wanted; what came of each, and what was logged on the way."""
    inner = {}
    if options.inner_folds is not None:
        inner = {fold: _inner_fits(fold, data, options.inner_folds, candidates) for fold in folds}
    tries = [fit for fits in inner.values() for fit in fits]
    total = len(folds) + len(tries)
    check_finished(tries or [FoldFit(fold.out, fold.split) for fold in folds], candidates, data)
    jobs = options.jobs or default_jobs(device, options.threads, total)
    log.info("%d fits on %s, precision %s, %d at once", total, device, candidates[0].options.precision, jobs)
    with fold_fitter(candidates, data, jobs, options.threads, device) as run:
        tried = _run(run, tries, out, 0, total, on_progress)
        choices = {fold: choose([tried[fit] for fit in inner[fold]], candidates) for fold in inner}
        planned = {fold: _fit_of(fold, choices, candidates) for fold in folds}
        wanted = [fit for fit in planned.values() if fit is not None]
        done = _run(run, wanted, out, len(tries), total, on_progress)
    results = []
    for fold, fit in planned.items():
        left_out = "no inner fold could be fitted" if fit is None else done[fit].left_out
        results.append(FoldResult(fold, None if fit is None else candidates[fit.candidate].name, left_out))
    return results, [line for one in (*tried.values(), *done.values()) for line in one.warnings]


def _run(
    run: RunFits, fits: Sequence[FoldFit], out: Path, before: int, total: int, on_progress: OnProgress
) -> dict[FoldFit, FitResult]:
    results = {}
    for result in run(fits):
        results[result.fit] = result
        on_progress(before + len(results), total, str(result.fit.out.relative_to(out)))
    return results


def _inner_fits(fold: Fold, data: PainDataModule, folds: int, candidates: Sequence[Candidate]) -> list[FoldFit]:
    splits = inner_splits(fold.split, data.manifest, folds, data.options.split.seed, data.scheme)
    return [
        FoldFit(fold.out / "inner" / f"{candidate.name}-{number}", split, place)
        for place, candidate in enumerate(candidates)
        for number, split in enumerate(splits)
    ]


@dataclass(frozen=True)
class Choice:
    """What the inner folds say of a candidate.

    Args:
        candidate: its number.
        epochs: the median of the inner folds' best numbers of epochs, by validation loss.
        score: mean over the inner folds, each at its best epoch, of balanced accuracy; for a scale of the squared
            error, negative.
        inner_epochs: of each inner fold.
    """

    candidate: int
    epochs: int
    score: float
    inner_epochs: tuple[int, ...]


def choose(inner: Sequence[FitResult], candidates: Sequence[Candidate]) -> Choice | None:
    """The candidate with the best mean inner score, the first of several; None where no inner fold could be fitted.

    The validation loss chooses among the epochs of a candidate, not among candidates: theirs may be other losses.
    """
    choices = []
    for number in range(len(candidates)):
        runs = [one.fit.out for one in inner if one.fit.candidate == number and one.left_out is None]
        if runs:
            epochs = tuple(best_epoch(run) for run in runs)
            rows = [
                next(row for row in read_history(run) if row["epoch"] == epoch - 1)
                for run, epoch in zip(runs, epochs, strict=True)
            ]
            scores = [
                row["val_balanced_accuracy"] if "val_balanced_accuracy" in row else -row["val_mse"] for row in rows
            ]
            choices.append(Choice(number, median_low(epochs), fmean(scores), epochs))
    return max(choices, key=lambda choice: choice.score, default=None)


def _fit_of(fold: Fold, choices: Mapping[Fold, Choice | None], candidates: Sequence[Candidate]) -> FoldFit | None:
    """The fit that is scored; with a choice, on all subjects that are not tested, for the chosen number of epochs."""
    if fold not in choices:
        return FoldFit(fold.out, fold.split)
    choice = choices[fold]
    if choice is None:
        return None
    fold.out.mkdir(parents=True, exist_ok=True)
    content = {
        "name": candidates[choice.candidate].name,
        "recipe": choice.candidate,
        "epochs": choice.epochs,
        "score": choice.score,
        "inner_epochs": choice.inner_epochs,
    }
    write_json(fold.out / "choice.json", content)
    everybody = tuple(sorted((*fold.split.train, *fold.split.validation)))
    return FoldFit(fold.out, replace(fold.split, train=everybody, validation=()), choice.candidate, choice.epochs)
