"""Transfer between data sets: the cells of its table, draws of target subjects, means over runs, and gaps.

Three questions, all scored on the same test subjects of the target:

- "model": does the model transfer? Fitted on the source alone; nothing of the target, not even a scaling.
- "features": do the features transfer? The extractor of the source is frozen, and the head fitted on the target's
  training subjects (Prajod et al. 2024).
- "subjects": how much of the target is needed? The source's model is fitted on, on k of the target's training
  subjects.

The runs of a cell differ in seed and in the draw of the k subjects. A cell's score counts the clips of all of them, so
that it is their mean for accuracy and balanced accuracy; and its interval resamples subjects, each with its mean over
the runs. So it says what other subjects would change, and not what another seed would: the lowest and the highest run
stand beside it.
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
    "subjects": "The source's model is fitted on, on k of the target's training subjects.",
}
GAP = "balanced_accuracy"
"""The score whose gap is told."""

Runs = Mapping[tuple[int, int], Predictions]
"""(seed, draw) -> predictions."""


@dataclass(frozen=True)
class TransferCell:
    """One place in the table.

    Args:
        question: see `QUESTIONS`.
        source: the data set whose model, or whose extractor, it is; what else an extractor was trained on.
        target: the data set whose test subjects are scored.
        extractor: name in the plan.
        head: name in the plan.
        k: training subjects of the target that were added; None but for "subjects".
    """

    question: Question
    source: str
    target: str
    extractor: str
    head: str
    k: int | None = None

    @property
    def name(self) -> str:
        """The cell in words."""
        of = {
            "model": f"model of {self.source}",
            "features": f"features of {self.source}",
            "subjects": f"model of {self.source} and {self.k} subjects",
        }[self.question]
        return f"{of} on {self.target}, {self.head} on {self.extractor}"


@dataclass(frozen=True)
class CellResult:
    """What a cell scored.

    Args:
        cell: which.
        runs: (seed, draw) of the runs that it is the mean of.
        scores: of the clips of all runs.
        intervals: 95 % over subjects, by the name of the statistic.
        lowest, highest: balanced accuracy of single runs.
        subjects: how many were scored.
        within: what stands for the target itself; the gap is this minus the cell.
        gap: paired by subject; None where there is nothing to compare with.
        majority, chance: balanced accuracy of the baselines.
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

    @property
    def value(self) -> float | None:
        """Balanced accuracy."""
        return self.scores.balanced_accuracy

    @property
    def interval(self) -> Interval:
        """Of the balanced accuracy."""
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
        }


def pooled_runs(runs: Sequence[Predictions]) -> Predictions:
    """Predictions of the same clips by several runs as one table, `<clip>@<number of the run>`.

    Every subject has all of its clips of every run, so what resamples subjects takes their mean over the runs.

    Raises:
        PainseqError: other classes, clips, subjects or truth.
    """
    first = runs[0]
    ordered = [first]
    for number, run in enumerate(runs[1:], start=2):
        place = {clip_id: row for row, clip_id in enumerate(run.clip_ids)}
        odd = sorted(set(first.clip_ids) ^ set(place))
        if odd or run.class_names != first.class_names:
            what = f"clips ({len(odd)} are in one only, such as {odd[0]!r})" if odd else "classes"
            raise PainseqError(f"The first and the {number}. run were scored on other {what}; a mean needs the same.")
        run = run.only([place[clip_id] for clip_id in first.clip_ids])
        if run.subject_ids != first.subject_ids or not np.array_equal(run.truth, first.truth):
            raise PainseqError(f"The first and the {number}. run have other subjects or truths of the same clips.")
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
    """Score a cell, and its gap to what a model of the target itself scores.

    Args:
        cell: which.
        runs: of the cell.
        within: of the target's own model, a run for each seed (draw 0); None where there is none. Every run of the
            cell is compared with the one of its seed.
        within_is: that model in words, or why there is none.

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
        own = pooled_runs([within[seed, 0] for seed, _ in keys])
        gap = paired_difference(own, all_runs, (GAP,))[GAP]
    singles = [value for key in keys if (value := _balanced_accuracy(runs[key])) is not None]
    majority, chance = (baseline.scores.balanced_accuracy for baseline in baselines(all_runs))
    return CellResult(
        cell=cell,
        runs=tuple(keys),
        scores=scores,
        intervals=confusion_intervals(confusion, [name for name in STATISTICS if scores.value(name) is not None]),
        lowest=min(singles, default=None),
        highest=max(singles, default=None),
        subjects=len(subjects),
        within=within_is,
        gap=gap,
        majority=majority,
        chance=chance,
    )


def _balanced_accuracy(run: Predictions) -> float | None:
    _, confusion = confusion_by_subject(run.truth, run.label, run.subject_ids, len(run.class_names))
    return scores_of(confusion.sum(0), run.class_names).balanced_accuracy


def drawn_order(counts: Mapping[str, Mapping[str, int]], seed: int, draw: int) -> tuple[str, ...]:
    """The training subjects of a target in the order in which a draw takes them: its first k are those of k.

    The order is random, but for this: whoever has clips of every class and comes first in it is taken first, since
    one class alone cannot be learned from.

    Args:
        counts: subject -> class -> clips with a known label.
        seed, draw: decide the order.

    Raises:
        PainseqError: nobody has clips of every class.
    """
    subjects = sorted(counts)
    order = [subjects[place] for place in np.random.default_rng([seed, draw]).permutation(len(subjects))]
    whole = [subject for subject in order if all(counts[subject].values())]
    if not whole:
        raise PainseqError(
            f"None of the {len(subjects)} training subjects has clips of every class, so no k subjects can be drawn "
            "from which to learn. Choose k: [], or a label scheme whose classes everybody has."
        )
    return (whole[0], *(subject for subject in order if subject != whole[0]))


def numbers_of_subjects(asked: Sequence[int], subjects: int) -> tuple[int, ...]:
    """The k of a curve: those asked for that are fewer than all, and all."""
    return (*sorted({k for k in asked if k < subjects}), subjects)


@dataclass(frozen=True)
class DataSetSettings:
    """What data sets must share before a model can go from one to another.

    Args:
        labels: how the classes were asked for.
        class_names: in order of pain; empty for a regression.
        fps: frames a second; None where every frame is taken.
        crops: how faces are cropped, in plain values.
        frames: streams and baseline clips.
    """

    labels: str
    class_names: tuple[str, ...]
    fps: float | None
    crops: Mapping[str, object]
    frames: Mapping[str, object]


def check_harmonised(given: Mapping[str, DataSetSettings], fps: float) -> None:
    """Refuse data sets between which a model cannot go, before anything is extracted or fitted.

    Args:
        given: name in the plan -> what its options say.
        fps: the plan's.

    Raises:
        PainseqError: other classes, frame rates, crops or streams; says how to make them the same.
    """
    if any(not here.class_names for here in given.values()):
        raise PainseqError("A transfer table needs classes, and the labels here are a scale. Choose a label scheme.")
    if len({here.class_names for here in given.values()}) > 1:
        listed = "\n  ".join(
            f"{name}: labels {here.labels}: {', '.join(here.class_names)}" for name, here in given.items()
        )
        raise PainseqError(
            f"The data sets have other classes:\n  {listed}\nGive each a label scheme with the same class names in the "
            "same order, by `labels` of its data options: binary and three exist for most, and classes of your "
            "own can be written out (labels: {no_pain: [...], high_pain: [...]})."
        )
    wrong = [
        f"{name}: {'every frame' if here.fps is None else f'{here.fps:g}'}"
        for name, here in given.items()
        if here.fps != fps
    ]
    if wrong:
        raise PainseqError(
            f"The plan's fps is {fps:g}, and the options of data sets say otherwise ({'; '.join(wrong)}). A model that "
            "was fitted at one frame rate does not know another: add "
            f"`fps: {fps:g}` to the data options of each."
        )
    first, *others = given
    for name in others:
        for what in ("crops", "frames"):
            lines = difference(getattr(given[first], what), getattr(given[name], what))
            if lines:
                raise PainseqError(
                    f"{first} and {name} are not read alike:\n  "
                    + "\n  ".join(lines)
                    + f"\nwhere the second value is that of {name}. Give both the same."
                )
