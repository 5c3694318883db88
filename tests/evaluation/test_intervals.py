import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.evaluation import STATISTICS, confusion_by_subject, paired_difference, subject_bootstrap
from painseq.evaluation.intervals import draw_subjects


def random_confusion(subjects: int, seed: int, k: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, size=(subjects, k, k)) + 3.0 * np.eye(k) * rng.random((subjects, 1, 1))


def test_intervals_are_those_of_a_loop_over_the_same_draws():
    confusion = random_confusion(7, seed=1)
    fast = subject_bootstrap(confusion, draws=200, seed=5)
    for name, statistic in STATISTICS.items():
        slow = []
        for times in draw_subjects(7, 200, seed=5):
            drawn = [subject for subject, n in enumerate(times) for _ in range(n)]
            assert len(drawn) == 7
            slow.append(float(statistic(np.sum([confusion[subject] for subject in drawn], axis=0))))
        assert (fast[name].low, fast[name].high) == pytest.approx(np.quantile(slow, [0.025, 0.975]))


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
    assert "8 subjects only" in subject_bootstrap(random_confusion(8, 0))["accuracy"].note
    assert subject_bootstrap(random_confusion(20, 0))["accuracy"].note is None
    for n in (0, 1):
        interval = subject_bootstrap(random_confusion(n, 0))["accuracy"]
        assert interval.low is None
        assert interval.high is None
        assert "at least 2 subjects" in interval.note


def test_draws_in_which_a_score_is_not_defined_are_told():
    # Each subject alone is of one class, so a draw of one subject only has no kappa.
    first, second = np.zeros((2, 2)), np.zeros((2, 2))
    first[0, 0] = second[1, 1] = 3
    interval = subject_bootstrap(np.stack([first, second]), ["quadratic_weighted_kappa"])["quadratic_weighted_kappa"]
    assert "not defined in" in interval.note


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
        assert ahead[name].interval.low > 0
        assert behind[name].value == pytest.approx(-ahead[name].value)
        assert behind[name].interval.high == pytest.approx(-ahead[name].interval.low)
    assert paired_difference(good, good)["accuracy"].interval.high == 0


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
    for other, word in (
        (predictions([0, 1, 1], [0, 1, 1]), "same clips"),
        (predictions([0, 0], [0, 1]), "truth"),
        (predictions([0, 1], [0, 1], class_names=("No Pain", "Pain")), "classes"),
    ):
        with pytest.raises(PainseqError, match=word):
            paired_difference(a, other)
