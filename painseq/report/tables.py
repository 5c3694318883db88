"""Functions that the page's templates call to fill their tables."""

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
    """Escape a text as HTML, with a frame around the word LEAKY, which is visible without colour too."""
    return escape(text).replace("LEAKY", Markup('<strong class="leaky">LEAKY</strong>'))


def text_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Whether each column has texts, not only numbers."""
    return [not all(_numeric(cell) for cell in column) for column in zip(*rows, strict=True)]


def _numeric(cell: str) -> bool:
    """Whether a cell is empty or begins with a number."""
    return cell in ("", "–") or cell.lstrip("+-−")[:1].isdigit()


def number_and_brackets(cell: str) -> tuple[str, str]:
    """Split a cell into a number and the text in brackets after it, such as its interval; "" without brackets."""
    value, _, bracket = cell.partition(" (")
    return (value, bracket[:-1]) if bracket.endswith(")") else (cell, "")


def span(interval: Interval | None) -> str:
    """Format an interval for the line below its score."""
    if interval is None or interval.low is None or interval.high is None:
        return "no interval"
    # Subjects without differences do not show how much others would vary.
    if interval.low == interval.high:
        return "zero width"
    return f"{number(interval.low)} to {number(interval.high)}"


def chance(evaluation: Evaluation) -> float | None:
    """Balanced accuracy of guessing; None without this baseline."""
    return next((b.scores.balanced_accuracy for b in evaluation.baselines if b.name == "chance"), None)


def scores_by_classes(evaluations: Mapping[str, Evaluation]) -> dict[tuple[str, ...], dict[str, Scores]]:
    """Group the models' scores by class names: class names -> model name -> scores."""
    groups: dict[tuple[str, ...], dict[str, Scores]] = {}
    for model, evaluation in evaluations.items():
        groups.setdefault(evaluation.scores.class_names, {})[model] = evaluation.scores
    return groups


def shade_of_share(share: float) -> tuple[str, str]:
    """Background and text colour of a cell, from white to dark, so that greyscale keeps the order."""
    red, green, blue = (round(255 + share * (dark - 255)) for dark in (12, 52, 92))
    return f"rgb({red},{green},{blue})", readable((red / 255, green / 255, blue / 255))


def as_printed(value: float) -> str:
    """Format a published figure with at least two decimals."""
    return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"


@dataclass(frozen=True)
class SubjectScores:
    """Balanced accuracy of a model's subjects.

    Args:
        model: name of the model.
        scores: subject id -> balanced accuracy; not empty.
        chance: balanced accuracy of guessing; None if not known.
    """

    model: str
    scores: Mapping[str, float]
    chance: float | None

    @property
    def lowest(self) -> float:
        """Lowest score of a subject."""
        return min(self.scores.values())

    @property
    def median(self) -> float:
        """Median score of the subjects."""
        return median(self.scores.values())

    @property
    def highest(self) -> float:
        """Highest score of a subject."""
        return max(self.scores.values())

    @property
    def at_or_below_chance(self) -> int:
        """Number of subjects at or below chance; 0 if chance is not known."""
        return 0 if self.chance is None else sum(value <= self.chance + 1e-9 for value in self.scores.values())


def subject_score_rows(
    evaluations: Mapping[str, Evaluation], predictions: Mapping[str, Predictions]
) -> list[SubjectScores]:
    """One row per model with at least one scored clip."""
    rows = [
        SubjectScores(model, subject_scores(predicted), chance(evaluations[model]) if model in evaluations else None)
        for model, predicted in predictions.items()
    ]
    return [row for row in rows if row.scores]


def subject_scores(predictions: Predictions) -> dict[str, float]:
    """Balanced accuracy of each subject with a scored clip, over the classes that the subject has."""
    subjects, matrices = confusion_by_subject(
        predictions.truth, predictions.label, predictions.subject_ids, len(predictions.class_names)
    )
    return dict(zip(subjects, balanced_accuracy(matrices).tolist(), strict=True))
