"""Transfer between data sets: cells of the transfer table, draws of target subjects, means over runs, and gaps.

There are three questions, all scored on the same test subjects of the target:

- "model": does the model transfer? It is fitted on the source only; nothing is fitted on the target.
- "features": do the features transfer? The extractor of the source is frozen, and the head is fitted on the target's
  training subjects (Prajod et al. 2024).
- "subjects": how much of the target is needed? The source's model is fine-tuned on k of the target's training subjects.

The runs of a cell differ in the seed and in the draw of the k subjects. A cell's score counts the clips of all runs, so
accuracy and balanced accuracy are means over runs. Its interval resamples subjects, each with its mean over the runs:
it covers variation between subjects, not between seeds, so the lowest and the highest run are reported too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from painseq.errors import PainseqError
from painseq.evaluation.baselines import baselines
from painseq.evaluation.intervals import Difference, Interval, confusion_intervals, paired_difference
from painseq.evaluation.metrics import STATISTICS, Scores, confusion_by_subject, scores_of
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.threshold import ThresholdComparison, compare_thresholds
from painseq.spec import difference

Question = Literal["model", "features", "subjects"]
QUESTIONS: Mapping[Question, str] = {
    "model": "Does the model transfer?",
    "features": "Do the features transfer?",
    "subjects": "How much of the target is needed?",
}
MEANING: Mapping[Question, str] = {
    "model": "Extractor and head of the source; nothing is fitted on the target.",
    "features": "The source's extractor, frozen; the head is fitted on the target's training subjects.",
    "subjects": "The source's model is fine-tuned on k of the target's training subjects.",
}
GAP = "balanced_accuracy"
"""The score that gaps are computed for."""

Runs = Mapping[tuple[int, int], Predictions]
"""(seed, draw) -> predictions."""


@dataclass(frozen=True)
class TransferCell:
    """One cell of the transfer table.

    Args:
        question: a key of `QUESTIONS`.
        source: the data set that the model or the extractor was trained on, or another source of an extractor.
        target: the data set whose test subjects are scored.
        extractor: name in the plan.
        head: name in the plan.
        k: number of the target's training subjects used for "subjects"; None for other questions.
    """

    question: Question
    source: str
    target: str
    extractor: str
    head: str
    k: int | None = None

    @property
    def name(self) -> str:
        """Description of the cell."""
        model = {
            "model": f"model of {self.source}",
            "features": f"features of {self.source}",
            "subjects": f"model of {self.source} and {self.k} subjects",
        }[self.question]
        return f"{model} on {self.target}, {self.head} on {self.extractor}"


@dataclass(frozen=True)
class CellResult:
    """Scores of one cell.

    Args:
        cell: the cell.
        runs: (seed, draw) of the runs that are averaged.
        scores: scores of the clips of all runs.
        intervals: name of a statistic -> 95 % interval over subjects.
        lowest, highest: lowest and highest balanced accuracy of a single run.
        subjects: number of scored subjects.
        within: description of the target's own model; the gap is its score minus the cell's.
        gap: difference paired by subject; None without a model to compare with.
        majority, chance: balanced accuracy of the baselines.
        threshold: scores at the tuned thresholds of the runs beside those at 0.5; None without tuned thresholds.
    """

    cell: TransferCell
    runs: tuple[tuple[int, int], ...]
    scores: Scores
    intervals: Mapping[str, Interval]
    lowest: float | None
    highest: float | None
    subjects: int
    within: str
    gap: Difference | None
    majority: float | None
    chance: float | None
    threshold: ThresholdComparison | None = None

    @property
    def value(self) -> float | None:
        """Balanced accuracy; None if not defined."""
        return self.scores.balanced_accuracy

    @property
    def interval(self) -> Interval:
        """Interval of the balanced accuracy."""
        return self.intervals[GAP]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            **dataclasses.asdict(self.cell),
            "runs": [{"seed": seed, "draw": draw} for seed, draw in self.runs],
            "subjects": self.subjects,
            "scores": self.scores.to_dict(),
            "intervals": {name: interval.to_dict() for name, interval in self.intervals.items()},
            "lowest_run": self.lowest,
            "highest_run": self.highest,
            "within": self.within,
            "gap": None if self.gap is None else self.gap.to_dict(),
            "majority_class": self.majority,
            "chance": self.chance,
            "threshold": None if self.threshold is None else self.threshold.to_dict(),
        }


def pooled_runs(runs: Sequence[Predictions]) -> Predictions:
    """Pool the predictions of several runs for the same clips, with clip ids `<clip>@<number of the run>`.

    Every subject keeps all of its clips of every run, so resampling subjects averages over runs.

    Raises:
        PainseqError: the runs differ in classes, clips, subjects or truth.
    """
    first = runs[0]
    ordered = [first]
    for number, run in enumerate(runs[1:], start=2):
        row_of = {clip_id: row for row, clip_id in enumerate(run.clip_ids)}
        unshared = sorted(set(first.clip_ids) ^ set(row_of))
        if unshared or run.class_names != first.class_names:
            aspect = (
                f"clips ({len(unshared)} are in only one of them, such as {unshared[0]!r})" if unshared else "classes"
            )
            raise PainseqError(f"Run {number} and the first run have different {aspect}; a mean needs the same.")
        run = run.only([row_of[clip_id] for clip_id in first.clip_ids])
        if run.subject_ids != first.subject_ids or not np.array_equal(run.truth, first.truth):
            raise PainseqError(f"Run {number} and the first run have different subjects or truth for the same clips.")
        ordered.append(run)
    return Predictions(
        class_names=first.class_names,
        clip_ids=tuple(f"{clip_id}@{number}" for number, run in enumerate(ordered) for clip_id in run.clip_ids),
        subject_ids=first.subject_ids * len(ordered),
        truth=np.concatenate([run.truth for run in ordered]),
        label=np.concatenate([run.label for run in ordered]),
        probabilities=np.concatenate([run.probabilities for run in ordered]),
        frames=np.concatenate([run.frames for run in ordered]),
        faceless=np.concatenate([run.faceless for run in ordered]),
        order_known=first.order_known,
    )


def cell_result(cell: TransferCell, runs: Runs, within: Runs | None, within_is: str) -> CellResult:
    """Score a cell, and its gap to a model of the target itself.

    Args:
        cell: the cell.
        runs: runs of the cell.
        within: runs of the target's own model, one for each seed (draw 0); None without such a model. Every run of
            the cell is compared with the run of the same seed.
        within_is: description of that model, or why there is none.

    Raises:
        PainseqError: the runs were scored on other clips, or no clip has both a truth and a prediction.
    """
    keys = sorted(runs)
    all_runs = pooled_runs([runs[key] for key in keys])
    if not all_runs.scored.any():
        raise PainseqError(f"{cell.name}: no test clip has both a truth and a prediction, so nothing can be scored.")
    names = all_runs.class_names
    subjects, confusion = confusion_by_subject(all_runs.truth, all_runs.label, all_runs.subject_ids, len(names))
    scores = scores_of(confusion.sum(0), names, all_runs.order_known)
    gap = None
    if within is not None:
        within_runs = pooled_runs([within[seed, 0] for seed, _ in keys])
        gap = paired_difference(within_runs, all_runs, (GAP,))[GAP]
    by_run = [value for key in keys if (value := _balanced_accuracy(runs[key])) is not None]
    majority, chance = (baseline.scores.balanced_accuracy for baseline in baselines(all_runs))
    return CellResult(
        cell=cell,
        runs=tuple(keys),
        scores=scores,
        intervals=confusion_intervals(confusion, [name for name in STATISTICS if scores.value(name) is not None]),
        lowest=min(by_run, default=None),
        highest=max(by_run, default=None),
        subjects=len(subjects),
        within=within_is,
        gap=gap,
        majority=majority,
        chance=chance,
        threshold=compare_thresholds(*(runs[key] for key in keys)),
    )


def _balanced_accuracy(run: Predictions) -> float | None:
    _, confusion = confusion_by_subject(run.truth, run.label, run.subject_ids, len(run.class_names))
    return scores_of(confusion.sum(0), run.class_names).balanced_accuracy


def drawn_order(counts: Mapping[str, Mapping[str, int]], seed: int, draw: int) -> tuple[str, ...]:
    """Order the training subjects of a target for a draw: its first k subjects are used for k.

    The order is random, except that the first subject with clips of every class is moved to the front, since a single
    class cannot be learned from.

    Args:
        counts: subject -> class -> number of clips with a known label.
        seed, draw: determine the order.

    Raises:
        PainseqError: no subject has clips of every class.
    """
    subjects = sorted(counts)
    order = [subjects[index] for index in np.random.default_rng([seed, draw]).permutation(len(subjects))]
    complete = [subject for subject in order if all(counts[subject].values())]
    if not complete:
        raise PainseqError(
            f"None of the {len(subjects)} training subjects has clips of every class, so k subjects cannot be drawn. "
            "Set k: [], or choose a label scheme whose classes all subjects have."
        )
    return (complete[0], *(subject for subject in order if subject != complete[0]))


def numbers_of_subjects(requested: Sequence[int], subjects: int) -> tuple[int, ...]:
    """The k of a learning curve over subjects: those requested that are below `subjects`, and `subjects`."""
    return (*sorted({k for k in requested if k < subjects}), subjects)


@dataclass(frozen=True)
class DataSetSettings:
    """Settings that data sets must share before a model can be transferred between them.

    Args:
        labels: the label scheme.
        class_names: names in order of pain; empty for regression.
        fps: frames per second; None if every frame is used.
        crops: how faces are cropped, as plain values.
        frames: streams and normalisation by person, as plain values.
    """

    labels: str
    class_names: tuple[str, ...]
    fps: float | None
    crops: Mapping[str, object]
    frames: Mapping[str, object]


def check_harmonised(settings: Mapping[str, DataSetSettings], fps: float) -> None:
    """Check that a model can be transferred between data sets, before anything is extracted or fitted.

    Args:
        settings: name of a data set in the plan -> its settings.
        fps: frames per second of the plan.

    Raises:
        PainseqError: different classes, frame rates, crops or streams; says how to harmonise them.
    """
    if any(not each.class_names for each in settings.values()):
        raise PainseqError("A transfer table needs classes, but the labels are a scale. Choose a label scheme.")
    if len({each.class_names for each in settings.values()}) > 1:
        listed = "\n  ".join(
            f"{name}: labels {each.labels}: {', '.join(each.class_names)}" for name, each in settings.items()
        )
        raise PainseqError(
            f"The data sets have different classes:\n  {listed}\nGive each a label scheme with the same class names in "
            "the same order, with `labels` in its data options. Most have binary and three, and classes can also be "
            "listed (labels: {no_pain: [...], high_pain: [...]})."
        )
    different = [
        f"{name}: {'every frame' if each.fps is None else f'{each.fps:g}'}"
        for name, each in settings.items()
        if each.fps != fps
    ]
    if different:
        raise PainseqError(
            f"The plan's fps is {fps:g}, but the options of data sets differ ({'; '.join(different)}). A model needs "
            f"the frame rate that it was fitted at. Add `fps: {fps:g}` to the data options of each."
        )
    first, *others = settings
    for name in others:
        for aspect in ("crops", "frames"):
            lines = difference(getattr(settings[first], aspect), getattr(settings[name], aspect))
            if lines:
                raise PainseqError(
                    f"{first} and {name} are read with different settings:\n  "
                    + "\n  ".join(lines)
                    + f"\nwhere the second value is that of {name}. Use the same settings for both."
                )
