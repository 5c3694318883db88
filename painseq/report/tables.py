"""What the page's templates ask of evaluations and texts to fill their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup, escape

from painseq.evaluation.intervals import Interval
from painseq.evaluation.metrics import Scores, balanced_accuracy, confusion_by_subject
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.score import Evaluation, number
from painseq.report.canvas import readable


def html(text: str) -> Markup:
    """A text from outside as HTML; the word LEAKY stands in a frame, which is seen without colour too."""
    return escape(text).replace("LEAKY", Markup('<strong class="leaky">LEAKY</strong>'))


def text_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Of each column whether it holds texts, not numbers alone."""
    return [not all(_numeric(cell) for cell in column) for column in zip(*rows, strict=True)]


def _numeric(cell: str) -> bool:
    """Whether a cell begins as a number does, whatever follows it."""
    return cell in ("", "–") or cell.lstrip("+-−")[:1].isdigit()


def number_and_brackets(cell: str) -> tuple[str, str]:
    """A number, and what stands in brackets behind it, such as its interval; "" where nothing does."""
    value, _, behind = cell.partition(" (")
    return (value, behind[:-1]) if behind.endswith(")") else (cell, "")


def span(interval: Interval | None) -> str:
    """An interval as it stands below its score."""
    if interval is None or interval.low is None or interval.high is None:
        return "no interval"
    # Subjects without a difference tell nothing of how far others would lie apart.
    if interval.low == interval.high:
        return "interval of no width"
    return f"{number(interval.low)} to {number(interval.high)}"


def chance(evaluation: Evaluation) -> float | None:
    """Balanced accuracy of guessing."""
    return next((b.scores.balanced_accuracy for b in evaluation.baselines if b.name == "chance"), None)


def scores_by_classes(evaluations: Mapping[str, Evaluation]) -> dict[tuple[str, ...], dict[str, Scores]]:
    """The models' scores, those of the same classes together."""
    groups: dict[tuple[str, ...], dict[str, Scores]] = {}
    for model, evaluation in evaluations.items():
        groups.setdefault(evaluation.scores.class_names, {})[model] = evaluation.scores
    return groups


def shade_of_share(share: float) -> tuple[str, str]:
    """Colours of a cell's ground and text: from white to dark, so that grey keeps the order."""
    red, green, blue = (round(255 + share * (dark - 255)) for dark in (12, 52, 92))
    return f"rgb({red},{green},{blue})", readable((red / 255, green / 255, blue / 255))


def as_printed(value: float) -> str:
    """A published figure, with two decimals at least."""
    return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"


@dataclass(frozen=True)
class SubjectScores:
    """Balanced accuracy of a model's subjects.

    Args:
        model: its name.
        scores: by subject, one at least.
        chance: balanced accuracy of guessing; None where it is not known.
    """

    model: str
    scores: Mapping[str, float]
    chance: float | None

    @property
    def lowest(self) -> float:
        """Of the subject with the lowest score."""
        return min(self.scores.values())

    @property
    def median(self) -> float:
        """Over the subjects."""
        return median(self.scores.values())

    @property
    def highest(self) -> float:
        """Of the subject with the highest score."""
        return max(self.scores.values())

    @property
    def at_or_below_chance(self) -> int:
        """How many subjects; 0 where chance is not known."""
        return 0 if self.chance is None else sum(value <= self.chance + 1e-9 for value in self.scores.values())


def subject_score_rows(
    evaluations: Mapping[str, Evaluation], predictions: Mapping[str, Predictions]
) -> list[SubjectScores]:
    """A row a model that has a subject with a scored clip."""
    rows = [
        SubjectScores(model, subject_scores(given), chance(evaluations[model]) if model in evaluations else None)
        for model, given in predictions.items()
    ]
    return [row for row in rows if row.scores]


def subject_scores(predictions: Predictions) -> dict[str, float]:
    """Balanced accuracy of each subject with a scored clip, over the classes that the subject has."""
    subjects, matrices = confusion_by_subject(
        predictions.truth, predictions.label, predictions.subject_ids, len(predictions.class_names)
    )
    return dict(zip(subjects, balanced_accuracy(matrices).tolist(), strict=True))
