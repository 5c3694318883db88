"""`painseq reproduce`: a paper's recipe on your copy of the data, its scores beside the published ones."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from painseq.cli.recipe import Recipe, read_recipe, shipped_recipes
from painseq.errors import PainseqError
from painseq.evaluation.published import REMARKS, Published, published_rows
from painseq.files import write_json
from painseq.runs import check_same_run, make_run_folder, read_json, versions

if TYPE_CHECKING:
    from painseq.data.datamodule import PainDataModule
    from painseq.evaluation import Evaluation
    from painseq.records import Part

log = logging.getLogger("painseq")

FIRST_PHASE = {
    "elghaish2025": {
        name: (f"--data.options.streams=[{name}]", f"--model.head.init_args.only={name}")
        for name in ("cnn", "landmarks")
    }
}
"""Recipe -> fits that come first, whose best checkpoints the last fit starts from: folder -> options."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq reproduce",
        description="Run a recipe of configs/reproduce on your copy of the data: extract, fit, evaluate; then show its "
        "scores beside the published ones, and where it deviates. Run again, it goes on where it was.",
        epilog="Options after -- are given to extract, fit and evaluate alike, e.g. -- --trainer.max_epochs 2",
    )
    parser.add_argument("recipe", help=f"{', '.join(shipped_recipes())}, or the path of a YAML like these")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that the recipe makes")
    parser.add_argument(
        "--truth", type=Path, help="CSV of clip_id,label: score an official Test part with hidden labels"
    )
    arguments = list(argv)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    args = parser.parse_args(arguments[:split])
    reproduce(args.recipe, args.root, args.out, arguments[split + 1 :], args.truth)
    return 0


def reproduce(
    recipe: str, root: Path, out: Path, options: Sequence[str] = (), truth: Path | None = None
) -> dict[Part, Evaluation]:
    """Run a recipe, or go on with it; steps that are finished are not done again.

    The part that is scored is the official Validation where the recipe stops early on people taken out of Train, and
    else the test part of its split; of folds, the predictions of all of them together.

    Args:
        recipe: name or path.
        root: the data set's folder.
        out: `store/`, a folder for each fit and each part scored (of folds, below `fold0/`, `fold1/`, ...),
            `predictions_<part>.csv`, `reproduction.json` (scores, published rows, notes).
        options: for all commands alike.
        truth: labels of an official Test part, which is then scored too.

    Returns:
        The evaluation of each part scored.

    Raises:
        PainseqError: no such recipe; `out` holds another reproduction; see the commands.
    """
    from painseq.cli.evaluate import show

    chosen = read_recipe(recipe)
    console = Console()
    console.print(chosen.title, style="bold", markup=False)
    job = Job(chosen, root, out, tuple(options), console)
    data = job.data()
    # Last, so that a wrong folder or missing weights claim nothing for the options that are mended next.
    _claim(out, chosen, root, options)
    parts = job.run(data, truth)
    evaluations = {part: job.scored(part) for part in parts}
    for part, shown in parts.items():
        if not shown:
            show({f"{chosen.name}, {part}": evaluations[part]})
    generated = is_generated(root)
    rows = {part: beside(data.facts.published_as, part) for part in parts}
    write_json(
        out / "reproduction.json",
        {
            "recipe": chosen.name,
            "title": chosen.title,
            "root": str(root),
            "generated": generated,
            "options": list(options),
            "parts": {part: evaluation.to_dict() for part, evaluation in evaluations.items()},
            "published": {part: [_plain(row) for row in found] for part, found in rows.items()},
            "notes": [vars(note) for note in chosen.notes],
            "versions": versions(),
        },
    )
    for part, evaluation in evaluations.items():
        console.print(comparison_table(chosen, part, evaluation, rows[part], generated))
    remark = REMARKS.get(data.facts.published_as)
    for line in (remark, GENERATED if generated else None, COMPARABLE):
        if line:
            console.print(line, style="yellow", markup=False)
    print_notes(console, chosen, options)
    return evaluations


GENERATED = (
    "The faces are generated: these scores say that the recipe runs, and are not comparable with any published one."
)
COMPARABLE = "Two figures are comparable only where data set, part and protocol are the same."


def _claim(out: Path, recipe: Recipe, root: Path, options: Sequence[str]) -> None:
    """Make the folder, or check that it holds this very reproduction."""
    asked = {
        "recipe": recipe.name,
        "sha256": hashlib.sha256(recipe.path.read_bytes()).hexdigest(),
        "root": str(root.resolve()),
        "options": list(options),
    }
    marker = out / "recipe.json"
    if not marker.is_file():
        write_json(make_run_folder(out) / marker.name, asked)
        return
    check_same_run(out, read_json(marker) or {}, asked)


@dataclass(frozen=True)
class Job:
    """The commands of a reproduction, in their order; each is skipped if what it makes is there."""

    recipe: Recipe
    root: Path
    out: Path
    options: tuple[str, ...]
    console: Console

    @property
    def common(self) -> list[str]:
        """What every command is given."""
        return [f"--config={self.recipe.path}", *self.options, f"--data.root={self.root}"]

    def data(self) -> PainDataModule:
        """The data set as the recipe and the options say, its clips found.

        Raises:
            PainseqError: the recipe names none; none of its clips lies in `root`.
        """
        from painseq.cli.experiment import ExperimentCLI
        from painseq.data.datamodule import PainDataModule

        data = ExperimentCLI("evaluate", self.common).datamodule
        if not isinstance(data, PainDataModule):
            raise PainseqError(f"{self.recipe.path} names no data set.")
        log.info("%s: %d clips of %d subjects.", data.name, len(data.manifest), len(data.manifest.subjects))
        return data

    def run(self, data: PainDataModule, truth: Path | None) -> dict[Part, bool]:
        """Extract, fit and evaluate; returns the parts that were scored, and whether `evaluate` has shown how."""
        from painseq.data.splits import every_fold

        store = self._extract(data)
        split = data.options.split
        if split.protocol in ("subject_kfold", "loso"):
            folds = len(every_fold(data.manifest, split, data.scheme))
            for fold in range(folds):
                self.console.rule(f"[bold]Fold {fold + 1} of {folds}", align="left")
                fitted = f"--data.options.split.fold={fold}"
                checkpoint = self._fit(self.out / f"fold{fold}", store, fitted)
                self._evaluate(self.out / f"fold{fold}" / "test", store, checkpoint, "test", fitted)
            return {"test": False}
        checkpoint = self._fit(self.out, store)
        parts: dict[Part, bool] = {}
        if split.protocol == "official_inner":
            official = "--data.options.split.protocol=official"
            at = self.out / "validation"
            parts["validation"] = self._evaluate(at, store, checkpoint, "validation", official)
        if truth is not None or not parts:
            told = [] if truth is None else [f"--truth={truth}"]
            parts["test"] = self._evaluate(self.out / "test", store, checkpoint, "test", *told)
        return parts

    def scored(self, part: Part) -> Evaluation:
        """Score what was predicted of a part, of all folds together.

        Raises:
            PainseqError: the truth is hidden.
        """
        from painseq.evaluation import read_predictions, score
        from painseq.evaluation.predictions import joined

        folds = sorted(self.out.glob("fold*"), key=lambda folder: int(folder.name.removeprefix("fold")))
        predictions = joined([read_predictions(f / part / "predictions.csv") for f in folds or [self.out]])
        if not predictions.scored.any():
            raise PainseqError(
                f"The labels of {part} are hidden, so there is no score: predictions are in {self.out / part}. Give "
                "the labels with --truth FILE, or hand the predictions in (painseq submit)."
            )
        predictions.write_csv(self.out / f"predictions_{part}.csv")
        return score(predictions)

    def _extract(self, data: PainDataModule) -> Path:
        from painseq.cli.extract import main as extract

        store, face, crops = self.out / "store", data.options.face, []
        if data.options.view == "pixels" and face is not None:
            # The network is trained afterwards, on crops.
            crops = ["--model.extractor=Pixels", f"--model.extractor.input_size_px={face.size_px}"]
        extract(self._told("extract", [*self.common, *crops, f"--out={store}"]))
        return store

    def _fit(self, folder: Path, store: Path, *more: str) -> Path:
        first = FIRST_PHASE.get(self.recipe.name, {})
        checkpoints = [
            self._fit_once(folder / name, f"--data.options.store={store}", *options, *more)
            for name, options in first.items()
        ]
        start = [f"--model.start_from=[{','.join(map(str, checkpoints))}]"] if checkpoints else []
        return self._fit_once(folder / "fit", f"--data.options.store={store}", *start, *more)

    def _fit_once(self, run: Path, *more: str) -> Path:
        from painseq.cli.fit import fit
        from painseq.training.fitting import BEST, LAST

        if (run / "run.json").is_file():
            self.console.print(f"{run} is there already.", markup=False)
            return run / BEST
        if run.exists() and not (run / LAST).is_file():
            shutil.rmtree(run)  # Interrupted before its first epoch was over.
        resume = ["--resume=true"] if run.exists() else []
        fit(self._told("fit", [*self.common, *more, f"--out={run}", *resume]))
        return run / BEST

    def _evaluate(self, folder: Path, store: Path, checkpoint: Path, part: Part, *more: str) -> bool:
        """Score a part, unless that is done; whether it was done now, and so shown."""
        from painseq.cli.evaluate import main as evaluate

        metrics, with_truth = folder / "metrics.json", any(option.startswith("--truth=") for option in more)
        # What was predicted while the labels were hidden is scored once they are given.
        if metrics.is_file() and (json.loads(metrics.read_text(encoding="utf-8"))["models"] or not with_truth):
            self.console.print(f"{folder} is there already.", markup=False)
            return False
        shutil.rmtree(folder, ignore_errors=True)
        args = [f"--data.options.store={store}", f"--checkpoint={checkpoint}", f"--part={part}", f"--out={folder}"]
        evaluate(self._told("evaluate", [*self.common, *args, *more]))
        return True

    def _told(self, command: str, args: list[str]) -> list[str]:
        self.console.print(f"$ painseq {command} {shlex.join(args)}", style="dim", soft_wrap=True, markup=False)
        return args


def beside(published_as: str, part: Part) -> list[Published]:
    """Published rows of a data set and part; rows that name no part are of splits of their own."""
    return [row for row in published_rows(published_as) if row.part in (part, "")]


def is_generated(root: Path) -> bool:
    """Whether the data set is one of painseq's own."""
    from painseq.video.generated import is_generated as marked

    return marked(root)


def comparison_table(
    recipe: Recipe, part: Part, evaluation: Evaluation, rows: Sequence[Published], generated: bool
) -> Table:
    """This run first, then the published rows, each beside what always saying one class gives."""
    protocols = {
        protocol: chr(ord("a") + place) for place, protocol in enumerate(dict.fromkeys(r.protocol for r in rows))
    }
    table = Table(
        title=f"{recipe.name}: {part} part, beside what was published",
        caption=escape("\n".join(f"{letter}: {protocol}" for protocol, letter in protocols.items())),
        caption_justify="left",
    )
    table.add_column("", overflow="fold")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("one class", justify="right")
    table.add_column("", overflow="fold")
    majority = {baseline.name: baseline.scores for baseline in evaluation.baselines}["majority class"]
    people = evaluation.counts.subjects
    for name in ("accuracy", "balanced_accuracy"):
        interval = evaluation.intervals[name]
        span = "" if interval.low is None else f"\n{interval.low:.2f} to {interval.high:.2f}"
        table.add_row(
            "this run" + (", GENERATED FACES" if generated else ""),
            name.replace("_", " "),
            _printed(evaluation.scores.value(name), 2) + span,
            _printed(majority.value(name), 2),
            f"{evaluation.counts.scored} clips of {people} {'person' if people == 1 else 'people'}",
            style="bold",
        )
    table.add_section()
    for row in rows:
        table.add_row(
            escape(f"{row.name}, {row.modality} ({protocols[row.protocol]})"),
            row.metric,
            _printed(row.value),
            _printed(row.majority_accuracy if row.metric == "accuracy" else None, 2),
            "; ".join(text for text in (row.standing, row.against_majority.partition(" (")[0]) if text),
        )
    if not rows:
        table.add_row("painseq knows of nothing published of this data set and part", "", "", "", "")
    return table


def _printed(value: float | None, places: int | None = None) -> str:
    """Two decimals, or those that were published if these are more."""
    if value is None:
        return "–"
    return f"{value:.2f}" if places == 2 or round(value, 2) == value else f"{value:g}"


def print_notes(console: Console, recipe: Recipe, options: Sequence[str]) -> None:
    """What the paper states, what was chosen here, what deviates, and what this run was told otherwise."""
    for note in recipe.notes:
        console.print(f"\n{note.heading}", markup=False, highlight=False)
        for point in note.points:
            console.print(f"  - {point}", markup=False, highlight=False)
    if options:
        console.print(
            f"\nThis run was given options that are not the recipe's: {shlex.join(options)}",
            style="yellow",
            markup=False,
        )


def _plain(row: Published) -> dict[str, object]:
    return {
        **vars(row),
        "clips": dict(row.clips),
        "majority_accuracy": row.majority_accuracy,
        "constant_balanced_accuracy": row.constant_balanced_accuracy,
        "against_majority": row.against_majority,
    }
