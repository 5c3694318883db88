from painseq.evaluation.baselines import Baseline, always_majority, baselines, majority_class
from painseq.evaluation.calibration import Calibration, calibrate, fit_temperature, with_temperature
from painseq.evaluation.counts import Counts
from painseq.evaluation.intervals import Difference, Interval, paired_difference, subject_bootstrap
from painseq.evaluation.metrics import STATISTICS, Scores, confusion_by_subject, confusion_matrix, scores_of
from painseq.evaluation.people import Person, SubjectRow, people_of, read_people
from painseq.evaluation.predictions import Predictions, read_predictions, read_truth
from painseq.evaluation.probability import ProbabilityScores, Reliability, probability_scores
from painseq.evaluation.published import PUBLISHED, Published, published_rows
from painseq.evaluation.score import Evaluation, score
from painseq.evaluation.subgroups import GroupDifference, Subgroup
from painseq.evaluation.tables import table
from painseq.evaluation.threshold import OperatingPoint, ThresholdComparison, choose_threshold

__all__ = [
    "PUBLISHED",
    "STATISTICS",
    "Baseline",
    "Calibration",
    "Counts",
    "Difference",
    "Evaluation",
    "GroupDifference",
    "Interval",
    "OperatingPoint",
    "Person",
    "Predictions",
    "ProbabilityScores",
    "Published",
    "Reliability",
    "Scores",
    "Subgroup",
    "SubjectRow",
    "ThresholdComparison",
    "always_majority",
    "baselines",
    "calibrate",
    "choose_threshold",
    "confusion_by_subject",
    "confusion_matrix",
    "fit_temperature",
    "majority_class",
    "paired_difference",
    "people_of",
    "probability_scores",
    "published_rows",
    "read_people",
    "read_predictions",
    "read_truth",
    "score",
    "scores_of",
    "subject_bootstrap",
    "table",
    "with_temperature",
]
