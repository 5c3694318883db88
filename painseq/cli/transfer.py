"""`painseq transfer`: does a model, or do its features, serve another data set, and how much of that is needed?"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from painseq.cli.transfer_check import check_plan, given
from painseq.cli.transfer_plan import Fit, TransferPlan, fit_of, read_plan
from painseq.data.splits import Split
from painseq.errors import PainseqError
from painseq.evaluation import Predictions, read_predictions, read_truth
from painseq.evaluation.transfer import CellResult, cell_result, drawn_order
from painseq.files import write_json
from painseq.runs import check_same_run
from painseq.spec import Spec

if TYPE_CHECKING:
    from painseq.cli.experiment import ExperimentCLI, Recipe
    from painseq.data.datamodule import PainDataModule
    from painseq.extractors import Extractor
    from painseq.training.classifier import PainClassifier

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq transfer",
        description="Fill a table over sources, targets and heads: does the model transfer, do its features, and how "
        "many people of the target are needed? Run again, it resumes at the fit.",
    )
    parser.add_argument("plan", type=Path, metavar="PLAN", help="YAML, such as configs/demo/transfer.yaml; it is code")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"), help="folder to write; default: %(default)s")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be extracted and fitted")
    args = parser.parse_args(argv)
    transfer(args.plan, args.out, args.dry_run)
    return 0


def transfer(plan: Path, out: Path, dry_run: bool = False) -> list[CellResult]:
    """Fill the table that a plan asks for; what is there already is not done again.

    Args:
        plan: see `TransferPlan`; like every YAML given to `painseq fit`, it names classes and so is code.
        out: folder to write: `stores/`, `fits/`, `predictions/`, `transfer.json`, `transfer.csv` (a row a cell),
            `runs.csv` (a row a seed and draw), `report.html`.
        dry_run: only tell what would be done.

    Returns:
        The cells; none for a dry run.

    Raises:
        PainseqError: a plan that cannot be carried out; a folder that holds another one.
        LeakError: an extractor, or a source, has seen test subjects of a target.
    """
    from painseq.cli.transfer_report import show, write_results
    from painseq.studies.experiment import shipped_config
    from painseq.video.generated import is_generated

    job = Transfer(read_plan(shipped_config(plan)), out)
    job.check()
    if dry_run:
        job.tell()
        return []
    job.begin()
    job.extract()
    job.fit()
    results = job.results()
    generated = [name for name, data in job.data.items() if is_generated(data.root)]
    page = write_results(out, job.plan, results, job.scored, job.facts(), generated)
    show(job.plan, results, generated)
    Console().print(f"Report: {page}", soft_wrap=True, markup=False)
    return results


class Transfer:
    """The steps of the command, in order; nothing is written before `begin`."""

    def __init__(self, plan: TransferPlan, out: Path) -> None:
        self.plan = plan
        self.out = out
        self.data = {name: self._data(name) for name in plan.data}
        self.networks = {name: self._network(name) for name in plan.extractors}
        self.heads = {name: self._head(name) for name in plan.heads}
        self.truths = {name: read_truth(given.truth) for name, given in plan.data.items() if given.truth is not None}
        training = {name: len(data.split.train) for name, data in self.data.items()}
        self.runs = {cell: plan.runs(cell, training) for cell in plan.cells(training)}
        self.fits: dict[Fit, list[str]] = {}
        """Every fit that the table needs, and the targets on which it is scored."""
        for cell, runs in self.runs.items():
            for seed, draw in runs:
                targets = self.fits.setdefault(fit_of(cell, seed, draw), [])
                if cell.target not in targets:
                    targets.append(cell.target)
        self.scored: dict[tuple[Fit, str], Predictions] = {}

    def _data(self, name: str, *more: str) -> PainDataModule:
        from painseq.data.datamodule import PainDataModule

        data = _parsed(f"data set {name}", (*self.plan.data[name].options, *more)).datamodule
        if not isinstance(data, PainDataModule) or type(data) is PainDataModule:
            raise PainseqError(f"The data set {name}: begin its options with --config=configs/data/....yaml.")
        return data

    def _beside_data(self, what: str, options: Sequence[str]) -> ExperimentCLI:
        """The command line of an extractor or a head; some data set has to stand beside it."""
        first = next(iter(self.plan.data.values()))
        return _parsed(what, (*first.options, *options))

    def _network(self, name: str) -> Extractor:
        from painseq.extractors import Extractor

        model = self._beside_data(f"extractor {name}", self.plan.extractors[name].options).model
        if not isinstance(model.extractor, Extractor):
            raise PainseqError(f"The extractor {name}: begin its options with --config=configs/extractor/....yaml.")
        return model.extractor

    def _head(self, name: str) -> tuple[Recipe, Spec]:
        """How a head is made and fitted, and its settings in plain values."""
        from painseq.cli.experiment import recipe_of

        cli = self._beside_data(f"head {name}", (*self.plan.heads[name], "--model.extractor=null"))
        try:
            recipe = recipe_of(cli, name)
        except PainseqError as error:
            raise PainseqError(f"The head {name} of the plan: {error}") from error
        fit = dataclasses.asdict(dataclasses.replace(recipe.options, seed=0))
        return recipe, {"model": yaml.safe_load(cli.parser.dump(cli.config, skip_validation=True))["model"], "fit": fit}

    def check(self) -> None:
        """See that all data sets are read alike, and that nobody is on both sides.

        Raises:
            PainseqError, LeakError: see `check_plan`; a store of another extractor or data set.
        """
        check_plan(self.plan, self.data, self.networks, self.truths)
        for name, network in self.networks.items():
            for dataset, path in self.plan.extractors[name].stores.items():
                self._check_store(name, network, dataset, path)

    def _check_store(self, name: str, network: Extractor, dataset: str, path: Path) -> None:
        """See that a store which the plan names is of this extractor and data set."""
        from painseq.data.datasets import split_readable
        from painseq.features import FeatureStore

        try:
            data = self._data(dataset, f"--data.options.store={path}", "--model.extractor=null")
            store = data.store
            if not isinstance(store, FeatureStore):
                raise PainseqError("It does not tell which extractor made it. Name a store of `painseq extract`.")
            store.check_same({**store.spec, "extractor": {**network.spec(), "fingerprint": network.fingerprint()}})
            for part in data.split.parts():
                split_readable(data.clips(part), store)
        except PainseqError as error:
            raise PainseqError(f"The store {path}, named for {name} on {dataset}: {error}") from error

    def tell(self) -> None:
        """Print what would be done."""
        table = Table("", "in all", "there already", title="What this plan takes")
        stores = self._stores()
        made = sum((path / "run.json").is_file() for path in stores.values())
        table.add_row("feature stores (extractor and data set)", str(len(stores)), str(made))
        for what, chosen in (
            ("fits on a data set's training subjects", [fit for fit in self.fits if fit.k is None]),
            ("fits that go on with k subjects of a target", [fit for fit in self.fits if fit.k is not None]),
        ):
            table.add_row(what, str(len(chosen)), str(sum(self._is_done(fit) for fit in chosen)))
        table.add_row("cells of the table", str(len(self.runs)), "")
        Console().print(table)
        for name, data in self.data.items():
            split = data.split
            Console().print(
                f"{name}: {len(data.manifest)} clips; {len(split.train)} subjects to train on, {len(split.validation)} "
                f"for early stopping, {len(split.test)} tested; classes {', '.join(data.scheme.class_names)}.",
                soft_wrap=True,
                markup=False,
            )

    def begin(self) -> None:
        """Make the folder, or check that what it holds goes with this plan.

        Raises:
            PainseqError: the folder holds fits of other data, extractors, heads or settings.
        """
        path, facts = self.out / "plan.json", self.facts()
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if before is None and self.out.is_dir() and any(self.out.iterdir()):
            raise PainseqError(f"{self.out} holds something else already. Give --out another folder.")
        if before is not None:
            # Data sets, extractors, heads, seeds, k and draws may be added in the same folder.
            check_same_run(self.out, _common(before, facts), _common(facts, before))
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(path, facts)

    def facts(self) -> Spec:
        """What decides the fits, in plain values: written down, and compared when the command is run again."""
        first = next(iter(self.data.values()))
        return {
            "fps": self.plan.fps,
            "class_names": list(first.scheme.class_names),
            "crops": dict(given(first).crops),
            "epochs": self.plan.epochs,
            "data": {
                name: {
                    "data_set": data.name,
                    "labels": data.options.labels,
                    "classes": {key: list(labels) for key, labels in data.scheme.classes.items()},
                    "fingerprint": data.manifest.fingerprint(),
                    "split": data.split.to_dict(),
                }
                for name, data in self.data.items()
            },
            "extractors": {
                name: {
                    "trained_on": self.plan.extractors[name].trained_on,
                    "fingerprint": network.fingerprint(),
                    "people": len(network.trained_on),
                }
                for name, network in self.networks.items()
            },
            "heads": {name: settings for name, (_, settings) in self.heads.items()},
        }

    def _stores(self) -> dict[tuple[str, str], Path]:
        """(extractor, data set) -> where the store is or will be, for the pairs that the table needs."""
        pairs: dict[tuple[str, str], Path] = {}
        for fit, targets in self.fits.items():
            for name in (fit.on, *targets):
                given = self.plan.extractors[fit.extractor].stores.get(name)
                pairs[fit.extractor, name] = given or self.out / "stores" / f"{fit.extractor}_{name}"
        return pairs

    def extract(self) -> None:
        """Fill the stores that are not given."""
        from painseq.cli.extract import main as extract

        with _said_once(quiet=False):
            for (extractor, name), path in self._stores().items():
                # The last file of a store that is whole; that it is the right one is checked when it is opened.
                if name in self.plan.extractors[extractor].stores or (path / "run.json").is_file():
                    continue
                extract(
                    [
                        *self.plan.data[name].options,
                        *self.plan.extractors[extractor].options,
                        *self.plan.extract,
                        f"--out={path}",
                    ]
                )

    def fit(self) -> None:
        """Fit what is not fitted yet, and predict the test clips of each target."""
        stores = self._stores()
        # A fit that goes on from another comes after it; those of one extractor share the features in memory.
        ordered = sorted(self.fits, key=lambda fit: (fit.extractor, fit.k is not None))
        with _said_once(quiet=True), _progress(len(ordered)) as advance:
            for extractor, fits in groupby(ordered, key=lambda fit: fit.extractor):
                read: dict[str, PainDataModule] = {}
                for fit in fits:
                    for name in (fit.on, *self.fits[fit]):
                        if name not in read:
                            store = f"--data.options.store={stores[extractor, name]}"
                            read[name] = self._data(name, store, "--model.extractor=null")
                    fitted = not self._is_done(fit)
                    if fitted:
                        self._fit(fit, read)
                    for target in self.fits[fit]:
                        self.scored[fit, target] = self._read(fit, target)
                    advance(fitted)

    def _fit(self, fit: Fit, read: Mapping[str, PainDataModule]) -> None:
        from painseq.studies.predict_part import predict_part
        from painseq.training.fitting import fit_fold

        (recipe, _), data, out = self.heads[fit.head], read[fit.on], self.out / "fits" / fit.folder
        options = dataclasses.replace(recipe.options, seed=fit.seed)
        start = None if fit.start is None else self.out / "fits" / fit.start.folder / "best.ckpt"

        def make() -> PainClassifier:
            model = recipe.make()
            model.start_from = [] if start is None else [str(start)]
            return model

        early = fit.k is None or self.plan.epochs is None
        split = data.split if fit.k is None else self._drawn(fit, data)
        model = fit_fold(make, data.with_split(split), out, options, None if early else self.plan.epochs)
        seen = {key: list(getattr(model.record, key)) for key in ("fitted_on", "extractor_trained_on", "started_from")}
        told = self._predicted(fit, "fit").with_suffix(".json")
        told.parent.mkdir(parents=True, exist_ok=True)
        # Before the predictions: where these lie, the fit is done.
        write_json(told, seen)
        for target in self.fits[fit]:
            predict_part(model, read[target], "test").write_csv(self._predicted(fit, target))
        if fit.k is not None:
            # Each holds the whole extractor, nobody goes on from it, and there may be hundreds.
            for checkpoint in out.glob("*.ckpt"):
                checkpoint.unlink()

    def _drawn(self, fit: Fit, data: PainDataModule) -> Split:
        """The split of k drawn training subjects; validation subjects only where training is stopped early on them."""
        counts = {
            subject: data.scheme.counts(tuple(clip for clip in data.clips("train") if clip.subject_id == subject))
            for subject in data.split.train
        }
        train = tuple(sorted(drawn_order(counts, fit.seed, fit.draw)[: fit.k]))
        validation = data.split.validation if self.plan.epochs is None else ()
        protocol = f"{data.split.protocol}, {fit.k} training subjects, draw {fit.draw}"
        return Split(protocol, train, validation, data.split.test)

    def _predicted(self, fit: Fit, target: str) -> Path:
        return self.out / "predictions" / fit.folder / f"{target}.csv"

    def _is_done(self, fit: Fit) -> bool:
        return all(self._predicted(fit, target).is_file() for target in self.fits[fit])

    def _read(self, fit: Fit, target: str) -> Predictions:
        """Predictions of a target's test clips, with their truth."""
        from painseq.studies.true_labels import in_classes

        predictions = read_predictions(self._predicted(fit, target))
        if target not in self.truths:
            return predictions
        kept, truth = in_classes(predictions, self.truths[target], self.data[target].scheme)
        return kept.with_truth(truth)

    def results(self) -> list[CellResult]:
        """Every cell, scored."""
        found = []
        for cell, runs in self.runs.items():
            own = self.plan.within_cell(cell)
            scored = {run: self.scored[fit_of(cell, *run), cell.target] for run in runs}
            if all(fit_of(cell, *run) == fit_of(own, *run) for run in runs):
                found.append(cell_result(cell, scored, None, "this is it"))
                continue
            within = {run: self.scored[fit_of(own, *run), cell.target] for run in self.runs[own]}
            found.append(cell_result(cell, scored, within, self.plan.within_is(cell.target)))
        return found


def _parsed(what: str, options: Sequence[str]) -> ExperimentCLI:
    from painseq.cli.experiment import ExperimentCLI

    try:
        return ExperimentCLI("evaluate", options)
    except PainseqError as error:
        raise PainseqError(f"The {what} of the plan: {error}") from error


@contextmanager
def _said_once(quiet: bool) -> Iterator[None]:
    """Let each of painseq's warnings through once, as stores and fits have the same to say; if quiet, nothing else."""
    seen: set[str] = set()

    def once(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return not quiet
        new = record.getMessage() not in seen
        seen.add(record.getMessage())
        return new

    log.addFilter(once)
    try:
        yield
    finally:
        log.removeFilter(once)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[bool], None]]:
    """A bar over fits, with fits a minute and the time left, on standard error."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("fit", total=total, note="fits")
        there = 0

        def advance(fitted: bool) -> None:
            nonlocal there
            there += not fitted
            bar.advance(task)
            speed = bar.tasks[0].speed
            rate = f", {60 * speed:.0f} a minute" if fitted and speed else ""
            bar.update(task, note=f"fits{rate}{f', {there} were there' if there else ''}")

        yield advance


def _common(facts: Spec, others: Spec) -> Spec:
    """The facts without the names that the others do not know."""
    both = {kind: (value, others.get(kind)) for kind, value in facts.items()}
    return {
        kind: {name: ours[name] for name in ours if name in theirs}
        if isinstance(ours, dict) and isinstance(theirs, dict)
        else ours
        for kind, (ours, theirs) in both.items()
    }
