"""The files of a cross-validation: pooled predictions, scores, spread over folds, report."""

from __future__ import annotations

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
from painseq.model.record import TRANSDUCTIVE
from painseq.report import Block, Report, write_figures, write_report
from painseq.report.values import value_blocks
from painseq.runs import read_json, versions
from painseq.video.generated import is_generated

if TYPE_CHECKING:
    from painseq.data.datamodule import PainDataModule

SPREAD = (
    "The spread of scores over folds, each scored by itself. It is not a standard error: any two folds share most "
    "of their "
    "training subjects, so their scores are not independent. The interval of the pooled score is over subjects."
)
AnyPredictions = TypeVar("AnyPredictions", Predictions, ValuePredictions)
Spread = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Fold:
    """A fold to score.

    Args:
        repeat: number of the repeat, from 0.
        number: number of the fold within the repeat, from 0.
        split: training, validation and test subjects.
        out: folder of the fold.
    """

    repeat: int
    number: int
    split: Split
    out: Path


@dataclass(frozen=True)
class FoldResult:
    """The result of a fold.

    Args:
        fold: the fold.
        candidate: name of the fitted candidate; None if none was fitted.
        left_out: why no model was fitted; None if one was.
    """

    fold: Fold
    candidate: str | None
    left_out: str | None


@dataclass(frozen=True)
class CrossValidationResult:
    """The result of a cross-validation.

    Args:
        out: run folder.
        evaluations: title -> pooled scores of all folds, with one title per repeat. Empty for values on a scale.
        value_evaluations: the same for values on a scale.
        predictions: title -> scored predictions.
        folds: for each fold its test subjects, and its model, epochs and scores, or why it was left out.
        spread: score -> mean, std, min, max over folds, and number of folds.
        warnings: warnings about the scores.
    """

    out: Path
    evaluations: Mapping[str, Evaluation]
    value_evaluations: Mapping[str, ValueEvaluation]
    predictions: Mapping[str, Predictions | ValuePredictions]
    folds: Sequence[Mapping[str, object]]
    spread: Spread
    warnings: Sequence[str]


def pooled(parts: Sequence[AnyPredictions]) -> AnyPredictions:
    """Join predictions of different clips into one table, in the given order."""
    joined: dict[str, object] = {}
    for column in fields(parts[0]):
        values = [getattr(part, column.name) for part in parts]
        if any(value is None for value in values):
            # Votes: if each fold selects its head, some may not vote.
            joined[column.name] = None
        elif isinstance(values[0], np.ndarray):
            joined[column.name] = np.concatenate(values)
        elif column.name in ("clip_ids", "subject_ids"):
            joined[column.name] = tuple(name for value in values for name in value)
    return replace(parts[0], **joined)  # type: ignore[arg-type]


def fold_scores(predictions: Predictions | ValuePredictions) -> dict[str, float | None]:
    """Return the scores of one fold, without intervals, since a fold may be a single subject."""
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
    """Return mean, sample standard deviation (None for one fold), minimum, maximum and number of folds per score."""
    spread: Spread = {}
    for name in scores[0]:
        known = [value for of_fold in scores if (value := of_fold[name]) is not None]
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
    """Write the pooled predictions, metrics.json, report.html and its figures.

    Args:
        name: name of the model in tables.
        warnings: warnings of the fits; many fits may have the same.
        settings: settings of the run.

    Raises:
        PainseqError: no fold could be fitted.
    """
    fitted = [result for result in results if result.left_out is None]
    if not fitted:
        raise PainseqError(f"None of {len(results)} folds could be fitted. The first: {results[0].left_out}.")
    predictions = {result: _read(result.fold.out / "predictions.csv", data) for result in fitted}
    tables = _write_pooled(out, name, results, predictions)
    people = people_of(data.manifest)
    counted = dict(Counter(warnings))
    lines = [f"In {count} fits: {line}" for line, count in counted.items()]
    if settings.get("transductive"):
        lines.insert(0, TRANSDUCTIVE)
    left_out = len(results) - len(fitted)
    if left_out:
        lines.append(f"{left_out} folds could not be fitted; their subjects are not scored.")
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
    # Written last: its presence marks the run as finished.
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
    """Write the predictions of each repeat as one table, and return title -> table."""
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
        notes=("Each clip was predicted by the model of the fold that has its subject in the test part.",),
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
    run = read_json(fold.out / "run.json") or {}
    counts = {"clips": len(predictions), "scored": int(predictions.scored.sum())}
    # Runs of earlier versions do not have the key.
    tuned = {"threshold": run["threshold"]["value"]} if run.get("threshold") else {}
    return {
        **row,
        "model": result.candidate,
        "epochs": run["best_epoch"],
        **tuned,
        **counts,
        **fold_scores(predictions),
    }


def spread_sentences(spread: Spread) -> list[str]:
    """Describe the spread, one line per score."""
    return [
        f"{name.replace('_', ' ')} of a fold: {number(values['min'])} to {number(values['max'])}, mean "
        f"{number(values['mean'])}, standard deviation {number(values['std'])}, {values['folds']} folds"
        for name, values in spread.items()
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
