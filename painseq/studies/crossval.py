"""Cross-validation: a model fitted and scored on every fold, with nested selection of settings on request."""

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
from painseq.data.splits import check_no_leak, every_fold, inner_splits, out_of_fold_splits, qualified
from painseq.errors import PainseqError
from painseq.evaluation import read_predictions
from painseq.evaluation.value_predictions import holds_values, read_value_predictions
from painseq.files import read_yaml, write_atomically, write_json
from painseq.runs import (
    OnProgress,
    check_same_run,
    locked_folder,
    make_run_folder,
    no_progress,
    read_history,
    read_json,
)
from painseq.studies.crossval_report import CrossValidationResult, Fold, FoldResult, fold_scores, write_results
from painseq.studies.fold_fits import (
    Candidate,
    FitResult,
    FoldFit,
    RunFits,
    all_fitted_in_epochs,
    check_finished,
    default_jobs,
    device_of,
    fold_fitter,
)
from painseq.training.fitting import FitOptions, best_epoch

log = logging.getLogger("painseq")

AT_ONCE = (
    "Selected on folds inside each fold: the training subjects are divided, and each part is predicted by a fit "
    "without it, stopped or cut on the validation subjects of the fold; the candidate is the one with the best mean "
    "score (balanced accuracy; on a scale, squared error). It is then fitted as without inner folds."
)
"""How candidates are selected if one of them is not fitted in epochs."""
CHOICE = (
    "Selected on folds inside each fold: the epochs of a candidate are the median of those with the smallest "
    "validation "
    "loss; the candidate is the one with the best mean validation score (balanced accuracy; on a scale, squared "
    "error). "
    "It is then fitted on all subjects but the test subjects."
)


@dataclass(frozen=True)
class CrossValidation:
    """Options of a cross-validation.

    Args:
        repeats: number of repeats with newly drawn folds.
        inner_folds: number of folds inside each fold to select the number of epochs, and the candidate; None: stop
            early on the validation part of each fold.
        jobs: number of processes that fit folds and share the features; None: as many as the cores allow, and 1 on a
            GPU.
        threads: number of threads per fit; more than 1 can change the last digits.
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
    """Fit and score a model on every fold. Repeat an interrupted call with the same `out` to resume.

    Args:
        candidates: models with their fit options; with several, one is selected on folds inside each fold. The reported
            device, seed and precision are those of the first.
        data: data whose split protocol has folds.
        out: run folder, with one folder per fold (`fold-00`, ..., with the checkpoint, the log and the predictions of
            its test subjects), `predictions.csv` of all folds, `metrics.json`, `report.html`, `config.yaml`, and
            `folds.json` (the subjects of each part of each fold). With repeats, the folds are in `repeat-0`, ...
        config: further content of `config.yaml`, such as an experiment's configuration; it must be the same when a run
            is resumed.
        on_progress: called after each fit.

    Raises:
        PainseqError: a protocol without folds; a folder that holds another run, or in which another process works;
            several processes with a candidate that cannot be pickled; no fold can be fitted; see
            `painseq.training.fitting.fit_fold`.
        LeakError: the extractor was fitted on test subjects.

    Example:
        >>> experiment = read_experiment("my_data.yaml", "configs/head/lstm.yaml")
        >>> result = cross_validate([candidate_of(experiment)], experiment.data(), Path("runs/lstm_loso"))
        >>> print(result.evaluations["LSTM"].scores.balanced_accuracy, result.spread["balanced_accuracy"]["std"])
    """
    out = Path(out)
    options = options or CrossValidation()
    _check(candidates, data, options)
    folds = folds_of(data, out, options.repeats)
    # Checked before the first fit, since the leak may be in the last fold.
    tested = {subject for fold in folds for subject in fold.split.test}
    check_no_leak(data.extractor_trained_on, qualified(data.name, tested), "The extractor")
    in_epochs = options.inner_folds is None or all_fitted_in_epochs(candidates, data.with_split(folds[0].split))
    with locked_folder(out) as interrupted:
        _open(out, _settings(candidates, options, config), data, folds, interrupted)
        if data.options.view == "features":
            data.everything()
        device = device_of(candidates[0].options)
        study = _Study(candidates, data, out, options, device, in_epochs)
        results, warnings = study.fit(folds, on_progress)
        names = [candidate.name for candidate in candidates]
        name = names[0] if len(names) == 1 else f"best of {', '.join(names)}"
        if data.options.normalise == "subject":
            name += ", transductive"
        return write_results(out, name, results, data, warnings, _facts(study))


def _facts(study: _Study) -> dict[str, object]:
    """Return the settings to report."""
    candidates, data, options = study.candidates, study.data, study.options
    choice = CHOICE if study.in_epochs else AT_ONCE
    return {
        "protocol": data.options.split.protocol,
        "repeats": options.repeats,
        "inner_folds": options.inner_folds,
        "candidates": [candidate.name for candidate in candidates] if len(candidates) > 1 else [],
        "choice": None if options.inner_folds is None else choice,
        "seed": candidates[0].options.seed,
        "tuned_threshold": _tuning_text(candidates[0].options),
        "device": str(study.device),
        "threads_a_fold": options.threads,
        "normalise_by_person": None if data.options.normalise == "none" else data.options.normalise,
        "transductive": data.options.normalise == "subject",
    }


def _tuning_text(options: FitOptions) -> str | None:
    return None if options.tune_threshold is None else str(options.tune_threshold)


def _check(candidates: Sequence[Candidate], data: PainDataModule, options: CrossValidation) -> None:
    if not candidates:
        raise PainseqError("candidates is empty. Give at least one model.")
    if options.repeats < 1:
        raise PainseqError(f"repeats is {options.repeats}; it must be 1 or more.")
    if options.inner_folds is not None and options.inner_folds < 2:
        raise PainseqError(f"inner_folds is {options.inner_folds}; it must be 2 or more.")
    if len(candidates) > 1 and options.inner_folds is None:
        raise PainseqError(
            f"{len(candidates)} candidates need inner_folds: they are selected on folds inside each fold, never on its "
            "test subjects. Set inner_folds, e.g. to 3, or give one candidate."
        )
    if len({candidate.name for candidate in candidates}) < len(candidates):
        raise PainseqError("Two candidates have the same name. Give each a different name.")
    if (options.jobs is not None and options.jobs < 1) or options.threads < 1:
        raise PainseqError(f"jobs is {options.jobs} and threads {options.threads}; each must be 1 or more.")
    split = data.options.split
    if split.fold or split.fold_subject is not None:
        raise PainseqError("A cross-validation uses every fold. Omit split.fold and split.fold_subject.")
    if options.inner_folds is None and split.validation_share == 0:
        raise PainseqError(
            "split.validation_share is 0, so there are no validation subjects for early stopping. Set it above 0, or "
            "select the number of epochs inside the folds: set inner_folds, e.g. to 3."
        )


def folds_of(data: PainDataModule, out: Path, repeats: int) -> list[Fold]:
    """Return every fold of every repeat.

    Raises:
        PainseqError: see `every_fold`.
    """
    options, folds = data.options.split, []
    for repeat in range(repeats):
        drawn = every_fold(data.manifest, replace(options, repeat=options.repeat + repeat), data.scheme)
        folder = out if repeats == 1 else out / f"repeat-{repeat}"
        folds += [Fold(repeat, number, split, folder / f"fold-{number:02d}") for number, split in enumerate(drawn)]
    return folds


def _settings(
    candidates: Sequence[Candidate], options: CrossValidation, config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the content of config.yaml."""
    own = {
        "repeats": options.repeats,
        "inner_folds": options.inner_folds,
        "threads": options.threads,
        "candidates": {candidate.name: asdict(candidate.options) for candidate in candidates},
    }
    return {**(config or {}), "crossval": own}


def _open(
    out: Path, settings: Mapping[str, Any], data: PainDataModule, folds: Sequence[Fold], interrupted: bool
) -> None:
    """Start a run in its folder, or check that it holds the same run."""
    content = {
        "data": data.name,
        "fingerprint": data.manifest.fingerprint(),
        "pipeline": data.pipeline,
        "folds": [{"repeat": fold.repeat, "fold": fold.number, **fold.split.to_dict()} for fold in folds],
    }
    if not (out / "folds.json").is_file() or not any(out.rglob("run.json")):
        # A failed run without a finished fold does not block a corrected one.
        if not (out / "folds.json").is_file():
            make_run_folder(out, ("config.yaml",) if interrupted else ())
        write_atomically(out / "config.yaml", yaml.safe_dump(settings, sort_keys=False).encode())
        # Written last: its presence makes the run resumable.
        write_json(out / "folds.json", content)
        return
    previous = read_yaml(out / "config.yaml")
    check_same_run(out, {**previous, "folds": read_json(out / "folds.json")}, {**settings, "folds": content})


@dataclass(frozen=True)
class _Study:
    """What the fits of a cross-validation share.

    Args:
        in_epochs: whether all candidates are fitted in epochs, whose number inner folds choose.
    """

    candidates: Sequence[Candidate]
    data: PainDataModule
    out: Path
    options: CrossValidation
    device: torch.device
    in_epochs: bool

    def fit(self, folds: Sequence[Fold], on_progress: OnProgress) -> tuple[list[FoldResult], list[str]]:
        """Fit every fold, with inner folds on request; returns the results and the logged warnings."""
        candidates, options, out = self.candidates, self.options, self.out
        inner = {} if options.inner_folds is None else {fold: self._inner_fits(fold) for fold in folds}
        inner_fits = [fit for fits in inner.values() for fit in fits]
        total = len(folds) + len(inner_fits)
        check_finished(inner_fits or [FoldFit(fold.out, fold.split) for fold in folds], candidates, self.data)
        jobs = options.jobs or default_jobs(self.device, options.threads, total)
        log.info("%d fits on %s, precision %s, %d at once", total, self.device, candidates[0].options.precision, jobs)
        with fold_fitter(candidates, self.data, jobs, options.threads, self.device) as run:
            inner_results = _run(run, inner_fits, out, 0, total, on_progress)
            choices = {fold: choices_of([inner_results[fit] for fit in inner[fold]], candidates) for fold in inner}
            planned = {fold: _fit_of(fold, choices, candidates) for fold in folds}
            outer_fits = [fit for fit in planned.values() if fit is not None]
            outer_results = _run(run, outer_fits, out, len(inner_fits), total, on_progress)
        results = []
        for fold, fit in planned.items():
            left_out = "no inner fold could be fitted" if fit is None else outer_results[fit].left_out
            results.append(FoldResult(fold, None if fit is None else candidates[fit.candidate].name, left_out))
        all_results = (*inner_results.values(), *outer_results.values())
        return results, [warning for result in all_results for warning in result.warnings]

    def _inner_fits(self, fold: Fold) -> list[FoldFit]:
        assert self.options.inner_folds is not None
        divide = inner_splits if self.in_epochs else out_of_fold_splits
        manifest, seed, scheme = self.data.manifest, self.data.options.split.seed, self.data.scheme
        splits = divide(fold.split, manifest, self.options.inner_folds, seed, scheme)
        return [
            FoldFit(fold.out / "inner" / f"{candidate.name}-{number}", inner, place, inner=True)
            for place, candidate in enumerate(self.candidates)
            for number, inner in enumerate(splits)
        ]


def _run(
    run: RunFits, fits: Sequence[FoldFit], out: Path, before: int, total: int, on_progress: OnProgress
) -> dict[FoldFit, FitResult]:
    results = {}
    for result in run(fits):
        results[result.fit] = result
        on_progress(before + len(results), total, str(result.fit.out.relative_to(out)))
    return results


@dataclass(frozen=True)
class Choice:
    """The outcome of the inner folds for a candidate.

    Args:
        candidate: index of the candidate.
        epochs: median over the inner folds of the best number of epochs, by validation loss; None if the candidate is
            fitted as without inner folds.
        score: mean over the inner folds of the balanced accuracy; for a scale, of the negative squared error. With
            epochs it is that of the validation part at the best epoch, otherwise that of the predicted part.
        inner_epochs: best number of epochs of each inner fold.
    """

    candidate: int
    epochs: int | None
    score: float
    inner_epochs: tuple[int, ...]


def choices_of(inner: Sequence[FitResult], candidates: Sequence[Candidate]) -> list[Choice]:
    """Return the outcome for each candidate, the best mean inner score first; none for what could not be fitted.

    The validation loss selects the epochs of a candidate, but not the candidate: candidates may have different losses.
    """
    choices = []
    for number in range(len(candidates)):
        fits = [result.fit for result in inner if result.fit.candidate == number and result.left_out is None]
        tested = [score for fit in fits if fit.split.test and (score := _tested_score(fit.predictions)) is not None]
        if tested:
            choices.append(Choice(number, None, fmean(tested), ()))
        runs = [fit.out for fit in fits if not fit.split.test]
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
    return sorted(choices, key=lambda choice: -choice.score)


def _tested_score(path: Path) -> float | None:
    """Return the balanced accuracy of predictions, or the negative squared error on a scale; None without a truth."""
    predictions = read_value_predictions(path) if holds_values(path) else read_predictions(path)
    scores = fold_scores(predictions)
    if "mse" in scores:
        return None if scores["mse"] is None else -scores["mse"]
    return scores["balanced_accuracy"]


def _fit_of(fold: Fold, choices: Mapping[Fold, Sequence[Choice]], candidates: Sequence[Candidate]) -> FoldFit | None:
    """Return the fit to score; with chosen epochs, on all but the test subjects, for that many."""
    if fold not in choices:
        return FoldFit(fold.out, fold.split)
    if not choices[fold]:
        return None
    choice = choices[fold][0]
    fold.out.mkdir(parents=True, exist_ok=True)
    content = {
        "name": candidates[choice.candidate].name,
        "recipe": choice.candidate,
        "epochs": choice.epochs,
        "score": choice.score,
        "inner_epochs": choice.inner_epochs,
        "candidates": {candidates[each.candidate].name: each.score for each in choices[fold]},
    }
    write_json(fold.out / "choice.json", content)
    if choice.epochs is None:
        return FoldFit(fold.out, fold.split, choice.candidate)
    subjects = tuple(sorted((*fold.split.train, *fold.split.validation)))
    return FoldFit(fold.out, replace(fold.split, train=subjects, validation=()), choice.candidate, choice.epochs)
