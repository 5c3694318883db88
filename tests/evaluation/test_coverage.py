"""benchmarks/coverage.py: its truth, scores and methods against others; coverage itself takes too long."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from painseq.evaluation.intervals import mean_interval


@pytest.fixture
def coverage(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("coverage")


@pytest.fixture
def clips(coverage):
    rng = np.random.default_rng(0)
    return coverage.study(coverage.uneven(12, rng), coverage.ORDINARY, rng)


def test_auroc_by_pairs_of_subjects_is_that_of_scikit_learn(coverage, clips):
    times = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=5)
    for row, found in zip(times, coverage.auroc(clips)(times), strict=True):
        drawn = np.repeat(np.arange(len(clips.truth)), row[clips.subject])
        expected = roc_auc_score(clips.truth[drawn], clips.score[drawn], multi_class="ovr")
        assert found == pytest.approx(expected, abs=1e-9)


def test_bca_is_that_of_scipy(coverage):
    values = np.random.default_rng(2).gamma(1, 1, 25)
    drawn = coverage.draw_subjects(25, 20_000, 0) @ values / 25
    left_out = (values.sum() - values) / 24
    low, high = coverage.bca(drawn, left_out, values.mean(), widen=False)
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", random_state=np.random.default_rng(3)
    ).confidence_interval
    assert (low, high) == pytest.approx((reference.low, reference.high), rel=0.03)


def test_the_jackknife_of_a_mean_is_students_t(coverage):
    values = np.random.default_rng(4).random(9)
    low, high = coverage.jackknife((values.sum() - values) / 8, values.mean())
    expected = mean_interval(values)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_clips_as_if_independent_make_the_narrowest_intervals(coverage):
    design = next(iter(coverage.DESIGNS))
    truth = coverage.true_values(design, coverage.ORDINARY, 10_000)
    cells = coverage.measure(design, 20, 8, coverage.ORDINARY, truth)
    for name in coverage.TITLES:
        assert cells[design, name, coverage.CLIPS, 20][1] < 0.7 * cells[design, name, coverage.DEFAULT, 20][1]


@pytest.mark.parametrize("design", [1, 2])
def test_the_truth_is_that_of_a_large_study(coverage, design):
    name = list(coverage.DESIGNS)[design]
    truth, rng = coverage.true_values(name, coverage.GOOD, 100_000), np.random.default_rng(5)
    large = coverage.study(coverage.DESIGNS[name](5_000, rng), coverage.GOOD, rng)
    for score in ("accuracy", "balanced_accuracy", "macro_f1", "quadratic_weighted_kappa"):
        assert float(coverage.STATISTICS[score](large.confusion.sum(0))) == pytest.approx(truth[score], abs=0.02)
    assert roc_auc_score(large.truth, large.score, multi_class="ovr") == pytest.approx(truth["auroc"], abs=0.02)
