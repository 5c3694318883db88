"""Reproduction of a paper's recipe on your copy of the data: features, fits, and scores next to published ones."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from painseq.data.datamodule import PainDataModule
from painseq.data.splits import every_fold
from painseq.errors import PainseqError
from painseq.evaluation import Evaluation, read_predictions, score
from painseq.evaluation.leaky import LEAKY, mark
from painseq.evaluation.predictions import PREDICTIONS_FILE, joined
from painseq.evaluation.published import Published, published_rows
from painseq.extractors import Extractor, Pixels
from painseq.features import ExtractOptions, ExtractProgress
from painseq.files import write_json
from painseq.model.checkpoint import load
from painseq.records import Part
from painseq.runs import (
    OnProgress,
    check_same_run,
    locked_folder,
    make_run_folder,
    no_progress,
    pick_device,
    read_json,
    this_process,
    versions,
)
from painseq.spec import difference
from painseq.studies.audit_folds import leaky_holdout
from painseq.studies.evaluate import EvaluateOptions, evaluate
from painseq.studies.evaluate_predictions import PredictionsOptions, evaluate_predictions
from painseq.studies.experiment import Experiment, read_experiment
from painseq.studies.extract import extract_data_set
from painseq.studies.predict_part import predict_unchecked
from painseq.studies.recipe import Recipe, read_recipe
from painseq.studies.resumed_fit import fit_unless_done
from painseq.training.fitting import BEST, fit_fold
from painseq.video.generated import is_generated

log = logging.getLogger("painseq")

LEAKY_RESULT = (
    f"{LEAKY}: this recipe splits single clips at random, as the paper did, so that the scored subjects were trained "
    "on. Its scores say nothing about new people; do not cite them."
)
FIRST_PHASE: dict[str, dict[str, Mapping[str, Any]]] = {
    "elghaish2025": {
        name: {
            "data": {"init_args": {"options": {"streams": [name]}}},
            "model": {"head": {"init_args": {"only": name}}},
        }
        for name in ("cnn", "landmarks")
    }
}
"""Recipe -> folder -> changes of a fit in the first phase; the last fit starts from their best checkpoints."""


@dataclass(frozen=True)
class Reproduction:
    """The result of a recipe.

    Args:
        recipe: the recipe with its notes: what the paper states, what was chosen, what deviates.
        evaluations: part -> scores, pooled over folds.
        published: part -> published scores.
        published_as: name of the data set in the published scores.
        generated: whether the data are generated, so that the scores are not comparable.
        changes: settings that differ from the recipe, one line each.
    """

    recipe: Recipe
    evaluations: Mapping[Part, Evaluation]
    published: Mapping[Part, Sequence[Published]]
    published_as: str
    generated: bool
    changes: tuple[str, ...]

    def title(self, part: Part) -> str:
        """Return the name of a scored part, marked LEAKY for a recipe that splits single clips."""
        return f"{part}_{LEAKY}" if self.recipe.leaky else part


def reproduce(
    recipe: str | Path,
    root: str | Path,
    out: str | Path,
    changes: Sequence[str | Path | Mapping[str, Any]] = (),
    truth: Mapping[str, str] | None = None,
    on_progress: OnProgress = no_progress,
) -> Reproduction:
    """Run a recipe. Repeat an interrupted call to resume.

    The official validation part is scored if the recipe stops early on subjects of the training part, otherwise the
    test part of its split; with folds, the pooled predictions of all folds. A recipe with `reproduce: {split:
    clip_holdout_LEAKY}` splits single clips at random, and all its results are marked LEAKY.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file.
        root: folder of the data set.
        out: folder for `store/`, a folder for each fit and each scored part (with folds, in `fold0/`, `fold1/`, ...),
            `predictions_<part>.csv`, `reproduction.json` (scores, published scores, notes). The names of leaky
            results end in LEAKY.
        changes: YAML files or mappings that override the recipe; see `read_experiment`.
        truth: clip id -> label of an official test part, which is then scored too.
        on_progress: called with (clips done, total of clips, what they are for).

    Raises:
        PainseqError: no such recipe; `out` holds another reproduction; no clip in `root`; missing weights; a setting
            that `fit` does not accept; hidden labels without `truth`.

    Example:
        >>> from painseq.studies.reproduce import reproduce
        >>> result = reproduce("prajod2024_lstm", Path("data/AI4Pain"), Path("runs/prajod2024_lstm"))
        >>> result.evaluations["validation"].scores.balanced_accuracy
    """
    root, out = Path(root), Path(out)
    parsed_recipe = read_recipe(recipe)
    at_root = {"data": {"init_args": {"root": str(root)}}}
    unchanged = read_experiment(parsed_recipe.path, at_root)
    experiment = read_experiment(unchanged.config, *changes, at_root)
    data = experiment.data()
    log.info("%s: %d clips of %d subjects.", data.name, len(data.manifest), len(data.manifest.subjects))
    different = tuple(difference(experiment.config, unchanged.config))
    # Mistakes are reported here, before the folder is created for these settings.
    experiment.classifier()
    experiment.fit_options()
    with locked_folder(out):
        _claim(out, parsed_recipe, root, different)
        job = Job(parsed_recipe, experiment, out, on_progress)
        parts = job.run_leaky(data) if parsed_recipe.leaky else job.run(data, truth)
        result = Reproduction(
            recipe=parsed_recipe,
            evaluations={part: job.scored(part) for part in parts},
            published={part: published_beside(data.facts.published_as, part) for part in parts},
            published_as=data.facts.published_as,
            generated=is_generated(root),
            changes=different,
        )
        _write(out, result, root)
    return result


def published_beside(published_as: str, part: Part) -> list[Published]:
    """Return the published scores of a data set and part; rows without a part used other splits."""
    return [row for row in published_rows(published_as) if row.part in (part, "")]


def _claim(out: Path, recipe: Recipe, root: Path, changes: Sequence[str]) -> None:
    """Create the folder, or check that it holds the same reproduction."""
    settings = {
        "recipe": recipe.name,
        "sha256": hashlib.sha256(recipe.path.read_bytes()).hexdigest(),
        "root": str(root.resolve()),
        "options": list(changes),
    }
    previous = read_json(out / "recipe.json")
    if previous is None:
        write_json(make_run_folder(out) / "recipe.json", settings)
    else:
        check_same_run(out, previous, settings)


def _write(out: Path, result: Reproduction, root: Path) -> None:
    write_json(
        out / "reproduction.json",
        {
            "recipe": result.recipe.name,
            "title": result.recipe.title,
            "root": str(root),
            "generated": result.generated,
            "options": list(result.changes),
            "parts": {result.title(part): evaluation.to_dict() for part, evaluation in result.evaluations.items()},
            "published": {part: [_plain(row) for row in rows] for part, rows in result.published.items()},
            "notes": [vars(note) for note in result.recipe.notes],
            "versions": versions(),
        },
    )


def _plain(row: Published) -> dict[str, object]:
    return {
        **vars(row),
        "clips": dict(row.clips),
        "majority_accuracy": row.majority_accuracy,
        "constant_balanced_accuracy": row.constant_balanced_accuracy,
        "against_majority": row.against_majority,
    }


@dataclass(frozen=True)
class Job:
    """The steps of a reproduction, in order; finished steps are skipped."""

    recipe: Recipe
    experiment: Experiment
    out: Path
    on_progress: OnProgress

    @property
    def store(self) -> Path:
        """The feature store, or the store of crops."""
        return self.out / "store"

    def run(self, data: PainDataModule, truth: Mapping[str, str] | None) -> list[Part]:
        """Extract, fit and evaluate; returns the scored parts."""
        self._extract(data)
        stored = self.experiment.changed(_of_options({"store": str(self.store)}))
        split = data.options.split
        if split.protocol in ("subject_kfold", "loso"):
            folds = len(every_fold(data.manifest, split, data.scheme))
            for fold in range(folds):
                log.info("Fold %d of %d.", fold + 1, folds)
                folder = self.out / f"fold{fold}"
                of_fold = stored.changed(_of_options({"split": {"fold": fold}}))
                checkpoint = self._fit(of_fold, folder)
                self._evaluate(of_fold, folder / "test", checkpoint, "test")
            return ["test"]
        checkpoint, parts = self._fit(stored, self.out), list[Part]()
        if split.protocol == "official_inner":
            official = stored.changed(_of_options({"split": {"protocol": "official"}}))
            self._evaluate(official, self.out / "validation", checkpoint, "validation")
            parts.append("validation")
        if truth is not None or not parts:
            self._evaluate(stored, self.out / "test", checkpoint, "test", truth)
            parts.append("test")
        return parts

    def run_leaky(self, data: PainDataModule) -> list[Part]:
        """Extract, fit and score on a random split of clips; all results are marked LEAKY. Returns the scored parts."""
        log.warning(LEAKY_RESULT)
        self._extract(data)
        stored = self.experiment.changed(_of_options({"store": str(self.store)}))
        folder = self.out / f"test_{LEAKY}"
        if (folder / "metrics.json").is_file():
            log.info("%s is finished already.", folder)
            return ["test"]
        whole = stored.data()
        split = whole.with_split(leaky_holdout(whole))
        model = fit_fold(stored.classifier, split, self.out / f"fit_{LEAKY}", stored.fit_options())
        predictions = self.out / f"predictions_test_{LEAKY}.csv"
        predict_unchecked(model, split, "test").write_csv(predictions)
        mark(predictions)
        shutil.rmtree(folder, ignore_errors=True)
        name = self.recipe.name + (", generated faces" if is_generated(data.root) else "")
        evaluate_predictions(predictions, folder, PredictionsOptions(dataset=data.name), name)
        return ["test"]

    def scored(self, part: Part) -> Evaluation:
        """Score the pooled predictions of a part.

        Raises:
            PainseqError: the labels are hidden.
        """
        if self.recipe.leaky:
            return score(read_predictions(self.out / f"predictions_{part}_{LEAKY}.csv"))
        folds = sorted(self.out.glob("fold*"), key=lambda folder: int(folder.name.removeprefix("fold")))
        predictions = joined([read_predictions(folder / part / PREDICTIONS_FILE) for folder in folds or [self.out]])
        if not predictions.scored.any():
            raise PainseqError(
                f"The labels of {part} are hidden, so there are no scores. The predictions are in {self.out / part}. "
                "Give truth (command line: --truth FILE), or submit the predictions (painseq submit)."
            )
        predictions.write_csv(self.out / f"predictions_{part}.csv")
        return score(predictions)

    def _extract(self, data: PainDataModule) -> None:
        extractor: Extractor
        if data.options.view == "pixels" and data.options.face is not None:
            # The network is trained later, on crops.
            extractor = Pixels(data.options.face.size_px)
        else:
            extractor = self.experiment.extractor()
        process = this_process()
        options = ExtractOptions(device=pick_device("auto", process), process=process)

        def show(now: ExtractProgress) -> None:
            self.on_progress(now.done, now.total, "clips to extract")

        extract_data_set(data, extractor, self.store, options, on_progress=show)

    def _fit(self, experiment: Experiment, folder: Path) -> Path:
        """Run the fits, of the first phase too if the recipe has one, and return the best checkpoint of the last."""
        first = FIRST_PHASE.get(self.recipe.name, {})
        sources = [str(self._fit_once(experiment.changed(changes), folder / name)) for name, changes in first.items()]
        started = experiment.changed({"model": {"start_from": sources}}) if sources else experiment
        return self._fit_once(started, folder / "fit")

    def _fit_once(self, experiment: Experiment, run: Path) -> Path:
        fit_unless_done(experiment, run)
        return run / BEST

    def _evaluate(
        self,
        experiment: Experiment,
        folder: Path,
        checkpoint: Path,
        part: Part,
        truth: Mapping[str, str] | None = None,
    ) -> None:
        metrics = read_json(folder / "metrics.json")
        # Predictions with hidden labels are scored once the truth is given.
        if metrics is not None and (metrics["models"] or truth is None):
            log.info("%s is finished already.", folder)
            return
        shutil.rmtree(folder, ignore_errors=True)
        log.info("Scoring %s on the %s part.", checkpoint, part)
        model = load(checkpoint, device=pick_device("auto"))
        options = EvaluateOptions(part=part, truth=truth, checkpoints=(checkpoint,))

        def show(done: int, total: int, note: str = "") -> None:
            self.on_progress(done, total, f"clips of {note}")

        evaluate(model, experiment.data(), folder, options, experiment, show)


def _of_options(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"data": {"init_args": {"options": changes}}}
