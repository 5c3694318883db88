"""From predictions to an evaluation: scores, intervals, baselines, and what to be wary of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.markup import escape
from rich.table import Table

from painseq.evaluation.baselines import Baseline, baselines
from painseq.evaluation.intervals import FEW_SUBJECTS, Interval, subject_bootstrap
from painseq.evaluation.metrics import STATISTICS, Scores, confusion_by_subject, scores_of
from painseq.evaluation.predictions import UNKNOWN, Predictions

TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "quadratic_weighted_kappa": "Quadratic kappa",
}
"""How the headline statistics are called in tables."""


@dataclass(frozen=True)
class Counts:
    """What was and was not scored.

    Args:
        clips: all clips of the predictions.
        scored: clips with a truth and a prediction; every score is of these.
        without_prediction: clips without a prediction (no frame with a face), left out of every score.
        hidden: clips with a prediction whose truth is not known.
        subjects: subjects with at least one scored clip.
        frames: frames looked at, None where the file does not say.
        faceless: frames without a face among them, None where the file does not say.
        without_prediction_by_class: by the truth's name; clips of hidden truth are not in it.
        without_prediction_by_subject: by subject id, those with at least one.
        faceless_share_by_class: share of a class's frames without a face, None without any frame.
    """

    clips: int
    scored: int
    without_prediction: int
    hidden: int
    subjects: int
    frames: int | None
    faceless: int | None
    without_prediction_by_class: dict[str, int]
    without_prediction_by_subject: dict[str, int]
    faceless_share_by_class: dict[str, float | None]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model, and all that is needed to read them.

    A clip without a prediction is left out of every score, and counted.

    Args:
        scores: of the scored clips.
        intervals: 95 %, by the name of the statistic.
        baselines: majority class and chance, on the same clips.
        counts: what was scored, and what was not.
        warnings: in plain words; empty if there is nothing to be wary of.
    """

    scores: Scores
    intervals: dict[str, Interval]
    baselines: tuple[Baseline, ...]
    counts: Counts
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values with stable keys, ready for JSON."""
        return {
            "class_names": list(self.scores.class_names),
            "scores": self.scores.to_dict(),
            "intervals": {name: interval.to_dict() for name, interval in self.intervals.items()},
            "baselines": {baseline.name: baseline.to_dict() for baseline in self.baselines},
            "counts": self.counts.to_dict(),
            "clips_without_prediction": "left out of every score, and counted",
            "warnings": list(self.warnings),
        }


def score(predictions: Predictions) -> Evaluation:
    """Score predictions, which are of subjects that the model was not trained on."""
    names = predictions.class_names
    _, confusion = confusion_by_subject(predictions.truth, predictions.label, predictions.subject_ids, len(names))
    scores = scores_of(confusion.sum(0), names, predictions.order_known)
    intervals = subject_bootstrap(confusion, [name for name in STATISTICS if scores.value(name) is not None])
    counts = _counts(predictions, len(confusion))
    rules = baselines(predictions)
    return Evaluation(scores, intervals, rules, counts, _warnings(scores, intervals, rules, counts))


def table(evaluations: Mapping[str, Evaluation]) -> Table:
    """The headline for a terminal of 80 columns: a row a model with its intervals, then the baselines."""
    rules = shared_baselines(evaluations)
    caption = "; ".join(f"{name}: {baseline.rule}" for name, baseline in rules)
    result = Table(title="Scores, with 95 % intervals over subjects", caption=escape(caption))
    result.add_column("")
    for name in STATISTICS:
        result.add_column(TITLES[name], justify="right")
    result.add_column("Lowest recall", justify="right")
    for model, evaluation in evaluations.items():
        cells = [_cell(evaluation, name) for name in STATISTICS]
        result.add_row(escape(model), *cells, escape(_lowest_recall(evaluation.scores)))
    result.add_section()
    for name, baseline in rules:
        cells = [number(baseline.scores.value(key)) for key in STATISTICS]
        result.add_row(escape(name), *cells, "", style="dim")
    return result


def number(value: float | None) -> str:
    """Three decimals, or a dash where the score is not defined."""
    return "–" if value is None else f"{value:.3f}"


def shared_baselines(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, Baseline]]:
    """The baselines of several models, each once: a model that lacks other clips can have others."""
    rows: dict[str, list[tuple[str, Baseline]]] = {}
    for model, evaluation in evaluations.items():
        for baseline in evaluation.baselines:
            known = rows.setdefault(baseline.name, [])
            if all(_shown(other) != _shown(baseline) for _, other in known):
                known.append((model, baseline))
    return [
        (f"{name} ({model})" if len(known) > 1 else name, baseline)
        for name, known in rows.items()
        for model, baseline in known
    ]


def _shown(baseline: Baseline) -> list[str]:
    return [baseline.rule, *(number(baseline.scores.value(name)) for name in STATISTICS)]


def _cell(evaluation: Evaluation, name: str) -> str:
    interval = evaluation.intervals.get(name)
    shown = number(evaluation.scores.value(name))
    if interval is None or interval.low is None or interval.high is None:
        return shown
    return f"{shown}\n{interval.low:.2f}–{interval.high:.2f}"


def _lowest_recall(scores: Scores) -> str:
    """The class of the truth that is found least often, below its recall."""
    present = [(r, name) for r, name, n in zip(scores.recall, scores.class_names, scores.support, strict=True) if n]
    if not present:
        return "–"
    value, name = min(present, key=lambda pair: pair[0])
    return f"{value:.3f}\n{name}"


def _counts(predictions: Predictions, subjects: int) -> Counts:
    missing = predictions.label == UNKNOWN
    known = predictions.frames != UNKNOWN
    known &= predictions.faceless != UNKNOWN
    ids = np.asarray(predictions.subject_ids, dtype=object)
    shares: dict[str, float | None] = {}
    for index, name in enumerate(predictions.class_names):
        rows = known & (predictions.truth == index)
        frames = int(predictions.frames[rows].sum())
        shares[name] = float(predictions.faceless[rows].sum() / frames) if frames else None
    return Counts(
        clips=len(predictions),
        scored=int(predictions.scored.sum()),
        without_prediction=int(missing.sum()),
        hidden=int(((predictions.truth == UNKNOWN) & ~missing).sum()),
        subjects=subjects,
        frames=int(predictions.frames.sum()) if known.all() else None,
        faceless=int(predictions.faceless.sum()) if known.all() else None,
        without_prediction_by_class={
            name: int((missing & (predictions.truth == index)).sum())
            for index, name in enumerate(predictions.class_names)
        },
        without_prediction_by_subject={s: int((missing & (ids == s)).sum()) for s in sorted(set(ids[missing]))},
        faceless_share_by_class=shares,
    )


def _warnings(
    scores: Scores, intervals: Mapping[str, Interval], rules: tuple[Baseline, ...], counts: Counts
) -> tuple[str, ...]:
    lines = []
    if not counts.scored:
        lines.append("No clip has both a truth and a prediction: nothing was scored.")
    if counts.without_prediction:
        lines.append(
            f"{counts.without_prediction} of {counts.clips} clips have no prediction, such as a video without a face; "
            "they are left out of every score."
        )
    if counts.hidden:
        lines.append(f"{counts.hidden} of {counts.clips} clips have a hidden truth and are not scored.")
    for name, support, found in zip(scores.class_names, scores.support, scores.recall, strict=True):
        if counts.scored and not support:
            lines.append(f"“{name}” does not occur in the truth of the scored clips: nothing is known about it.")
        elif support and found == 0:
            lines.append(f"“{name}” has recall 0: none of its {support:g} clips was recognised.")
    for rule in rules:
        behind = [
            f"{TITLES[key].lower()} {number(ours)} against {number(theirs)}"
            for key in STATISTICS
            if (ours := scores.value(key)) is not None
            and (theirs := rule.scores.value(key)) is not None
            and ours <= theirs
        ]
        if behind:
            lines.append(f"No better than the baseline “{rule.name}” ({rule.rule}): {'; '.join(behind)}.")
    balanced, chance = intervals.get("balanced_accuracy"), rules[-1].scores.balanced_accuracy
    if (
        balanced is not None
        and balanced.low is not None
        and chance is not None
        and scores.balanced_accuracy is not None
        and balanced.low <= chance < scores.balanced_accuracy
    ):
        lines.append(
            f"Not told apart from guessing: the interval of the balanced accuracy, from {number(balanced.low)} to "
            f"{number(balanced.high)}, holds {number(chance)}."
        )
    if 0 < counts.subjects < FEW_SUBJECTS:
        lines.append(
            f"{counts.subjects} subject{'s' if counts.subjects > 1 else ''} only: "
            + ("the intervals are rough, and rather too narrow." if counts.subjects > 1 else "there is no interval.")
        )
    for key, reason in scores.undefined.items():
        if counts.scored and key in TITLES:
            lines.append(f"{TITLES[key]} is not defined: {reason}.")
    return tuple(lines)
