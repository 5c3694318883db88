import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from painseq.errors import PainseqError
from painseq.evaluation import STATISTICS, confusion_by_subject, paired_difference, subject_bootstrap
from painseq.evaluation.intervals import (
    BOOTSTRAP,
    MEANS,
    STUDENT_T,
    bootstrap_interval,
    confusion_intervals,
    draw_subjects,
    mean_interval,
)
from painseq.evaluation.metrics import LOWER_IS_BETTER


def random_confusion(subjects: int, seed: int, k: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, size=(subjects, k, k)) + 3.0 * np.eye(k) * rng.random((subjects, 1, 1))


def balanced_confusion(subjects: int, seed: int, clips=(4, 6, 6)) -> np.ndarray:
    """The same clips of each class in every subject; skill differs."""
    rng = np.random.default_rng(seed)
    chances = 0.7 * rng.dirichlet(np.ones(3), (subjects, 3)) + 0.3 * np.eye(3)
    return np.stack([[rng.multinomial(n, p) for n, p in zip(clips, rows, strict=True)] for rows in chances]).astype(
        float
    )


def expanded(subjects: int) -> list[float]:
    """The percentiles of Hesterberg 2015, by scipy.stats."""
    tail = stats.norm.cdf(np.sqrt(subjects / (subjects - 1)) * stats.t.ppf(0.025, subjects - 1))
    return [tail, 1 - tail]


def test_intervals_are_those_of_a_loop_over_the_same_draws():
    confusion = random_confusion(7, seed=1)
    fast = subject_bootstrap(confusion, draws=200, seed=5)
    for name, statistic in STATISTICS.items():
        slow = []
        for times in draw_subjects(7, 200, seed=5):
            drawn = [subject for subject, n in enumerate(times) for _ in range(n)]
            assert len(drawn) == 7
            slow.append(float(statistic(np.sum([confusion[subject] for subject in drawn], axis=0))))
        assert (fast[name].low, fast[name].high) == pytest.approx(np.quantile(slow, expanded(7)))
        assert fast[name].method == BOOTSTRAP


@given(st.integers(5, 30), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_interval_holds_the_score(subjects, seed):
    confusion = random_confusion(subjects, seed)
    for name, interval in subject_bootstrap(confusion, draws=500, seed=seed).items():
        assert interval.low <= float(STATISTICS[name](confusion.sum(0))) <= interval.high


def test_subjects_are_resampled_and_not_clips():
    # 400 clips, but two kinds of subject: all right or all wrong. Clips would give about +-0.05.
    right, wrong = np.diag([50.0, 50.0]), np.array([[0.0, 50.0], [50.0, 0.0]])
    interval = subject_bootstrap(np.stack([right, right, wrong, wrong]), ["accuracy"])["accuracy"]
    assert (interval.low, interval.high) == (0.0, 1.0)
    # The same clips spread evenly: the subjects do not differ at all.
    interval = subject_bootstrap(np.stack([(right + wrong) / 2] * 4), ["accuracy"])["accuracy"]
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_few_subjects_are_warned_of_and_one_has_no_interval():
    assert "8" in subject_bootstrap(random_confusion(8, 0))["accuracy"].note
    assert subject_bootstrap(random_confusion(20, 0))["accuracy"].note is None
    for n in (0, 1):
        interval = subject_bootstrap(random_confusion(n, 0))["accuracy"]
        assert interval.low is None
        assert interval.high is None
        assert "2" in interval.note


def test_draws_in_which_a_score_is_not_defined_are_told():
    # Each subject alone is of one class, so a draw of one subject only has no kappa.
    first, second = np.zeros((2, 2)), np.zeros((2, 2))
    first[0, 0] = second[1, 1] = 3
    interval = subject_bootstrap(np.stack([first, second]), ["quadratic_weighted_kappa"])["quadratic_weighted_kappa"]
    assert re.search(r"\d+ of \d+", interval.note)


def test_draws_that_are_mostly_undefined_give_no_interval():
    def mostly_nan(times):
        values = times[:, 0].astype(float)
        values[values < 2] = np.nan
        return values

    interval = bootstrap_interval(mostly_nan, 5)
    assert (interval.low, interval.high) == (None, None)
    assert re.search(r"\d+ of \d+", interval.note)
    assert bootstrap_interval(lambda times: np.full(len(times), np.nan), 5).low is None


def test_the_bootstrap_is_that_of_scipy_at_its_wider_level():
    values = np.random.default_rng(0).gamma(2, 1, 15)
    found = bootstrap_interval(lambda times: times @ values / 15, 15, draws=20_000)
    low, high = expanded(15)
    reference = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=high - low,
        n_resamples=20_000,
        method="percentile",
        random_state=np.random.default_rng(1),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=0.02)


def test_student_t_is_that_of_scipy():
    values = np.random.default_rng(0).random(30)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 29, values.mean(), stats.sem(values)))
    assert (found.subjects, found.method, found.note) == (30, STUDENT_T, None)
    with_gap = mean_interval(np.append(values, np.nan))
    assert (with_gap.low, with_gap.high, with_gap.subjects) == (found.low, found.high, 30)
    assert re.findall(r"\d+", with_gap.note) == ["1"]


def test_student_t_is_cut_off_at_the_ends_of_the_score():
    interval = mean_interval(np.array([1.0, 1.0, 0.9, 1.0, 0.6]), (0, 1))
    assert interval.high == 1
    assert 0 < interval.low < 0.9
    assert (mean_interval(np.array([0.0, 1.0]), (0, 1)).low, mean_interval(np.array([0.0, 1.0])).low < 0) == (0, True)


def test_no_student_t_of_one_subject_or_none():
    for values in (np.array([]), np.array([0.5]), np.array([0.5, np.nan])):
        interval = mean_interval(values)
        assert (interval.low, interval.high, interval.method) == (None, None, STUDENT_T)
        assert "2" in interval.note


def test_subjects_who_do_not_differ_are_told():
    right = np.tile(np.diag([4.0, 4.0, 4.0]), (25, 1, 1))
    for interval in (confusion_intervals(right) | {"drawn": subject_bootstrap(right)["accuracy"]}).values():
        assert interval.low == interval.high
        assert "width" in interval.note


def test_balanced_clips_have_students_t_where_the_score_is_a_mean():
    confusion = balanced_confusion(22, 1)
    found = confusion_intervals(confusion)
    assert list(found) == list(STATISTICS)
    for name, statistic in STATISTICS.items():
        if name not in MEANS:
            assert found[name] == subject_bootstrap(confusion, [name])[name]
            continue
        own = np.array([float(statistic(matrix)) for matrix in confusion])
        # What makes it right: the score of all clips is the mean of the subjects'.
        assert own.mean() == pytest.approx(float(statistic(confusion.sum(0))))
        assert found[name].method == STUDENT_T
        assert (found[name].low, found[name].high) == pytest.approx(
            stats.t.interval(0.95, 21, own.mean(), stats.sem(own))
        )


def test_one_clip_less_and_subjects_are_drawn():
    confusion = balanced_confusion(22, 1)
    confusion[3, 0] -= np.eye(3)[confusion[3, 0].argmax()]
    assert {interval.method for interval in confusion_intervals(confusion).values()} == {BOOTSTRAP}
    assert confusion_intervals(confusion) == subject_bootstrap(confusion)


def test_both_ways_agree_with_many_subjects():
    confusion = balanced_confusion(200, 2)
    t, drawn = confusion_intervals(confusion), subject_bootstrap(confusion, draws=5_000)
    for name in MEANS:
        assert (t[name].low, t[name].high) == pytest.approx((drawn[name].low, drawn[name].high), abs=0.005)


@given(st.integers(0, 12), st.integers(0, 10_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_interval_leaves_the_range_of_its_score(subjects, seed, one_class):
    confusion = (
        balanced_confusion(subjects, seed, (3, 0, 0) if one_class else (1, 2, 2)) if subjects else np.zeros((0, 3, 3))
    )
    for name, interval in confusion_intervals(confusion).items():
        lowest, highest = {"quadratic_weighted_kappa": (-1, 1), "mean_absolute_error": (0, 2)}.get(name, (0, 1))
        assert interval.subjects == subjects
        if interval.low is None:
            assert interval.note
        else:
            assert lowest <= interval.low <= interval.high <= highest


def test_draws_in_blocks_are_those_at_once(monkeypatch):
    confusion = random_confusion(30, 0)
    whole = draw_subjects(30, 100, 4), subject_bootstrap(confusion, draws=100, seed=4)
    monkeypatch.setattr("painseq.evaluation.intervals.CELLS_AT_ONCE", 30 * 7)
    np.testing.assert_array_equal(draw_subjects(30, 100, 4), whole[0])
    for name, interval in subject_bootstrap(confusion, draws=100, seed=4).items():
        assert (interval.low, interval.high) == pytest.approx((whole[1][name].low, whole[1][name].high), abs=1e-12)


def test_the_same_seed_gives_the_same_interval():
    confusion = random_confusion(9, 3)
    assert subject_bootstrap(confusion, seed=1) == subject_bootstrap(confusion, seed=1)
    assert subject_bootstrap(confusion, seed=1) != subject_bootstrap(confusion, seed=2)


@pytest.fixture
def two_models(predictions):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 240)
    subjects = [f"s{i % 24:02d}" for i in range(240)]
    good = np.where(rng.random(240) < 0.7, truth, rng.integers(0, 3, 240))
    poor = np.where(rng.random(240) < 0.2, truth, rng.integers(0, 3, 240))
    return predictions(list(truth), list(good), subjects), predictions(list(truth), list(poor), subjects)


def test_a_paired_difference_has_the_sign_of_the_better_model(two_models):
    good, poor = two_models
    ahead, behind = paired_difference(good, poor), paired_difference(poor, good)
    for name in STATISTICS:
        interval = ahead[name].interval
        assert interval.high < 0 if name in LOWER_IS_BETTER else interval.low > 0
        assert behind[name].value == pytest.approx(-ahead[name].value)
        assert behind[name].interval.high == pytest.approx(-ahead[name].interval.low)
    assert paired_difference(good, good)["accuracy"].interval.high == 0


def test_a_paired_difference_of_balanced_clips_is_the_paired_t_test(predictions):
    rng = np.random.default_rng(0)
    truth, subjects = np.tile([0, 1, 2, 2], 30), [f"s{i:02d}" for i in np.repeat(np.arange(30), 4)]
    labels = [np.where(rng.random(120) < share, truth, rng.integers(0, 3, 120)) for share in (0.6, 0.4)]
    first, second = (predictions(list(truth), list(label), subjects) for label in labels)
    difference = paired_difference(first, second)
    right = [(label == truth).reshape(30, 4).mean(1) for label in labels]
    expected = stats.ttest_rel(*right).confidence_interval(0.95)
    interval = difference["accuracy"].interval
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert {name: each.interval.method for name, each in difference.items()} == {
        name: STUDENT_T if name in MEANS else BOOTSTRAP for name in STATISTICS
    }
    fewer = [each.only(np.arange(119)) for each in (first, second)]
    drawn = paired_difference(*fewer)["accuracy"].interval
    assert drawn.method == BOOTSTRAP
    assert (drawn.low, drawn.high) == pytest.approx((interval.low, interval.high), abs=0.03)


def test_a_paired_difference_of_two_subjects_stays_in_its_range(predictions):
    truth, subjects = [0, 1, 2, 0, 1, 2], ["a"] * 3 + ["b"] * 3
    right, half = predictions(truth, truth, subjects), predictions(truth, [*truth[:3], 2, 0, 1], subjects)
    for name, difference in paired_difference(right, half).items():
        reach = {"quadratic_weighted_kappa": 2, "mean_absolute_error": 2}.get(name, 1)
        assert -reach <= difference.interval.low <= difference.interval.high <= reach


def test_pairing_is_by_clip_whatever_the_order(two_models):
    good, poor = two_models
    shuffled = poor.only(np.random.default_rng(1).permutation(len(poor)))
    assert paired_difference(good, shuffled) == paired_difference(good, poor)


def test_pairing_is_narrower_than_two_separate_intervals_where_subjects_differ(predictions):
    # Subjects differ a lot, the models differ by one clip in each.
    truth, first, second, subjects = [], [], [], []
    for s in range(24):
        for i in range(12):
            right = i < s // 2
            truth.append(i % 3)
            first.append(i % 3 if right else (i + 1) % 3)
            second.append(i % 3 if right and i > 0 else (i + 1) % 3)
            subjects.append(f"s{s}")
    difference = paired_difference(
        predictions(truth, first, subjects), predictions(truth, second, subjects), ["accuracy"]
    )["accuracy"]
    _, matrices = confusion_by_subject(np.array(truth), np.array(first), subjects, 3)
    alone = subject_bootstrap(matrices, ["accuracy"])["accuracy"]
    assert difference.interval.low > 0
    assert difference.interval.high - difference.interval.low < (alone.high - alone.low) / 4


def test_a_clip_that_one_model_did_not_predict_counts_for_neither(predictions):
    subjects = ["a", "a", "b", "b"]
    first, second = (
        predictions([0, 1, 0, 1], [0, 1, 0, 1], subjects),
        predictions([0, 1, 0, 1], [0, -1, 0, 0], subjects),
    )
    difference = paired_difference(first, second, ["accuracy"])["accuracy"]
    assert (difference.first, difference.second) == (1.0, pytest.approx(2 / 3))


def test_what_cannot_be_paired_is_refused(predictions):
    a = predictions([0, 1], [0, 1])
    for other, told in (
        (predictions([0, 1, 1], [0, 1, 1]), "'clip2'"),
        (predictions([0, 0], [0, 1]), "truth"),
        (predictions([0, 1], [0, 1], class_names=("No Pain", "Pain")), "No Pain, Low Pain, High Pain.*No Pain, Pain"),
    ):
        with pytest.raises(PainseqError, match=f"(?s){told}"):
            paired_difference(a, other)
