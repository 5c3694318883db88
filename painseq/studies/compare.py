"""Comparison of models on the same clips, from their predictions files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from painseq.errors import PainseqError
from painseq.evaluation.comparison import ERRORS, STATISTIC_NAMES, AnyPredictions, Pair, SignificanceTest, compare
from painseq.evaluation.leaky import LEAKY, is_leaky, marked
from painseq.evaluation.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from painseq.evaluation.score import POINT_TITLES, point_cells
from painseq.evaluation.threshold import SideBySide, side_by_side
from painseq.evaluation.value_predictions import holds_values, read_value_predictions
from painseq.files import write_csv, write_json
from painseq.report import Block, Report, write_report
from painseq.runs import new_run_folder

log = logging.getLogger("painseq")

COLUMNS = ("pair", "first", "second", "difference", "95 % interval", "permutation p", "Wilcoxon p", "people", "clips")
RULE = (
    "Better means a permutation p of at most 0.05 after Holm's correction for all pairs, and an interval without 0. "
    "Both "
    "describe variation over subjects, not over training runs: for these, compare several seeds of each model."
)

POINT_COLUMNS = ("model", "threshold", *POINT_TITLES.values())
POINT_TEXT = (
    "Sensitivity is the recall of the second class, specificity that of the first. A tuned threshold was chosen on "
    "training subjects, and its labels are those that are compared."
)


@dataclass(frozen=True)
class CompareOptions:
    """Options of a comparison.

    Args:
        statistic: statistic to compare; None: balanced_accuracy, or mae for values on a scale.
        against: name of the model to compare all others with; None: all pairs.
        seed: seed of the random draws.
        allow_leaky: accept files marked LEAKY, and mark the results.
    """

    statistic: str | None = None
    against: str | None = None
    seed: int = 0
    allow_leaky: bool = False


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Args:
        pairs: pairs of models, each with its difference, interval and tests.
        files: name of a model -> its predictions file.
        seed: seed of the random draws.
        side_by_side: of two classes, each model's sensitivity and specificity on the clips of all; None otherwise.
    """

    pairs: tuple[Pair, ...]
    files: Mapping[str, Path]
    seed: int
    side_by_side: SideBySide | None = None

    @property
    def statistic(self) -> str:
        """The compared statistic."""
        return self.pairs[0].statistic


def compare_runs(
    runs: Mapping[str, str | Path], out: str | Path | None = None, options: CompareOptions | None = None
) -> Comparison:
    """Compare models on the clips that both models of a pair predicted, paired by subject. No model is loaded.

    Args:
        runs: name -> predictions.csv, or a folder that holds one; two or more.
        out: new folder for comparison.json (everything), comparison.csv (one row per pair) and report.html; None writes
            nothing.

    Raises:
        PainseqError: no such file, a leaky file that is not allowed, a folder that is not empty; see
            `read_predictions` and `painseq.evaluation.comparison.compare`.

    Example:
        >>> comparison = compare_runs({"LSTM": Path("runs/lstm_test"), "ANN": Path("runs/ann_test")})
        >>> print(comparison.pairs[0].sentence)
    """
    out = None if out is None else Path(out)
    options = options or CompareOptions()
    models, files = read_runs(runs, options.allow_leaky)
    against = options.against
    if against is not None and against not in models and marked(against) in models:
        against = marked(against)
    statistic = options.statistic or (
        "balanced_accuracy" if isinstance(next(iter(models.values())), Predictions) else next(iter(ERRORS))
    )
    pairs = tuple(compare(models, statistic, against, options.seed))
    of_classes = {name: each for name, each in models.items() if isinstance(each, Predictions)}
    comparison = Comparison(pairs, files, options.seed, side_by_side(of_classes) if of_classes else None)
    if out is not None:
        with new_run_folder(out):
            _write(out, comparison)
        log.info("Results written to %s: comparison.json, comparison.csv, report.html.", out)
    return comparison


def predictions_file(path: str | Path) -> Path:
    """Return the predictions file at a path, which may be a folder that holds one.

    Raises:
        PainseqError: no such file.
    """
    path = Path(path)
    file = path / PREDICTIONS_FILE if path.is_dir() else path
    if not file.is_file():
        inside = f" (`painseq evaluate` writes {PREDICTIONS_FILE} into its --out folder)" if path.is_dir() else ""
        raise PainseqError(f"No predictions at {file}{inside}.")
    return file


def read_runs(
    runs: Mapping[str, str | Path], allow_leaky: bool = False
) -> tuple[dict[str, AnyPredictions], dict[str, Path]]:
    """Read predictions by name, and return their files too; names of leaky files are marked.

    A file without prob_<class> columns has no class order, and gets that of the other files.

    Raises:
        PainseqError: no such file, a leaky file that is not allowed; see `is_leaky`, `read_predictions`.
    """
    models: dict[str, AnyPredictions] = {}
    files: dict[str, Path] = {}
    for name, path in runs.items():
        file = predictions_file(path)
        if is_leaky(file):
            if not allow_leaky:
                raise PainseqError(
                    f"{file} is marked {LEAKY}: it scores subjects that the model was trained on, so its scores do not "
                    "hold for new subjects, and cannot be compared with those of other models. To compare anyway, set "
                    "allow_leaky (command line: --allow-leaky)."
                )
            name = marked(name)
            log.warning("%s: subjects that the model was trained on are scored in %s.", name, file)
        models[name] = read_value_predictions(file) if holds_values(file) else read_predictions(file)
        files[name] = file
    of_classes = [predictions for predictions in models.values() if isinstance(predictions, Predictions)]
    ordered = next((predictions.class_names for predictions in of_classes if predictions.order_known), ())
    for name, predictions in models.items():
        if not isinstance(predictions, Predictions) or predictions.order_known:
            continue
        if set(predictions.class_names) <= set(ordered):
            models[name] = read_predictions(files[name], ordered)
    return models, files


def cautions(pair: Pair) -> list[str]:
    """Return warnings about the figures of a pair."""
    lines = []
    if pair.left_out:
        reasons = ", ".join(f"{clips} {reason}" for reason, clips in pair.left_out.items())
        lines.append(f"{pair.clips} clips compared; left out: {reasons}.")
    for method, note in (
        ("Interval", pair.difference.interval.note),
        ("Permutation test", pair.permutation.note),
        ("Wilcoxon", pair.wilcoxon.note),
    ):
        if note:
            lines.append(f"{method}: {note}.")
    if any(LEAKY in name for name in (pair.first, pair.second)):
        lines.append(
            f"{LEAKY}: subjects that a model was trained on are scored; the figures do not hold for new subjects."
        )
    return lines


def pair_cells(pair: Pair) -> list[str]:
    """Return the figures of a pair as text, with the columns `COLUMNS`."""
    difference, interval = pair.difference, pair.difference.interval
    span = "none" if interval.low is None else f"{interval.low:+.3f} to {interval.high:+.3f}"
    return [
        f"{pair.first} minus {pair.second}",
        _number(difference.first),
        _number(difference.second),
        "not defined" if difference.value is None else f"{difference.value:+.3f}",
        span,
        _p(pair.permutation),
        _p(pair.wilcoxon),
        str(len(pair.by_subject)),
        str(pair.clips),
    ]


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _p(tested: SignificanceTest) -> str:
    if tested.corrected is None:
        return "none"
    return "< 0.001" if tested.corrected < 0.001 else f"{tested.corrected:.3f}"


def _write(out: Path, comparison: Comparison) -> None:
    pairs, title = comparison.pairs, STATISTIC_NAMES[comparison.statistic]
    files = {name: str(path) for name, path in comparison.files.items()}
    write_json(
        out / "comparison.json",
        {
            "statistic": comparison.statistic,
            "files": files,
            "seed": comparison.seed,
            "rule": RULE,
            "pairs": [pair.to_dict() for pair in pairs],
            "side_by_side": None if comparison.side_by_side is None else comparison.side_by_side.to_dict(),
        },
    )
    rows = [_row(pair) for pair in pairs]
    write_csv(out / "comparison.csv", [list(rows[0]), *(row.values() for row in rows)], spreadsheet=True)
    models = dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second))
    write_report(
        out / "report.html",
        Report(
            title="Comparison of models",
            subtitle=f"{len(models)} models, {title}, paired by subject",
            dataset="the clips of the predictions files",
            notes=[pair.sentence for pair in pairs],
            warnings=[
                f"{name}: subjects that the model was trained on are scored." for name in models if LEAKY in name
            ],
            facts={**files, "seed of the draws": str(comparison.seed)},
            blocks=[*_blocks(pairs)[:1], *_point_blocks(comparison.side_by_side), *_blocks(pairs)[1:]],
        ),
    )


def point_rows(found: SideBySide) -> list[list[str]]:
    """Return the scores of each model as text, with the columns `POINT_COLUMNS`."""
    return [
        [name, threshold, *point_cells(point)]
        for name, points in found.points.items()
        for threshold, point in points.items()
    ]


def _point_blocks(found: SideBySide | None) -> list[Block]:
    if found is None:
        return []
    title = f"Side by side, on the {found.clips} clips that all models have a prediction for"
    return [Block(title, POINT_TEXT, POINT_COLUMNS, point_rows(found))]


def _row(pair: Pair) -> dict[str, object]:
    difference = pair.difference
    return {
        "first": pair.first,
        "second": pair.second,
        "statistic": pair.statistic,
        "of_first": difference.first,
        "of_second": difference.second,
        "difference": difference.value,
        "low": difference.interval.low,
        "high": difference.interval.high,
        "permutation_p": pair.permutation.p,
        "permutation_p_holm": pair.permutation.corrected,
        "wilcoxon_p": pair.wilcoxon.p,
        "wilcoxon_p_holm": pair.wilcoxon.corrected,
        "subjects": len(pair.by_subject),
        "clips": pair.clips,
        "left_out": sum(pair.left_out.values()),
        "better": pair.better,
    }


def _methods(pair: Pair) -> str:
    return (
        f"Interval: {pair.difference.interval.method}. Permutation test: {pair.permutation.method}. Wilcoxon: "
        f"{pair.wilcoxon.method}."
    )


def _blocks(pairs: Sequence[Pair]) -> list[Block]:
    """Return the sections of the report: the pairs with their tests, clips left out, and scores per subject."""
    words = STATISTIC_NAMES[pairs[0].statistic]
    by_subject = [
        Block(
            title=f"{pair.first} and {pair.second}, subject by subject",
            text="\n\n".join([pair.sentence, *cautions(pair), _methods(pair)]),
            columns=("subject", pair.first, pair.second, "difference"),
            rows=[
                (subject, *(_number(None if value != value else value) for value in (a, b, a - b)))
                for subject, (a, b) in pair.by_subject.items()
            ],
        )
        for pair in pairs
    ]
    return [
        Block(
            title=f"Difference in {words}",
            text=f"{RULE} Intervals are not corrected for the number of pairs.",
            columns=COLUMNS,
            rows=[pair_cells(pair) for pair in pairs],
        ),
        *by_subject,
    ]
