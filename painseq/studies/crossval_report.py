"""What a cross-validation writes: predictions of all folds together, scores, spread, a page."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from painseq.data.splits import Split
from painseq.errors import PainseqError
from painseq.evaluation import Evaluation, Predictions, read_predictions, score
from painseq.evaluation.metrics import confusion_matrix, scores_of
from painseq.evaluation.people import people_of
from painseq.evaluation.score import number
from painseq.evaluation.value_predictions import ValuePredictions, read_value_predictions
from painseq.evaluation.value_scores import ValueEvaluation, score_values
from painseq.files import write_json
from painseq.report import Block, Report, write_figures, write_report
from painseq.report.values import value_blocks
from painseq.runs import versions
from painseq.video.generated import is_generated

if TYPE_CHECKING:
    from painseq.data.datamodule import PainDataModule

SPREAD = (
    "How far the folds lie apart, each scored by itself. It is no standard error: any two folds share most of their "
    "training subjects, so their scores are not independent. The interval of the pooled score is over subjects."
)
AnyPredictions = TypeVar("AnyPredictions", Predictions, ValuePredictions)
Spread = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Fold:
    """A fold that is scored at the end.

    Args:
        repeat: from 0.
        number: from 0, within the repeat.
        split: its training, validation and test subjects.
        out: its folder.
    """

    repeat: int
    number: int
    split: Split
    out: Path


@dataclass(frozen=True)
class FoldResult:
    """What came of a fold.

    Args:
        fold: which.
        candidate: the name of what was fitted.
        left_out: why nothing was; None if it was.
    """

    fold: Fold
    candidate: str | None
    left_out: str | None


@dataclass(frozen=True)
class CrossValidationResult:
    """What came of a cross-validation.

    Args:
        out: its folder.
        evaluations: the scores of all folds together, by title; a title for each repeat. Empty for values on a scale.
        value_evaluations: the same for values on a scale.
        predictions: what was scored, by title.
        folds: of each fold its test subjects, and its model, epochs and scores, or why it was left out.
        spread: of each score over the folds: mean, std, min, max, folds.
        warnings: what to know before believing the scores.
    """

    out: Path
    evaluations: Mapping[str, Evaluation]
    value_evaluations: Mapping[str, ValueEvaluation]
    predictions: Mapping[str, Predictions | ValuePredictions]
    folds: Sequence[Mapping[str, object]]
    spread: Spread
    warnings: Sequence[str]


def pooled(parts: Sequence[AnyPredictions]) -> AnyPredictions:
    """Predictions of different clips as one table, in the order of the parts."""
    joined: dict[str, object] = {}
    for column in fields(parts[0]):
        values = [getattr(part, column.name) for part in parts]
        if any(value is None for value in values):
            # Votes: where each fold chooses its head, not all may have any.
            joined[column.name] = None
        elif isinstance(values[0], np.ndarray):
            joined[column.name] = np.concatenate(values)
        elif column.name in ("clip_ids", "subject_ids"):
            joined[column.name] = tuple(name for value in values for name in value)
    return replace(parts[0], **joined)  # type: ignore[arg-type]


def fold_scores(predictions: Predictions | ValuePredictions) -> dict[str, float | None]:
    """The scores of one fold, without intervals: a fold may be a single subject."""
    if isinstance(predictions, Predictions):
        confusion = confusion_matrix(predictions.truth, predictions.label, len(predictions.class_names))
        scores = scores_of(confusion, predictions.class_names)
        return {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy, "macro_f1": scores.macro_f1}
    scored = predictions.only(predictions.scored)
    if not len(scored):
        return {"mse": None, "mae": None}
    error = scored.value - scored.truth
    return {"mse": float((error**2).mean()), "mae": float(np.abs(error).mean())}


def spread_of(scores: Sequence[Mapping[str, float | None]]) -> Spread:
    """Of each score: mean, standard deviation (of a sample; None of a single one), smallest, largest, of how many."""
    spread: Spread = {}
    for name in scores[0]:
        known = [value for each in scores if (value := each[name]) is not None]
        if known:
            spread[name] = {
                "mean": statistics.fmean(known),
                "std": statistics.stdev(known) if len(known) > 1 else None,
                "min": min(known),
                "max": max(known),
                "folds": len(known),
            }
    return spread


def write_results(
    out: Path,
    name: str,
    results: Sequence[FoldResult],
    data: PainDataModule,
    warnings: Sequence[str],
    settings: Mapping[str, object],
) -> CrossValidationResult:
    """Write the predictions of all folds together, metrics.json, report.html and its figures.

    Args:
        name: of the model in tables.
        warnings: of the fits; the same line may come from many.
        settings: what decided the run.

    Raises:
        PainseqError: no fold could be fitted.
    """
    fitted = [result for result in results if result.left_out is None]
    if not fitted:
        raise PainseqError(f"No fold could be fitted: {results[0].left_out}. {len(results)} folds.")
    predictions = {result: _read(result.fold.out / "predictions.csv", data) for result in fitted}
    tables = _write_pooled(out, name, results, predictions)
    people = people_of(data.manifest)
    counted = dict(Counter(warnings))
    lines = [f"In {count} fits: {line}" for line, count in counted.items()]
    left_out = len(results) - len(fitted)
    if left_out:
        lines.append(f"{left_out} folds could not be fitted; their subjects are in no score.")
    crossval = CrossValidationResult(
        out,
        {title: score(table, people) for title, table in tables.items() if isinstance(table, Predictions)},
        {title: score_values(table) for title, table in tables.items() if isinstance(table, ValuePredictions)},
        tables,
        [_row(result, predictions.get(result)) for result in results],
        spread_of([fold_scores(part) for part in predictions.values()]),
        lines,
    )
    report = _report(crossval, name, data, settings)
    write_report(out / "report.html", report)
    write_figures(out / "figures", report)
    scored: dict[str, Evaluation | ValueEvaluation] = {**crossval.evaluations, **crossval.value_evaluations}
    # The last file: where it lies, the run is whole.
    write_json(
        out / "metrics.json",
        {
            "models": {title: evaluation.to_dict() for title, evaluation in scored.items()},
            "folds": crossval.folds,
            "folds_left_out": left_out,
            "spread": {**crossval.spread, "remark": SPREAD},
            "warnings": counted,
            "data": {"name": data.name, "labels": data.options.labels, "fingerprint": data.manifest.fingerprint()},
            "how": dict(settings),
            "versions": versions(),
        },
    )
    return crossval


def _write_pooled(
    out: Path,
    name: str,
    results: Sequence[FoldResult],
    predictions: Mapping[FoldResult, Predictions | ValuePredictions],
) -> dict[str, Predictions | ValuePredictions]:
    """Write the predictions of each repeat as one table; title -> table."""
    repeats = sorted({result.fold.repeat for result in results})
    tables = {}
    for repeat in repeats:
        parts = [part for result, part in predictions.items() if result.fold.repeat == repeat]
        if parts:
            title = name if len(repeats) == 1 else f"{name}, repeat {repeat}"
            tables[title] = _pool(parts)
            file = "predictions.csv" if len(repeats) == 1 else f"repeat-{repeat}/predictions.csv"
            tables[title].write_csv(out / file)
    return tables


def _report(crossval: CrossValidationResult, name: str, data: PainDataModule, settings: Mapping[str, object]) -> Report:
    generated = is_generated(data.root)
    classes = {title: table for title, table in crossval.predictions.items() if isinstance(table, Predictions)}
    values = {title: table for title, table in crossval.predictions.items() if isinstance(table, ValuePredictions)}
    folds = _block(crossval.folds, crossval.spread)
    return Report(
        title="Cross-validation",
        subtitle=f"{name} on {data.name}, {settings['protocol']}"
        + (", generated faces: no people" if generated else ""),
        dataset="generated faces" if generated else data.name,
        notes=("Each clip was scored by the fold in whose test part its subject is.",),
        warnings=crossval.warnings,
        evaluations=crossval.evaluations,
        predictions=classes,
        facts={**{key.replace("_", " "): str(value) for key, value in settings.items() if value}, **versions()},
        blocks=[*(value_blocks(crossval.value_evaluations, values) if values else ()), folds],
    )


def _read(path: Path, data: PainDataModule) -> Predictions | ValuePredictions:
    if data.scheme.predicts_values:
        return read_value_predictions(path)
    return read_predictions(path, data.scheme.class_names)


def _pool(parts: Sequence[Predictions | ValuePredictions]) -> Predictions | ValuePredictions:
    classes = [part for part in parts if isinstance(part, Predictions)]
    return pooled(classes) if classes else pooled([part for part in parts if isinstance(part, ValuePredictions)])


def _row(result: FoldResult, predictions: Predictions | ValuePredictions | None) -> dict[str, object]:
    fold = result.fold
    row: dict[str, object] = {"repeat": fold.repeat, "fold": fold.number, "test": list(fold.split.test)}
    if predictions is None:
        return {**row, "left_out": result.left_out}
    run = json.loads((fold.out / "run.json").read_text(encoding="utf-8"))
    counts = {"clips": len(predictions), "scored": int(predictions.scored.sum())}
    return {**row, "model": result.candidate, "epochs": run["best_epoch"], **counts, **fold_scores(predictions)}


def spread_sentences(spread: Spread) -> list[str]:
    """A line a score."""
    return [
        f"{name.replace('_', ' ')} of a fold: {number(found['min'])} to {number(found['max'])}, mean "
        f"{number(found['mean'])}, standard deviation {number(found['std'])}, {found['folds']} folds"
        for name, found in spread.items()
    ]


def _block(rows: Sequence[Mapping[str, object]], spread: Spread) -> Block:
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ("repeat", "fold")))
    table = [[f"{row['repeat']} / {row['fold']}", *(_cell(row.get(name, "")) for name in columns)] for row in rows]
    heads = ["Repeat / fold", *(name.replace("_", " ") for name in columns)]
    return Block("Folds", "\n\n".join((SPREAD, *spread_sentences(spread))), heads, table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return number(value) if isinstance(value, float) or value is None else str(value)
