"""Scores of values on a scale, such as PSPI or VAS: errors and correlations.

All scores are computed from sums over clips, one row per subject, so resampling subjects is a matrix product.

The intraclass correlation is ICC(3,1) of Shrout and Fleiss 1979 ("Intraclass correlations: uses in assessing rater
reliability", Psychological Bulletin 86(2)): consistency of single measures, with truth and model as the two fixed
raters. With two raters it is twice their covariance over the sum of their variances. A constant offset does not lower
it, a different spread does; it is 0 for a constant prediction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from painseq.evaluation.counts import (
    Counts,
    counts_of,
    few_faces_warnings,
    few_subjects_warnings,
    unscored_clip_warnings,
)
from painseq.evaluation.intervals import Interval, bootstrap_intervals, mean_interval
from painseq.evaluation.metrics import Floats, numbered_subjects, rows_by_subject
from painseq.evaluation.score import no_better, number
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.records import MIN_FACE_SHARE

VALUE_TITLES = {
    "mse": "Mean squared error",
    "mae": "Mean absolute error",
    "pearson": "Pearson correlation",
    "icc_3_1": "ICC(3,1)",
}
"""Names of the scores in tables; errors are in units of the scale, squared for the first."""

MEANS = ("mse", "mae")
"""Scores that are the mean of the subjects' scores, if every subject has the same number of clips."""

MEAN_RULE = "always the mean truth of the scored clips, which a model does not know"


@dataclass(frozen=True)
class ValueScores:
    """Scores of a set of clips; None if a score is not defined.

    Args:
        mse: mean squared error, in squared units of the scale; lower is better.
        mae: mean absolute error, in units of the scale; lower is better.
        pearson: correlation of truth and value.
        icc_3_1: intraclass correlation of truth and value, consistency; 1 is agreement up to an offset.
        undefined: name of a score -> why it is None.
    """

    mse: float | None
    mae: float | None
    pearson: float | None
    icc_3_1: float | None
    undefined: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """A score by its key in `VALUE_TITLES`."""
        values = {"mse": self.mse, "mae": self.mae, "pearson": self.pearson, "icc_3_1": self.icc_3_1}
        return values[name]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {name: self.value(name) for name in VALUE_TITLES} | {"undefined": dict(self.undefined)}


@dataclass(frozen=True)
class ValueSubject:
    """Scores and counts of one subject.

    Args:
        subject_id: the subject's id.
        counts: numbers of this subject's clips and frames.
        truth: mean truth of the scored clips; None without any.
        value: mean prediction of the scored clips; None without any.
        scores: scores of the scored clips.
    """

    subject_id: str
    counts: Counts
    truth: float | None
    value: float | None
    scores: ValueScores

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "subject_id": self.subject_id,
            "clips": self.counts.clips,
            "scored": self.counts.scored,
            "without_prediction": self.counts.without_prediction,
            "hidden": self.counts.hidden,
            "frames": self.counts.frames,
            "faceless": self.counts.faceless,
            "mean_truth": self.truth,
            "mean_value": self.value,
            **self.scores.to_dict(),
        }


@dataclass(frozen=True)
class ValueEvaluation:
    """Scores of one model of a scale with intervals, a baseline, counts and warnings.

    Args:
        scale: name of the scale, e.g. "pspi".
        scores: scores of the scored clips.
        intervals: name of a score -> 95 % interval.
        mean: mean truth of the scored clips; None without any.
        baseline: scores of always predicting that mean. It uses the truth, which a model does not know: its mean
            squared error is the variance of the truth.
        counts: numbers of scored and unscored clips, subjects and frames.
        by_subject: one row per subject, sorted by id.
        warnings: one sentence or more each.
    """

    scale: str
    scores: ValueScores
    intervals: dict[str, Interval]
    mean: float | None
    baseline: ValueScores
    counts: Counts
    by_subject: tuple[ValueSubject, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values with stable keys, ready for JSON."""
        return {
            "scale": self.scale,
            "scores": self.scores.to_dict(),
            "intervals": {name: interval.to_dict() for name, interval in self.intervals.items()},
            "baselines": {
                "always the mean": {
                    "name": "always the mean",
                    "rule": MEAN_RULE,
                    "mean": self.mean,
                    **self.baseline.to_dict(),
                }
            },
            "counts": self.counts.to_dict(),
            "clips_without_prediction": "left out of every score, and counted",
            "by_subject": [row.to_dict() for row in self.by_subject],
            "warnings": list(self.warnings),
        }


def score_values(predictions: ValuePredictions, min_face_share: float = MIN_FACE_SHARE) -> ValueEvaluation:
    """Score values on a scale for subjects that the model was not trained on.

    Args:
        predictions: predictions.
        min_face_share: predictions are reported as doubtful if a smaller share of the frames has a face.

    Raises:
        PainseqError: `min_face_share` is not a share.
    """
    scored = predictions.only(predictions.scored)
    sums = sums_by_subject(scored)
    scores = _scores(sums.sum(0))
    intervals = _intervals(sums, [name for name in VALUE_TITLES if scores.value(name) is not None])
    mean = float(scored.truth.mean()) if len(scored) else None
    always = dataclasses.replace(scored, value=np.full(len(scored), np.nan if mean is None else mean))
    baseline = _scores(sums_by_subject(always).sum(0))
    counts = counts_of(predictions, min_face_share)
    return ValueEvaluation(
        scale=predictions.scale,
        scores=scores,
        intervals=intervals,
        mean=mean,
        baseline=baseline,
        counts=counts,
        by_subject=tuple(
            _subject(predictions.only(rows)) for rows in rows_by_subject(predictions.subject_ids).values()
        ),
        warnings=_warnings(scored, scores, intervals, baseline, counts),
    )


def value_table(evaluations: Mapping[str, ValueEvaluation]) -> Table:
    """Table of scores for a terminal of 80 columns: one row per model with its intervals, then the baseline."""
    baselines: dict[tuple[str, ...], str] = {}
    for model, evaluation in evaluations.items():
        baselines.setdefault(tuple(number(evaluation.baseline.value(name)) for name in VALUE_TITLES), model)
    scales = ", ".join(sorted({evaluation.scale for evaluation in evaluations.values()}))
    result = Table(
        title=Text(f"Scores on the scale {scales}, with 95 % intervals over subjects", "table.title"),
        caption=MEAN_RULE,
    )
    result.add_column("", overflow="fold")
    for title in VALUE_TITLES.values():
        result.add_column(title, justify="right")
    for model, evaluation in evaluations.items():
        result.add_row(Text(model), *(_cell(evaluation, name) for name in VALUE_TITLES))
    result.add_section()
    for cells, model in baselines.items():
        name = Text("always the mean" + (f" ({model})" if len(baselines) > 1 else ""))
        result.add_row(name, *cells, style="dim")
    return result


# ---- Scores as functions of (..., 8) sums over clips; NaN if not defined ----


def sums_by_subject(scored: ValuePredictions) -> Floats:
    """(S, 8) for sorted subjects: clips, and sums of t, v, t * t, v * v, t * v, absolute and squared error.

    t and v are truth and value minus their medians, to keep rounding errors in differences of sums small, and zero if
    all are equal.
    """
    subjects, subject = numbered_subjects(scored.subject_ids)
    if not len(scored):
        return np.zeros((0, 8))
    t, v = scored.truth - np.median(scored.truth), scored.value - np.median(scored.value)
    error = scored.value - scored.truth
    by_clip = (np.ones_like(t), t, v, t * t, v * v, t * v, np.abs(error), error**2)
    return np.stack([np.bincount(subject, values, len(subjects)) for values in by_clip], axis=1)


def mse(sums: Floats) -> Floats:
    """(...) mean squared error."""
    return _ratio(sums[..., 7], sums[..., 0])


def mae(sums: Floats) -> Floats:
    """(...) mean absolute error."""
    return _ratio(sums[..., 6], sums[..., 0])


def pearson(sums: Floats) -> Floats:
    """(...) correlation; NaN if truth or value is constant."""
    truth_variance, value_variance, covariance = _variances(sums)
    return np.clip(_ratio(covariance, np.sqrt(truth_variance * value_variance)), -1, 1)


def icc_3_1(sums: Floats) -> Floats:
    """(...) ICC(3,1) of two raters; NaN if both are constant."""
    truth_variance, value_variance, covariance = _variances(sums)
    return np.clip(_ratio(2 * covariance, truth_variance + value_variance), -1, 1)


VALUE_STATISTICS: dict[str, Callable[[Floats], Floats]] = {
    "mse": mse,
    "mae": mae,
    "pearson": pearson,
    "icc_3_1": icc_3_1,
}


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    ratio: Floats = np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0)
    return ratio


def _variances(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Variance of truth and of value, and their covariance."""
    t, v, tt, vv, tv = (_ratio(sums[..., column], sums[..., 0]) for column in range(1, 6))
    # Rounding errors of equal numbers are not variance.
    truth_variance, value_variance = (
        np.where(square - mean**2 > 1e-12 * square, square - mean**2, 0) for mean, square in ((t, tt), (v, vv))
    )
    return truth_variance, value_variance, np.where((truth_variance > 0) & (value_variance > 0), tv - t * v, 0)


# ---- Evaluation ----


def _scores(sums: Floats) -> ValueScores:
    values = {name: float(statistic(sums)) for name, statistic in VALUE_STATISTICS.items()}
    truth_variance, value_variance, _ = _variances(sums)
    if not sums[0]:
        reason = "there is no clip to score"
    elif sums[0] == 1:
        reason = "there is a single clip"
    else:
        variances = (("truths", truth_variance), ("predictions", value_variance))
        constant = [name for name, variance in variances if not variance]
        reason = f"the {' and the '.join(constant)} are all the same"
    return ValueScores(
        **{name: None if np.isnan(value) else value for name, value in values.items()},
        undefined={name: reason for name, value in values.items() if np.isnan(value)},
    )


def _intervals(sums: Floats, names: Sequence[str]) -> dict[str, Interval]:
    def drawn(times: NDArray[np.int64]) -> dict[str, Floats]:
        of_draws = times @ sums
        return {name: VALUE_STATISTICS[name](of_draws) for name in names}

    intervals = bootstrap_intervals(drawn, names, len(sums))
    if len(set(sums[:, 0].tolist())) == 1:
        means = {name: mean_interval(VALUE_STATISTICS[name](sums), (0, np.inf)) for name in names if name in MEANS}
        intervals |= means
    return intervals


def _subject(predictions: ValuePredictions) -> ValueSubject:
    scored = predictions.only(predictions.scored)
    return ValueSubject(
        subject_id=predictions.subject_ids[0],
        counts=counts_of(predictions),
        truth=float(scored.truth.mean()) if len(scored) else None,
        value=float(scored.value.mean()) if len(scored) else None,
        scores=_scores(sums_by_subject(scored).sum(0)),
    )


def _cell(evaluation: ValueEvaluation, name: str) -> str:
    shown, interval = number(evaluation.scores.value(name)), evaluation.intervals.get(name)
    if interval is None or interval.low is None or interval.high is None:
        return shown
    if interval.low == interval.high:
        return f"{shown}\nno width"
    return f"{shown}\n{interval.low:.2f} to {interval.high:.2f}"


def _warnings(
    scored: ValuePredictions,
    scores: ValueScores,
    intervals: Mapping[str, Interval],
    baseline: ValueScores,
    counts: Counts,
) -> tuple[str, ...]:
    lines = unscored_clip_warnings(counts) + few_faces_warnings(counts)
    no_better_in = [
        f"{VALUE_TITLES[name].lower()} {number(model_value)} against {number(baseline_value)}"
        for name in MEANS
        if (model_value := scores.value(name)) is not None
        and (baseline_value := baseline.value(name)) is not None
        and no_better(name, model_value, baseline_value)
    ]
    if no_better_in:
        lines.append(f"No better than {MEAN_RULE}: {'; '.join(no_better_in)}.")
    if scores.mae is not None:
        # The median is the constant with the smallest absolute error; on PSPI, where most clips are 0, it is 0.
        median = float(np.median(scored.truth))
        smallest = float(np.abs(scored.truth - median).mean())
        if no_better("mae", scores.mae, smallest):
            lines.append(
                f"Always predicting {median:g}, the median truth, has no larger error: {VALUE_TITLES['mae'].lower()} "
                f"{number(scores.mae)} against {number(smallest)}."
            )
    interval = intervals.get("icc_3_1")
    if interval is not None and interval.low is not None and interval.high is not None and interval.low <= 0:
        span = f"the interval of the {VALUE_TITLES['icc_3_1']}, {number(interval.low)} to {number(interval.high)},"
        if interval.high < 0:
            lines.append(f"The values decrease as the truth increases: {span} is below 0.")
        else:
            lines.append(f"Not distinguishable from values unrelated to the truth: {span} includes 0.")
    lines += few_subjects_warnings(counts)
    if counts.scored:
        lines += [f"{VALUE_TITLES[name]} is not defined: {reason}." for name, reason in scores.undefined.items()]
    return tuple(lines)
