"""A tuned decision threshold for two classes: how it is chosen, and what it changes against 0.5. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.evaluation.predictions import Predictions

METRICS = ("weighted_f1", "balanced_accuracy", "sensitivity=SHARE")
SENSITIVITY = "sensitivity"

Floats = NDArray[np.float64]
Count = Floats | np.float64


@dataclass(frozen=True)
class OperatingPoint:
    """Scores of two classes at one threshold, where the second class counts as positive.

    Args:
        sensitivity: share of the clips of the second class that are recognised; None without such a clip.
        specificity: share of the clips of the first class that are recognised; None without such a clip.
        balanced_accuracy: mean recall of the classes in the truth.
        weighted_f1: mean F1 score of both classes, weighted by their numbers of clips.
    """

    sensitivity: float | None
    specificity: float | None
    balanced_accuracy: float
    weighted_f1: float

    def value(self, metric: str) -> float | None:
        """The score of a metric of `METRICS`."""
        found: float | None = getattr(self, metric.partition("=")[0])
        return found

    def to_dict(self) -> dict[str, float | None]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ThresholdComparison:
    """Scores at a tuned threshold beside those at 0.5, on the same clips.

    Args:
        thresholds: the distinct thresholds of the clips, sorted: several if the models of several folds are pooled.
        tuned: scores of the labels, which follow the tuned threshold.
        at_half: scores of labels at a probability of 0.5.
        clips: number of scored clips.
    """

    thresholds: tuple[float, ...]
    tuned: OperatingPoint
    at_half: OperatingPoint
    clips: int

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"thresholds": list(self.thresholds)}

    @property
    def shown(self) -> str:
        """The threshold as text; the range of several."""
        low, high = self.thresholds[0], self.thresholds[-1]
        return f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"


def check_metric(metric: str) -> float | None:
    """Check a metric of `METRICS`, and return the sensitivity that it demands, if any.

    Raises:
        PainseqError: another metric, or a share that is not above 0 and at most 1.
    """
    name, equals, share = metric.partition("=")
    if metric in METRICS[:2]:
        return None
    if name == SENSITIVITY and equals:
        try:
            wanted = float(share)
        except ValueError:
            wanted = 0.0
        if 0 < wanted <= 1:
            return wanted
    raise PainseqError(
        f"A threshold cannot be tuned for {metric!r}. Choose weighted_f1, balanced_accuracy, or a sensitivity to "
        "reach, such as sensitivity=0.9."
    )


def choose_threshold(truth: NDArray[np.int64], probability: Floats, metric: str) -> float:
    """Choose the threshold of the second class's probability; a probability equal to it counts as the second class.

    Candidates are the midpoints between neighbouring distinct probabilities. "weighted_f1" and "balanced_accuracy" are
    maximised; of equally good candidates the one closest to 0.5 is chosen. "sensitivity=0.9" takes the highest
    candidate with at least this sensitivity, or 0 if none has it.

    Args:
        truth: (n,) 0 or 1.
        probability: (n,) of the second class, of clips that were not fitted on.
        metric: one of `METRICS`.

    Raises:
        PainseqError: an unknown metric, a class without a clip, or probabilities that are all the same.

    Example:
        >>> choose_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.9]), "balanced_accuracy")
        0.25
    """
    wanted, positives = check_metric(metric), int(truth.sum())
    if not 0 < positives < len(truth):
        raise PainseqError(
            f"A threshold needs clips of both classes, but {positives} of the {len(truth)} clips with a prediction are "
            "of the second class. Choose other labels, or fit without a tuned threshold."
        )
    distinct = np.unique(probability)
    if len(distinct) < 2:
        raise PainseqError(
            f"All {len(truth)} out-of-fold probabilities are {distinct[0]:g}, so no threshold separates the clips. Fit "
            "without a tuned threshold."
        )
    middle = distinct[:-1] + (distinct[1:] - distinct[:-1]) / 2
    # Between neighbouring floats there is no number.
    candidates = np.where(middle > distinct[:-1], middle, distinct[1:])
    # The clips below each candidate, by class.
    below = [np.searchsorted(np.sort(probability[truth == k]), candidates).astype(np.float64) for k in (0, 1)]
    found, rejected = positives - below[1], below[0]
    if wanted is not None:
        enough = candidates[found / positives >= wanted]
        return float(enough[-1]) if len(enough) else 0.0
    scores = _scores(found, len(truth) - positives - rejected, below[1], rejected)[metric]
    best = candidates[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def operating_point(truth: NDArray[np.int64], positive: NDArray[np.bool_]) -> OperatingPoint:
    """Score labels of two classes.

    Args:
        truth: (n,) 0 or 1, n at least 1.
        positive: (n,) true where the second class is predicted.
    """
    second = truth == 1
    counts = (second & positive, ~second & positive, second & ~positive, ~second & ~positive)
    scores = _scores(*(np.float64(count.sum()) for count in counts))
    sensitivity, specificity = (
        None if np.isnan(scores[name]) else float(scores[name]) for name in ("sensitivity", "specificity")
    )
    return OperatingPoint(
        sensitivity,
        specificity,
        balanced_accuracy=float(scores["balanced_accuracy"]),
        weighted_f1=float(scores["weighted_f1"]),
    )


@dataclass(frozen=True)
class SideBySide:
    """Scores of several models of two classes on the same clips.

    Args:
        points: model -> threshold, as text -> scores: at the tuned threshold and at 0.5 of a model that has one, and of
            the labels as they are of others.
        clips: number of scored clips.
    """

    points: Mapping[str, Mapping[str, OperatingPoint]]
    clips: int

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)


def side_by_side(models: Mapping[str, Predictions]) -> SideBySide | None:
    """Score models of two classes on the clips that all of them have a prediction for.

    Args:
        models: name -> predictions, with the same truth for the same clip.

    Returns:
        None if there are not two classes, the same and in the same known order for all, or no such clip.
    """
    classes = {predictions.class_names for predictions in models.values()}
    in_order = all(predictions.order_known for predictions in models.values())
    if not in_order or len(classes) != 1 or len(next(iter(classes))) != 2:
        return None
    scored = [set(np.array(each.clip_ids, object)[each.scored]) for each in models.values()]
    shared = set.intersection(*scored)
    if not shared:
        return None
    points = {}
    for name, predictions in models.items():
        common = predictions.only([row for row, clip in enumerate(predictions.clip_ids) if clip in shared])
        tuned = compare_thresholds(common)
        points[name] = (
            {"none tuned": operating_point(common.truth, common.label == 1)}
            if tuned is None
            else {f"tuned: {tuned.shown}": tuned.tuned, "0.5": tuned.at_half}
        )
    return SideBySide(points, len(shared))


def compare_thresholds(*runs: Predictions) -> ThresholdComparison | None:
    """Compare the labels of a tuned threshold with those at 0.5; None if no scored clip has a threshold.

    Args:
        runs: predictions of one or several models; the clips of all are counted.
    """
    thresholds, truths, labels, probabilities = [], [], [], []
    for predictions in runs:
        if predictions.threshold is not None:
            known = ~np.isnan(predictions.threshold) & ~np.isnan(predictions.probabilities).any(axis=1)
            scored = predictions.scored & known
            thresholds.append(predictions.threshold[scored])
            truths.append(predictions.truth[scored])
            labels.append(predictions.label[scored])
            probabilities.append(predictions.probabilities[scored, 1])
    if not sum(map(len, truths)):
        return None
    truth = np.concatenate(truths)
    return ThresholdComparison(
        thresholds=tuple(np.unique(np.concatenate(thresholds)).tolist()),
        tuned=operating_point(truth, np.concatenate(labels) == 1),
        at_half=operating_point(truth, np.concatenate(probabilities) >= 0.5),
        clips=len(truth),
    )


def _scores(hits: Count, false_alarms: Count, misses: Count, rejected: Count) -> dict[str, Floats]:
    """Scores from the counts of the four outcomes, as scikit-learn defines them; NaN without a clip of a class."""
    sensitivity, specificity = _share(hits, hits + misses), _share(rejected, rejected + false_alarms)
    errors = false_alarms + misses
    f1 = [np.nan_to_num(_share(2 * right, 2 * right + errors)) for right in (rejected, hits)]
    sizes = [rejected + false_alarms, hits + misses]
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": np.nanmean(np.stack([sensitivity, specificity]), axis=0),
        "weighted_f1": (f1[0] * sizes[0] + f1[1] * sizes[1]) / (sizes[0] + sizes[1]),
    }


def _share(part: Count, whole: Count) -> Floats:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    share: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return share
