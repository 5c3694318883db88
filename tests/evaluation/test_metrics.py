"""Every score against scikit-learn, on random input and on what divides by nothing."""

import warnings

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from painseq.evaluation import confusion_by_subject, confusion_matrix, scores_of
from painseq.evaluation.metrics import STATISTICS


@st.composite
def labelled(draw):
    """Truth and labels of K classes, with classes that do not occur and never are predicted."""
    k = draw(st.integers(2, 5))
    pairs = draw(st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=40))
    truth, label = np.array(pairs, np.int64).T
    return truth, label, k


@given(labelled())
@example((np.array([1, 1, 1]), np.array([1, 1, 1]), 3))
@example((np.array([1, 1, 1]), np.array([2, 2, 2]), 3))
@example((np.array([0, 1, 2]), np.array([0, 0, 0]), 3))
@example((np.array([0]), np.array([0]), 2))
@settings(max_examples=150, deadline=None)
def test_scores_are_those_of_scikit_learn(case):
    truth, label, k = case
    classes = list(range(k))
    scores = scores_of(confusion_matrix(truth, label, k), [f"class {i}" for i in classes])

    assert np.array_equal(scores.confusion, reference.confusion_matrix(truth, label, labels=classes))
    assert scores.accuracy == pytest.approx(reference.accuracy_score(truth, label))
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        truth, label, labels=classes, zero_division=0
    )
    assert scores.mean_absolute_error == pytest.approx(reference.mean_absolute_error(truth, label))
    assert scores.precision == pytest.approx(precision)
    assert scores.recall == pytest.approx(recall)
    assert scores.f1 == pytest.approx(f1)
    assert scores.support == tuple(support)
    macro = reference.precision_recall_fscore_support(truth, label, average="macro", zero_division=0)
    assert (scores.macro_precision, scores.macro_recall, scores.macro_f1) == pytest.approx(macro[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert scores.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(truth, label))
        kappa = reference.cohen_kappa_score(truth, label, labels=classes, weights="quadratic")
    if len({*truth, *label}) == 1:
        assert scores.quadratic_weighted_kappa is None
        assert set(scores.undefined) == {"quadratic_weighted_kappa"} and all(scores.undefined.values())
    else:
        assert scores.quadratic_weighted_kappa == pytest.approx(kappa, abs=1e-12)
        assert not scores.undefined


def test_no_clip_gives_no_score_but_a_reason():
    scores = scores_of(np.zeros((3, 3)), ["a", "b", "c"])
    assert all(scores.value(name) is None for name in STATISTICS)
    assert scores.undefined["accuracy"]
    assert scores.recall == (0.0, 0.0, 0.0)


def test_without_an_order_of_the_classes_there_is_no_kappa_and_no_error():
    scores = scores_of(np.eye(3) * 4, ["a", "b", "c"], order_known=False)
    assert scores.accuracy == 1
    assert scores.quadratic_weighted_kappa is None
    assert scores.mean_absolute_error is None
    for name in ("quadratic_weighted_kappa", "mean_absolute_error"):
        assert "order" in scores.undefined[name]


def test_leading_axes_are_scored_one_by_one():
    many = np.random.default_rng(0).integers(0, 6, size=(4, 5, 3, 3)).astype(float)
    for statistic in STATISTICS.values():
        together = statistic(many)
        assert together.shape == (4, 5)
        assert together[2, 3] == pytest.approx(float(statistic(many[2, 3])))


def test_clips_without_truth_or_label_are_not_in_the_matrix():
    truth, label = np.array([0, 1, -1, 1]), np.array([0, -1, 1, 0])
    assert confusion_matrix(truth, label, 2).tolist() == [[1, 0], [1, 0]]
    subjects, matrices = confusion_by_subject(truth, label, ["b", "only missing", "only hidden", "a"], 2)
    assert subjects == ("a", "b")
    assert matrices.tolist() == [[[0, 0], [1, 0]], [[1, 0], [0, 0]]]
