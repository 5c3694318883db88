"""`painseq crossval`: fit and score a head on every fold, with settings chosen inside the folds if wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median_low

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from painseq.cli.crossval_report import End, Fold, write_results
from painseq.cli.experiment import ExperimentCLI
from painseq.data.datamodule import PainDataModule
from painseq.data.splits import check_no_leak, every_fold, inner_splits, qualified
from painseq.errors import PainseqError
from painseq.files import write_json
from painseq.runs import check_same_run, make_run_folder, read_history, read_json
from painseq.studies.fold_fits import Candidate, FitResult, FoldFit, candidate_of, default_jobs, device_of, fold_fitter
from painseq.training.fitting import best_epoch

log = logging.getLogger("painseq")

OF_NO_ACCOUNT = ("out", "jobs")
"""Options that change no result, so that they may differ when a run goes on."""


CHOICE = (
    "On folds inside each fold: the epochs of a candidate are the median of those with the smallest validation loss; "
    "the candidate is the one with the best mean validation score (balanced accuracy; on a scale, squared error). It "
    "is then fitted on all subjects that are not tested."
)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    crossval(argv)
    return 0


def crossval(argv: Sequence[str]) -> Path:
    """Cross-validate as the command line says. Interrupted, it goes on at the fold where it was.

    Returns:
        The run folder: a folder a fold (`fold-00`, ..., with the checkpoint, the log and the predictions of its test
        subjects), `predictions.csv` of all folds together, `metrics.json`, `report.html`, `config.yaml`, `folds.json`
        (who is in which part of which fold). With repeats, all folds of one are in `repeat-0`, ...

    Raises:
        PainseqError: a protocol without folds; a folder that holds another run; no fold that can be fitted; see
            `painseq.training.fitting.fit_fold`.
        LeakError: the extractor was fitted on subjects to be tested.
    """
    cli = ExperimentCLI("crossval", argv)
    data, config = cli.datamodule, cli.config
    if not isinstance(data, PainDataModule):
        raise PainseqError("`painseq crossval` needs a data set: --config configs/data/biovid.yaml, or --data BioVid.")
    inner_folds, files, jobs, threads = (config[key] for key in ("inner_folds", "candidates", "jobs", "threads"))
    _check(data, config["repeats"], inner_folds, files, jobs, threads)
    candidates, out = candidates_of(argv, cli, files), Path(config["out"])
    folds = folds_of(data, out, config["repeats"])
    # Before the first fold is fitted: the one that would tell of it may be the last.
    tested = {subject for fold in folds for subject in fold.split.test}
    check_no_leak(data.extractor_trained_on, qualified(data.name, tested), "The extractor")
    _prepare(cli, data, folds)
    if data.options.view == "features":
        data.everything()
    device = device_of(candidates[0].options)
    inner = {} if inner_folds is None else {fold: _inner_fits(fold, data, inner_folds, candidates) for fold in folds}
    tries = [fit for fits in inner.values() for fit in fits]
    fits = len(folds) + len(tries)
    jobs = default_jobs(device, threads, fits) if jobs is None else jobs
    log.info("%d fits on %s, precision %s, %d at once", fits, device, candidates[0].options.precision, jobs)
    with fold_fitter(candidates, data, jobs, threads, device) as run, _progress(out, fits) as advance:
        tried = {done.fit: done for done in advance(run(tries))}
        choices = {fold: choose([tried[fit] for fit in inner[fold]], candidates) for fold in inner}
        planned = {fold: _fit_of(fold, choices, candidates) for fold in folds}
        done = {done.fit: done for done in advance(run([fit for fit in planned.values() if fit is not None]))}
    ends = []
    for fold, fit in planned.items():
        left_out = "no inner fold could be fitted" if fit is None else done[fit].left_out
        ends.append(End(fold, None if fit is None else candidates[fit.candidate].name, left_out))
    how = {
        "protocol": data.options.split.protocol,
        "repeats": config["repeats"],
        "inner_folds": inner_folds,
        "candidates": [candidate.name for candidate in candidates] if files else [],
        "choice": None if inner_folds is None else CHOICE,
        "seed": candidates[0].options.seed,
        "device": str(device),
        "threads_a_fold": threads,
    }
    name = candidates[0].name if not files else f"best of {', '.join(candidate.name for candidate in candidates)}"
    warnings = [line for one in (*tried.values(), *done.values()) for line in one.warnings]
    write_results(out, name, ends, data, warnings, how)
    return out


def _check(
    data: PainDataModule,
    repeats: int,
    inner_folds: int | None,
    candidates: Sequence[Path],
    jobs: int | None,
    threads: int,
) -> None:
    if repeats < 1:
        raise PainseqError(f"--repeats is {repeats}; it must be 1 or more.")
    if inner_folds is not None and inner_folds < 2:
        raise PainseqError(f"--inner-folds is {inner_folds}; it must be 2 or more.")
    if candidates and inner_folds is None:
        raise PainseqError(
            "Candidates are chosen on folds inside each fold, never on its test subjects. Add --inner-folds 3, or "
            "leave --candidates out."
        )
    if len({path.stem for path in candidates}) < len(candidates):
        raise PainseqError("Two candidates have one name; give their files different names.")
    if (jobs is not None and jobs < 1) or threads < 1:
        raise PainseqError(f"--jobs is {jobs} and --threads {threads}; each must be 1 or more.")
    split = data.options.split
    if split.fold or split.fold_subject is not None:
        raise PainseqError("A cross-validation goes through every fold. Leave split.fold and split.fold_subject out.")
    if inner_folds is None and split.validation_share == 0:
        raise PainseqError(
            "No validation subjects, so nothing to stop early on. Set --data.options.split.validation_share above 0, "
            "or choose the number of epochs inside the folds: --inner-folds 3."
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


def _prepare(cli: ExperimentCLI, data: PainDataModule, folds: Sequence[Fold]) -> None:
    """Make the run folder, or see that what is there is this very run."""
    out = Path(cli.config["out"])
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_validation=True))
    content = {
        "data": data.name,
        "fingerprint": data.manifest.fingerprint(),
        "pipeline": data.pipeline,
        "folds": [{"repeat": fold.repeat, "fold": fold.number, **fold.split.to_dict()} for fold in folds],
    }
    if not (out / "folds.json").is_file() or not any(out.rglob("run.json")):
        # A mistake before the first fold was whole must not keep the mended command out.
        if not (out / "folds.json").is_file():
            make_run_folder(out)
        (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        # The second file: with it, the folder can be gone on with.
        write_json(out / "folds.json", content)
        return
    then, now = (
        {key: value for key, value in written.items() if key not in OF_NO_ACCOUNT}
        for written in (yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8")), config)
    )
    check_same_run(out, {**then, "folds": read_json(out / "folds.json")}, {**now, "folds": content})


def candidates_of(argv: Sequence[str], cli: ExperimentCLI, files: Sequence[Path]) -> list[Candidate]:
    """The model of a command line; with files, one of each: what the command line says goes over all of them.

    Raises:
        PainseqError: no head; a setting that folds do not take; a head beside candidates; a candidate that changes the
            data.
    """
    base = cli.experiment
    if not files:
        return [candidate_of(base)]
    if base.config["model"]["head"] is not None:
        raise PainseqError("A head is given, and candidates too. Leave it out, or make it a candidate.")
    candidates = []
    for path in files:
        experiment = ExperimentCLI("crossval", ["--config", str(path), *argv]).experiment
        if experiment.config["data"] != base.config["data"]:
            raise PainseqError(f"{path} changes the data. Candidates differ in the model and its training alone.")
        candidates.append(candidate_of(experiment, path.stem))
    return candidates


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


@contextmanager
def _progress(out: Path, fits: int) -> Iterator[Callable[[Iterable[FitResult]], Iterator[FitResult]]]:
    """A bar over fits, or a line each where there is no terminal."""
    columns = (TextColumn("crossval"), BarColumn(), MofNCompleteColumn(), TextColumn("fits, {task.fields[rate]}"))
    console, begin = Console(stderr=True), time.perf_counter()
    made = 0
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=fits, rate="")

        def advance(done: Iterable[FitResult]) -> Iterator[FitResult]:
            nonlocal made
            for one in done:
                made += 1
                seconds = (time.perf_counter() - begin) / made
                bar.update(task, completed=made, rate=f"{seconds:.1f} s each")
                if not console.is_terminal:
                    left = seconds * (fits - made)
                    log.info("%d of %d fits: %s; about %.0f s left", made, fits, one.fit.out.relative_to(out), left)
                yield one

        yield advance
