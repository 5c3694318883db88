"""Transfer between data sets: of models and features, and with a few subjects of the target."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import split_readable
from painseq.data.splits import Split, check_no_leak, qualified
from painseq.errors import PainseqError
from painseq.evaluation import Predictions, read_predictions, read_truth
from painseq.evaluation.transfer import CellResult, cell_result, drawn_order
from painseq.extractors import Extractor
from painseq.features import ExtractProgress, FeatureStore, NpzFolder, open_features
from painseq.files import write_json
from painseq.records import shared_people
from painseq.runs import OnProgress, check_same_run, files_of, locked_folder, no_progress, read_json
from painseq.spec import Spec
from painseq.studies.experiment import Experiment
from painseq.studies.extract import extract_data_set
from painseq.studies.predict_part import predict_part, same_videos
from painseq.studies.transfer_check import check_plan, settings_of
from painseq.studies.transfer_plan import TransferFit, TransferPlan, fit_of
from painseq.studies.transfer_report import write_results
from painseq.studies.true_labels import in_classes
from painseq.training.fitting import fit_fold
from painseq.video.generated import is_generated

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class TransferResult:
    """A finished table.

    Args:
        cells: all scored cells.
        page: path of `report.html`.
        generated: data sets of the plan with generated faces.
    """

    cells: tuple[CellResult, ...]
    page: Path
    generated: tuple[str, ...]


@dataclass(frozen=True)
class TransferWork:
    """The work of a table; each pair is (total, finished).

    Args:
        stores: feature stores, one per extractor and data set.
        fits: fits on all training subjects of a data set.
        continued_fits: fits that continue another fit with k subjects of a target.
        cells: number of cells of the table.
        data: name in the plan -> data set.
    """

    stores: tuple[int, int]
    fits: tuple[int, int]
    continued_fits: tuple[int, int]
    cells: int
    data: Mapping[str, PainDataModule]


def transfer(plan: TransferPlan, out: str | Path, on_progress: OnProgress = no_progress) -> TransferResult:
    """Compute the table of a plan. Repeat an interrupted call to resume.

    Args:
        plan: data sets, extractors and heads.
        out: folder for `plan.json`, `stores/`, `fits/`, `predictions/`, `transfer.json`, `transfer.csv` (one row per
            cell), `runs.csv` (one row per seed and draw), `report.html`, `figures/`.
        on_progress: called with the number of finished stores and fits, and their total.

    Raises:
        PainseqError: a plan that is not possible; a folder that holds another plan.
        LeakError: an extractor, or a source, was fitted on test subjects of a target.

    Example:
        >>> result = transfer(read_plan(Path("configs/demo/transfer.yaml")), Path("runs/transfer"))
        >>> {cell.cell.name: cell.value for cell in result.cells}
    """
    out = Path(out)
    study = _Study(plan, out)
    study.check()
    with locked_folder(out):
        study.begin()
        study.extract(on_progress)
        study.fit(on_progress)
        cells = study.cells()
        generated = tuple(name for name, data in study.data.items() if is_generated(data.root))
        page = write_results(out, plan, cells, study.predictions, study.told(), generated)
    return TransferResult(tuple(cells), page, generated)


def transfer_work(plan: TransferPlan, out: str | Path) -> TransferWork:
    """Check a plan as `transfer` does, and count its total and finished work; writes nothing.

    Raises:
        PainseqError, LeakError: see `transfer`.
    """
    out = Path(out)
    study = _Study(plan, out)
    study.check()

    def counted(fits: list[TransferFit]) -> tuple[int, int]:
        return len(fits), sum(study.is_done(fit) for fit in fits)

    return TransferWork(
        stores=(len(study.stores), sum((path / "run.json").is_file() for path in study.stores.values())),
        fits=counted([fit for fit in study.fits if fit.k is None]),
        continued_fits=counted([fit for fit in study.fits if fit.k is not None]),
        cells=len(study.runs),
        data=study.data,
    )


class _Study:
    """The steps of `transfer`, in order; `begin` is the first to write files."""

    def __init__(self, plan: TransferPlan, out: Path) -> None:
        self.plan = plan
        self.out = out
        self.data: dict[str, PainDataModule] = {}
        self.extractors: dict[str, Extractor] = {}
        self.given: dict[str, FeatureStore | NpzFolder] = {}
        """Extractor of which only features are given -> its first store."""
        # Where no extractor reads videos, they need not be there, nor be named.
        alone = [plan.extractors[name] for name in plan.given] if len(plan.given) == len(plan.extractors) else []
        features = {name: path for extractor in alone for name, path in extractor.stores.items()}
        for name, data in plan.data.items():
            with _named(f"The data set {name}"):
                self.data[name] = self._stored(name, features[name]) if name in features else data.experiment.data()
        for name, extractor in plan.extractors.items():
            with _named(f"The extractor {name}"):
                if extractor.experiment is None:
                    self.given[name] = open_features(next(iter(extractor.stores.values())))
                else:
                    self.extractors[name] = extractor.experiment.extractor()
        # Features come from stores, so the extractor of a head's experiment is not used.
        self.heads = {
            name: experiment.changed({"model": {"extractor": None}}) for name, experiment in plan.heads.items()
        }
        self.head_settings: dict[str, Spec] = {}
        for name, experiment in self.heads.items():
            with _named(f"The head {name}"):
                _check_start(experiment)
                experiment.classifier()
                self.head_settings[name] = _settings(experiment)
        self.truths = {name: read_truth(data.truth) for name, data in plan.data.items() if data.truth is not None}
        training = {name: len(data.split.train) for name, data in self.data.items()}
        self.runs = {cell: plan.runs(cell, training) for cell in plan.cells(training)}
        self.fits: dict[TransferFit, list[str]] = {}
        """Each fit of the table -> the targets it is scored on."""
        for cell, runs in self.runs.items():
            for seed, draw in runs:
                targets = self.fits.setdefault(fit_of(cell, seed, draw), [])
                if cell.target not in targets:
                    targets.append(cell.target)
        self.stores: dict[tuple[str, str], Path] = {}
        """(extractor, data set) -> path of the store, for the pairs of the table."""
        for fit, targets in self.fits.items():
            for name in (fit.on, *targets):
                given = plan.extractors[fit.extractor].stores.get(name)
                self.stores[fit.extractor, name] = given or out / "stores" / f"{fit.extractor}_{name}"
        self.predictions: dict[tuple[TransferFit, str], Predictions] = {}
        self.same_videos: dict[str, set[str]] = {}
        """Target -> test clips whose video a fit has seen under another name."""

    def check(self) -> None:
        """Check that all data sets are read alike, and check for leaks between training and test subjects.

        Raises:
            PainseqError, LeakError: see `check_plan`; a store of another extractor or data set; k subjects for a head
                that cannot be fine-tuned.
        """
        for name, experiment in self.heads.items():
            if self.plan.k and experiment.fits_at_once:
                raise PainseqError(
                    f"The head {name} ({experiment.head_name}) is fitted at once, so that a source's model cannot be "
                    f"fine-tuned on k subjects of a target, but k is {list(self.plan.k)}. Set `k: []`, which leaves "
                    "this question out."
                )
            if experiment.tuning is not None:
                self._check_tunable(name)
        check_plan(self.plan, self.data, self.extractors, self.truths)
        for name, extractor in self.plan.extractors.items():
            for dataset, path in extractor.stores.items():
                with _named(f"The store {path} of {name} on {dataset}"):
                    self._check_store(name, dataset, path)

    def _check_tunable(self, head: str) -> None:
        """Check that the thresholds of a head can be tuned on training subjects whom no weights have seen."""
        if self.plan.k:
            raise PainseqError(
                f"The head {head} has a tuned threshold, which needs folds of training subjects, but k is "
                f"{list(self.plan.k)}: k subjects of a target are too few. Set `k: []`, which leaves this question "
                "out, or leave the threshold out."
            )
        for fit in self.fits:
            data, extractor = self.data[fit.on], self.extractors.get(fit.extractor) or self.given[fit.extractor]
            seen = shared_people(qualified(data.name, data.split.train), extractor.trained_on)
            if fit.head == head and seen:
                raise PainseqError(
                    f"The head {head} has a tuned threshold, which is chosen on training subjects of {fit.on}, but the "
                    f"extractor {fit.extractor} was trained on {len(seen)} of them, such as {seen[0]}, so that it "
                    "knows them better than new people. Leave the threshold out, or the extractor."
                )

    def _check_store(self, name: str, dataset: str, path: Path) -> None:
        """Check that a store of the plan was made by this extractor from this data set."""
        data = self._stored(dataset, path)
        store, extractor = data.store, self.extractors.get(name)
        assert store is not None
        if extractor is not None:
            if not isinstance(store, FeatureStore):
                raise PainseqError("It does not record its extractor. Give a store of `painseq extract`.")
            store.check_same({**store.spec, "extractor": {**extractor.spec(), "fingerprint": extractor.fingerprint()}})
        elif store.fingerprint != (first := self.given[name]).fingerprint:
            raise PainseqError(f"Its features have another shape, or another origin, than those of {first.path}.")
        else:
            for target in self.plan.targets:
                tested = qualified(self.data[target].name, self.data[target].split.test)
                check_no_leak(store.trained_on, tested, f"The features of {name}, to be scored on {target},")
        for part in data.split.parts():
            split_readable(data.clips(part), store)

    def _stored(self, name: str, store: Path) -> PainDataModule:
        """Return a data set with features from a store."""
        return (
            self.plan.data[name].experiment.changed({"data": {"init_args": {"options": {"store": str(store)}}}}).data()
        )

    def begin(self) -> None:
        """Create the folder, or check that its content fits this plan.

        Raises:
            PainseqError: the folder holds fits of other data, extractors, heads or settings.
        """
        path, facts = self.out / "plan.json", self.facts()
        before = read_json(path)
        if before is None and files_of(self.out):
            raise PainseqError(f"{self.out} is not empty and holds no transfer. Choose another folder.")
        if before is not None:
            # Data sets, extractors, heads, seeds, k and draws may be added in the same folder.
            check_same_run(self.out, _common(before, facts), _common(facts, before))
        write_json(path, facts)

    def facts(self) -> Spec:
        """Return the settings of the fits as plain values, which are stored, and compared on resuming."""
        first = next(iter(self.data.values()))
        return {
            "fps": self.plan.fps,
            "class_names": list(first.scheme.class_names),
            "crops": dict(settings_of(first, bool(self.extractors)).crops),
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
                    "trained_on": extractor.trained_on,
                    "fingerprint": self.given[name].fingerprint
                    if name in self.given
                    else self.extractors[name].fingerprint(),
                    "people": len((self.extractors.get(name) or self.given[name]).trained_on),
                }
                for name, extractor in self.plan.extractors.items()
            },
            "heads": self.head_settings,
            **({} if first.options.normalise == "none" else {"normalise": first.options.normalise}),
        }

    def told(self) -> Spec:
        """Return `facts`, and what the table says besides, which decides no fit."""
        facts = self.facts()
        extractors = facts["extractors"]
        assert isinstance(extractors, dict)
        for name, of_extractor in extractors.items():
            of_extractor["people_known"] = (self.extractors.get(name) or self.given[name]).people_known
            of_extractor["given"] = name in self.given
        return {**facts, "same_videos": {name: sorted(clips) for name, clips in self.same_videos.items()}}

    def extract(self, on_progress: OnProgress) -> None:
        """Extract the stores that are not given."""
        total = len(self.stores) + len(self.fits)
        with _warnings_once(set(), quiet=False):
            for done, ((extractor, name), path) in enumerate(self.stores.items()):
                # run.json is the last file of a finished store; opening the store checks its content.
                if name in self.plan.extractors[extractor].stores or (path / "run.json").is_file():
                    continue
                show = _clips_shown(on_progress, done, total, f"{extractor} on {name}")
                extract_data_set(self.data[name], self.extractors[extractor], path, self.plan.extract, on_progress=show)

    def fit(self, on_progress: OnProgress) -> None:
        """Run the unfinished fits, and predict the test clips of each target."""
        done, total = len(self.stores), len(self.stores) + len(self.fits)
        # Continued fits come after their start; fits of one extractor share features in memory.
        ordered = sorted(self.fits, key=lambda fit: (fit.extractor, fit.k is not None))
        warned: set[str] = set()
        for extractor, fits in groupby(ordered, key=lambda fit: fit.extractor):
            loaded: dict[str, PainDataModule] = {}
            for fit in fits:
                with _warnings_once(warned, quiet=True):
                    for name in (fit.on, *self.fits[fit]):
                        if name not in loaded:
                            loaded[name] = self._stored(name, self.stores[extractor, name])
                    if not self.is_done(fit):
                        self._fit(fit, loaded)
                    seen = read_json(self._fit_file(fit)) or {}
                    for target in self.fits[fit]:
                        self.predictions[fit, target] = self._read(fit, target)
                        same = seen.get("same_videos", {}).get(target, ())
                        self.same_videos.setdefault(target, set()).update(same)
                done += 1
                on_progress(done, total, f"fitted {fit.folder}")

    def _fit(self, fit: TransferFit, loaded: Mapping[str, PainDataModule]) -> None:
        data, out = loaded[fit.on], self.out / "fits" / fit.folder
        start = [] if fit.start is None else [str(self.out / "fits" / fit.start.folder / "best.ckpt")]
        experiment = self.heads[fit.head].changed({"model": {"start_from": start}})
        options = dataclasses.replace(experiment.fit_options(), seed=fit.seed)
        epochs = None if fit.k is None else self.plan.epochs
        split = data.split if fit.k is None else self._drawn(fit, data)
        model = fit_fold(experiment.classifier, data.with_split(split), out, options, epochs)
        seen = {key: list(getattr(model.record, key)) for key in ("fitted_on", "extractor_trained_on", "started_from")}
        same = {target: list(same_videos(model, loaded[target], "test")) for target in self.fits[fit]}
        self._fit_file(fit).parent.mkdir(parents=True, exist_ok=True)
        # Written before the predictions, whose presence marks the fit as finished.
        write_json(self._fit_file(fit), {**seen, "same_videos": same})
        for target in self.fits[fit]:
            predict_part(model, loaded[target], "test").write_csv(self._predictions_file(fit, target))
        if fit.k is not None:
            # There may be hundreds, each with the whole extractor, and no fit continues from them.
            for checkpoint in out.glob("*.ckpt"):
                checkpoint.unlink()

    def _drawn(self, fit: TransferFit, data: PainDataModule) -> Split:
        """Return the split of k drawn training subjects; validation subjects only for early stopping."""
        counts = {
            subject: data.scheme.counts(tuple(clip for clip in data.clips("train") if clip.subject_id == subject))
            for subject in data.split.train
        }
        train = tuple(sorted(drawn_order(counts, fit.seed, fit.draw)[: fit.k]))
        validation = data.split.validation if self.plan.epochs is None else ()
        protocol = f"{data.split.protocol}, {fit.k} training subjects, draw {fit.draw}"
        return Split(protocol, train, validation, data.split.test)

    def _predictions_file(self, fit: TransferFit, target: str) -> Path:
        return self.out / "predictions" / fit.folder / f"{target}.csv"

    def _fit_file(self, fit: TransferFit) -> Path:
        return self._predictions_file(fit, "fit").with_suffix(".json")

    def is_done(self, fit: TransferFit) -> bool:
        """Whether the predictions for all targets of a fit are written."""
        return all(self._predictions_file(fit, target).is_file() for target in self.fits[fit])

    def _read(self, fit: TransferFit, target: str) -> Predictions:
        """Read the predictions of a target's test clips, with their truth."""
        predictions = read_predictions(self._predictions_file(fit, target))
        if target not in self.truths:
            return predictions
        kept, truth = in_classes(predictions, self.truths[target], self.data[target].scheme)
        return kept.with_truth(truth)

    def cells(self) -> list[CellResult]:
        """Score all cells."""
        results = []
        for cell, runs in self.runs.items():
            own = self.plan.within_cell(cell)
            scored = {run: self.predictions[fit_of(cell, *run), cell.target] for run in runs}
            if all(fit_of(cell, *run) == fit_of(own, *run) for run in runs):
                results.append(cell_result(cell, scored, None, "this is it"))
                continue
            within = {run: self.predictions[fit_of(own, *run), cell.target] for run in self.runs[own]}
            results.append(cell_result(cell, scored, within, self.plan.within_is(cell.target)))
        return results


def _settings(experiment: Experiment) -> Spec:
    """Return a head's model and fit options, without the seed, as plain values."""
    fit = dataclasses.asdict(dataclasses.replace(experiment.fit_options(), seed=0))
    return {"model": _without_none(experiment.config["model"]), "fit": fit}


def _check_start(experiment: Experiment) -> None:
    """Refuse weights that the head would start from: the table decides where each fit starts."""
    start = experiment.config["model"]["start_from"]
    if start:
        raise PainseqError(
            f"start_from is {start}, but the fits of a transfer table start from random weights, or from the model of "
            "a source. Leave start_from out."
        )


def _without_none(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value


def _common(facts: Mapping[str, object], others: Mapping[str, object]) -> Spec:
    """Return the settings without names that are missing in the others."""
    both = {kind: (value, others.get(kind)) for kind, value in facts.items()}
    return {
        kind: {name: ours[name] for name in ours if name in theirs}
        if isinstance(ours, dict) and isinstance(theirs, dict)
        else ours
        for kind, (ours, theirs) in both.items()
    }


def _clips_shown(on_progress: OnProgress, done: int, total: int, store: str) -> Callable[[ExtractProgress], None]:
    """Return a function that shows the clips of a store in the note of the overall progress."""

    def show(progress: ExtractProgress) -> None:
        clips = f"{progress.done} of {progress.total} clips"
        on_progress(done, total, f"{store}: {clips}, {progress.frames_per_s:.0f} frames per second")

    return show


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Prefix errors with the part of the plan that they are about."""
    try:
        yield
    except PainseqError as error:
        raise PainseqError(f"{name}: {error}") from error


@contextmanager
def _warnings_once(seen: set[str], quiet: bool) -> Iterator[None]:
    """Log each of painseq's warnings once, since many stores and fits have the same; if quiet, log nothing else.

    Args:
        seen: logged warnings, which is updated.
        quiet: whether to suppress messages below warnings.
    """

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
