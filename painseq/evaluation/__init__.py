from painseq.evaluation.baselines import Baseline, always_majority, baselines, majority_class
from painseq.evaluation.intervals import Difference, Interval, paired_difference, subject_bootstrap
from painseq.evaluation.metrics import STATISTICS, Scores, confusion_by_subject, confusion_matrix, scores_of
from painseq.evaluation.predictions import Predictions, read_predictions, read_truth
from painseq.evaluation.published import PUBLISHED, Published, published_rows
from painseq.evaluation.score import Counts, Evaluation, score, table

__all__ = [
    "PUBLISHED",
    "STATISTICS",
    "Baseline",
    "Counts",
    "Difference",
    "Evaluation",
    "Interval",
    "Predictions",
    "Published",
    "Scores",
    "always_majority",
    "baselines",
    "confusion_by_subject",
    "confusion_matrix",
    "majority_class",
    "paired_difference",
    "published_rows",
    "read_predictions",
    "read_truth",
    "score",
    "scores_of",
    "subject_bootstrap",
    "table",
]
