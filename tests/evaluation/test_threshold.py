"""A tuned threshold of two classes: how it is chosen, against scikit-learn, and its scores beside those of 0.5."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from painseq.errors import PainseqError
from painseq.evaluation import choose_threshold, read_predictions, score, with_temperature
from painseq.evaluation.predictions import joined
from painseq.evaluation.threshold import compare_thresholds, operating_point
from painseq.studies.crossval_report import pooled

SCORES = {
    "weighted_f1": lambda truth, label: f1_score(truth, label, average="weighted", zero_division=0.0),
    "balanced_accuracy": balanced_accuracy_score,
}
NAMES = ("No Pain", "Pain")


@st.composite
def rated(draw):
    """Truth and probabilities with ties, of both classes."""
    n = draw(st.integers(2, 25))
    truth = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), np.int64)
    steps = st.sampled_from([float(np.float32(step / 10)) for step in range(11)])
    probability = draw(arrays(np.float64, n, elements=steps | st.floats(0, 1, width=32)))
    assume(0 < truth.sum() < n and len(np.unique(probability)) > 1)
    return truth, probability


def candidates(probability):
    distinct = np.unique(probability)
    return distinct[:-1] + (distinct[1:] - distinct[:-1]) / 2


@pytest.mark.parametrize("metric", SCORES)
@given(clips=rated())
def test_no_midpoint_scores_more_in_scikit_learn(metric, clips):
    truth, probability = clips
    chosen = choose_threshold(truth, probability, metric)
    reached = SCORES[metric](truth, (probability >= chosen).astype(int))
    scores = [SCORES[metric](truth, (probability >= value).astype(int)) for value in candidates(probability)]
    assert reached == pytest.approx(max(scores), abs=1e-9)
    equal = [value for value, found in zip(candidates(probability), scores, strict=True) if found > reached - 1e-12]
    assert abs(chosen - 0.5) <= min(abs(value - 0.5) for value in equal) + 1e-12


@given(clips=rated(), wanted=st.sampled_from([0.1, 0.5, 0.7, 0.9, 1.0]))
def test_a_sensitivity_is_reached_at_the_highest_midpoint(clips, wanted):
    truth, probability = clips
    chosen = choose_threshold(truth, probability, f"sensitivity={wanted}")
    assert recall_score(truth, probability >= chosen) >= wanted
    higher = [value for value in candidates(probability) if value > chosen]
    assert all(recall_score(truth, probability >= value) < wanted for value in higher)
    assert chosen == 0 or (candidates(probability) == chosen).any()


@given(clips=rated(), threshold=st.floats(0, 1))
def test_an_operating_point_is_that_of_scikit_learn(clips, threshold):
    truth, label = clips[0], clips[1] >= threshold
    point = operating_point(truth, label)
    assert point.sensitivity == pytest.approx(recall_score(truth, label))
    assert point.specificity == pytest.approx(recall_score(truth, label, pos_label=0))
    assert point.balanced_accuracy == pytest.approx(SCORES["balanced_accuracy"](truth, label))
    assert point.weighted_f1 == pytest.approx(SCORES["weighted_f1"](truth, label))


def test_neighbouring_floats_and_ties_are_told_apart():
    low, high = 0.5, float(np.nextafter(0.5, 1))
    truth = np.array([0, 1, 1])
    chosen = choose_threshold(truth, np.array([low, high, high]), "balanced_accuracy")
    assert low < chosen <= high
    assert operating_point(np.array([1, 1]), np.array([True, False])).specificity is None


@pytest.mark.parametrize(
    ("truth", "probability", "metric", "named"),
    [
        ([0, 1], [0.2, 0.8], "accuracy", "accuracy"),
        ([0, 1], [0.2, 0.8], "sensitivity", "sensitivity"),
        ([0, 1], [0.2, 0.8], "sensitivity=1.5", "1.5"),
        ([0, 1], [0.2, 0.8], "sensitivity=high", "high"),
        ([1, 1], [0.2, 0.8], "weighted_f1", "2 of the 2"),
        ([0, 1], [0.3, 0.3], "weighted_f1", "0.3"),
    ],
)
def test_what_gives_no_threshold_is_an_error(truth, probability, metric, named):
    with pytest.raises(PainseqError, match=named):
        choose_threshold(np.array(truth), np.array(probability), metric)


@pytest.fixture
def tuned(predictions):
    """Six clips whose labels follow the threshold 0.3; one has no prediction."""
    pain = np.array([0.1, 0.35, 0.3, 0.6, 0.2, np.nan])
    label = np.where(np.isnan(pain), -1, pain >= 0.3).astype(int).tolist()
    made = predictions([0, 0, 1, 1, 1, 0], label, class_names=NAMES)
    return replace(made, probabilities=np.stack([1 - pain, pain], axis=1), threshold=np.full(6, 0.3))


def test_scores_at_the_threshold_stand_beside_those_at_one_half(tuned):
    evaluation = score(tuned)
    compared = evaluation.threshold
    assert (compared.thresholds, compared.clips) == ((0.3,), 5)
    assert (compared.tuned.sensitivity, compared.tuned.specificity) == pytest.approx((2 / 3, 1 / 2))
    assert (compared.at_half.sensitivity, compared.at_half.specificity) == pytest.approx((1 / 3, 1))
    assert compared.tuned.balanced_accuracy == pytest.approx(evaluation.scores.balanced_accuracy)
    assert evaluation.to_dict()["threshold"]["at_half"]["specificity"] == 1
    assert score(replace(tuned, threshold=None)).threshold is None


def test_the_file_and_pooled_folds_keep_each_clips_threshold(tuned, tmp_path):
    tuned.write_csv(tmp_path / "predictions.csv")
    read = read_predictions(tmp_path / "predictions.csv")
    assert read.threshold == pytest.approx(tuned.threshold, abs=0)
    other = replace(tuned, clip_ids=tuple(f"{name}b" for name in tuned.clip_ids), threshold=np.full(6, 0.6))
    for whole in (joined([read, other]), pooled([read, other])):
        assert whole.threshold.tolist() == [0.3] * 6 + [0.6] * 6
        assert compare_thresholds(whole).thresholds == (0.3, 0.6)
    assert read.only([1]).threshold.tolist() == [0.3]
    replace(tuned, threshold=None).write_csv(tmp_path / "plain.csv")
    assert "tuned" not in (tmp_path / "plain.csv").read_text()


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_a_temperature_scales_the_threshold_and_changes_no_label(tuned, temperature):
    scaled = with_temperature(tuned, temperature)
    assert scaled.label.tolist() == tuned.label.tolist()
    assert scaled.threshold[0] != pytest.approx(0.3, abs=0.01)
    known = tuned.predicted & (tuned.probabilities[:, 1] != 0.3)
    assert ((scaled.probabilities[:, 1] >= scaled.threshold)[known] == (tuned.label == 1)[known]).all()
    assert compare_thresholds(scaled).at_half == compare_thresholds(tuned).at_half
