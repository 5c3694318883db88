"""Two models on the same people: tests against SciPy, scikit-learn and exhaustive loops."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score, mean_absolute_error

from painseq.errors import PainseqError
from painseq.evaluation import paired_difference
from painseq.evaluation.comparison import Pair, compare, holm, permutation_test, wilcoxon_test
from painseq.evaluation.intervals import Difference, Interval
from painseq.evaluation.metrics import STATISTICS, accuracy, balanced_accuracy, quadratic_weighted_kappa
from painseq.evaluation.value_predictions import ValuePredictions


def numbers(text: str) -> list[str]:
    return re.findall(r"[0-9]+(?:\.[0-9]+)?", text)


@pytest.fixture
def two(predictions):
    """Makes two models on random clips: the first right in a share of them, the second in another."""

    def make(subjects=8, clips=12, right=(0.8, 0.4), seed=0, balanced=True):
        rng = np.random.default_rng(seed)
        truth = np.tile(np.arange(clips) % 3, subjects) if balanced else rng.integers(0, 3, subjects * clips)
        names = [f"p{s}" for s in range(subjects) for _ in range(clips)]
        labels = [np.where(rng.random(len(truth)) < share, truth, rng.integers(0, 3, len(truth))) for share in right]
        return [predictions(truth.tolist(), label.tolist(), names) for label in labels]

    return make


def on_a_scale(truth, value, subjects, scale="pspi"):
    n = len(truth)
    frames, faceless = np.full(n, 10, np.int64), np.zeros(n, np.int64)
    ids = tuple(f"clip{i}" for i in range(n))
    return ValuePredictions(
        scale, ids, tuple(subjects), np.array(truth, float), np.array(value, float), frames, faceless
    )


# Wilcoxon


@pytest.mark.parametrize("subjects", [6, 12, 40, 87])
def test_wilcoxon_is_scipys(subjects):
    differences = np.random.default_rng(subjects).normal(0.1, 0.2, subjects)
    assert wilcoxon_test(differences).p == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_wilcoxon_leaves_out_subjects_without_a_difference_and_says_so():
    differences = np.array([0.0, 0.1, 0.2, -0.05, 0.3, 0.0, 0.15, 0.25, np.nan])
    tested = wilcoxon_test(differences)
    assert tested.p == pytest.approx(stats.wilcoxon([0.1, 0.2, -0.05, 0.3, 0.15, 0.25]).pvalue)
    assert numbers(tested.note) == ["3", "9"]


def test_wilcoxon_takes_equal_shares_for_equal_though_their_last_digits_differ():
    thirds = np.array([(0.1 + 0.2) - 0.3, 0.1, 0.2, -0.3, 0.4, 0.5, 0.6])
    assert thirds[0] != 0
    assert numbers(wilcoxon_test(thirds).note) == ["1", "7"]


@pytest.mark.parametrize(
    ("differences", "told"),
    [([0.0] * 30, []), ([], []), ([0.1] * 5 + [0.0] * 30, ["5", "6"]), ([0.1], ["1", "6"])],
)
def test_wilcoxon_has_no_p_where_it_could_say_nothing(differences, told):
    tested = wilcoxon_test(np.array(differences))
    assert tested.p is None and numbers(tested.note) == told


# Permutation


@pytest.mark.parametrize("seed", range(4))
def test_all_exchanges_give_scipys_p_of_mean_differences(two, seed):
    first, second = two(subjects=9, seed=seed, right=(0.6, 0.5))
    pair = compare({"a": first, "b": second}, "accuracy")[0]
    a, b = np.array(list(pair.by_subject.values())).T
    reference = stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    assert pair.permutation.p == pytest.approx(reference.pvalue)
    assert "all 512 ways" in pair.permutation.method


@pytest.mark.parametrize(
    ("statistic", "sklearns"),
    [
        ("balanced_accuracy", balanced_accuracy_score),
        ("macro_f1", lambda t, y: f1_score(t, y, average="macro", zero_division=0)),
        ("quadratic_weighted_kappa", lambda t, y: cohen_kappa_score(t, y, weights="quadratic", labels=[0, 1, 2])),
        ("mean_absolute_error", mean_absolute_error),
    ],
)
def test_all_exchanges_of_predictions_scored_by_scikit_learn(two, statistic, sklearns):
    first, second = two(subjects=5, clips=7, right=(0.7, 0.5), seed=3, balanced=False)
    ids = np.array(first.subject_ids)

    def difference(exchanged):
        swap = np.isin(ids, exchanged)
        a, b = np.where(swap, second.label, first.label), np.where(swap, first.label, second.label)
        return sklearns(first.truth, a) - sklearns(first.truth, b)

    people = sorted(set(ids))
    every = [c for size in range(6) for c in itertools.combinations(people, size)]
    observed = difference(())
    reference = np.mean([abs(difference(c)) >= abs(observed) - 1e-12 for c in every])
    pair = compare({"a": first, "b": second}, statistic)[0]
    assert pair.difference.value == pytest.approx(observed)
    assert pair.permutation.p == pytest.approx(reference)


def test_random_exchanges_come_near_all_of_them():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 5, (2, 12, 3, 3)).astype(float)
    every = permutation_test(a, b, accuracy)
    drawn = permutation_test(a, b, accuracy, most_exact=0)
    assert "4096" in every.method and "9999" in drawn.method
    assert drawn.p == pytest.approx(every.p, abs=0.02)
    assert permutation_test(a, b, accuracy, most_exact=0) == drawn
    assert permutation_test(a, b, accuracy, seed=1, most_exact=0).p != drawn.p


def test_a_random_p_is_never_zero_and_counts_the_observed_exchange():
    a = np.tile(np.eye(3) * 4, (40, 1, 1))
    b = np.tile(np.roll(np.eye(3), 1, 0) * 4, (40, 1, 1))
    assert permutation_test(a, b, balanced_accuracy).p == 1 / 10_000


@pytest.mark.parametrize("subjects", [1, 4, 14, 15, 40])
def test_equal_models_have_a_p_of_one(subjects):
    same = np.random.default_rng(0).integers(0, 4, (subjects, 3, 3)).astype(float)
    assert permutation_test(same, same, balanced_accuracy).p == 1.0


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_the_observed_exchange_counts_whatever_the_size_of_the_errors(size):
    """Sums taken in another order differ in their last digits, which must not make a p of 0."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        clips = rng.integers(3, 9, 8).astype(float)
        first = np.stack([rng.random(8) * size * clips, clips], axis=1)
        second = np.stack([first[:, 0] + rng.random(8) * size / 3, clips], axis=1)
        tested = permutation_test(first, second, lambda sums: sums[..., 0] / sums[..., 1])
        assert tested.p == pytest.approx(2 / 256)


def test_few_people_cannot_give_a_small_p_and_the_test_says_so():
    a = np.tile(np.eye(2), (5, 1, 1))
    tested = permutation_test(a, a[:, ::-1], accuracy)
    assert tested.p == pytest.approx(2 / 32)
    assert numbers(tested.note) == ["5", "0.062"]


def test_people_who_are_too_few_for_so_many_comparisons_are_told(predictions):
    """Six can give a p of 0.031, but of three pairs none below 0.094 after Holm's correction."""
    truth, people = [0, 1, 2] * 6, [f"s{i // 3}" for i in range(18)]
    models = {name: predictions(truth, [(t + add) % 3 for t in truth], people) for add, name in enumerate("abc")}
    alone = compare({name: models[name] for name in "ab"})[0]
    assert alone.permutation.p == alone.permutation.corrected == 2 / 64 and alone.permutation.note is None
    pairs = compare(models)
    assert min(pair.permutation.corrected for pair in pairs) == pytest.approx(6 / 64)
    assert all(numbers(pair.permutation.note) == ["6", "0.094"] for pair in pairs)
    more = compare({**models, "d": predictions([0, 1, 2] * 7, [0, 1, 2] * 7, [*people, *["s6"] * 3])}, against="d")
    assert all(numbers(pair.permutation.note) == ["6", "0.094"] for pair in more)


def test_an_undefined_statistic_has_no_p_and_an_undefined_exchange_counts_against_a_difference():
    one_class = np.zeros((3, 2, 2))
    one_class[:, 0, 0] = 4
    assert permutation_test(one_class, one_class, quadratic_weighted_kappa).p is None
    # Each model hits the second class in one of two people; exchanged in one of them, one model has no hit at all.
    first = np.array([[[4, 0], [0, 2]], [[4, 0], [1, 0]]], float)
    second = np.array([[[4, 0], [2, 0]], [[4, 0], [0, 1]]], float)
    tested = permutation_test(first, second, lambda c: np.where(c[..., 1, 1] > 0, accuracy(c), np.nan))
    assert tested.p == 1.0


# Holm


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        # From statsmodels 0.15's multipletests(method="holm").
        ([0.01, 0.04, 0.03, 0.005, 1.0, 0.0], [0.04, 0.09, 0.09, 0.025, 1.0, 0.0]),
        ([0.03], [0.03]),
        ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0]),
        ([0.01, None, 0.02], [0.02, None, 0.02]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_holm(p, corrected):
    assert [None if x is None else pytest.approx(x) for x in corrected] == holm(p)


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_its_step_down_rule_rejects(seed):
    p = np.random.default_rng(seed).random(8) ** 3
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for step, place in enumerate(np.argsort(p)):
            if p[place] > level / (len(p) - step):
                break
            rejected.add(int(place))
        assert {place for place, x in enumerate(holm(p.tolist())) if x <= level} == rejected


# Pairs


def test_the_difference_and_its_interval_are_those_of_paired_difference(two):
    first, second = two()
    for statistic in STATISTICS:
        found = compare({"a": first, "b": second}, statistic)[0].difference
        assert found == paired_difference(first, second, [statistic])[statistic]


def test_subjects_have_their_own_values(two):
    first, second = two(subjects=3)
    pair = compare({"a": first, "b": second})[0]
    for person, (a, b) in pair.by_subject.items():
        rows = np.array(first.subject_ids) == person
        assert a == pytest.approx(balanced_accuracy_score(first.truth[rows], first.label[rows]))
        assert b == pytest.approx(balanced_accuracy_score(second.truth[rows], second.label[rows]))


def test_exchanging_the_models_turns_the_sign_alone(two):
    first, second = two(subjects=7, seed=2)
    one, other = compare({"a": first, "b": second})[0], compare({"b": second, "a": first})[0]
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert one.permutation.p == other.permutation.p and one.wilcoxon.p == pytest.approx(other.wilcoxon.p)
    assert one.better == other.better == "a"
    assert one.sentence == other.sentence


def test_every_pair_or_all_with_one(two):
    a, b = two()
    c, _ = two(seed=0, right=(0.1, 0.1))
    models = {"a": a, "b": b, "c": c}
    assert [(p.first, p.second) for p in compare(models)] == [("a", "b"), ("a", "c"), ("b", "c")]
    against = compare(models, against="b")
    assert [(p.first, p.second) for p in against] == [("a", "b"), ("c", "b")]
    assert [p.permutation.corrected for p in against] == holm([p.permutation.p for p in against])
    assert [p.wilcoxon.corrected for p in against] == holm([p.wilcoxon.p for p in against])


def test_the_order_of_the_rows_does_not_matter(two):
    first, second = two(subjects=5)
    shuffled = second.only(np.random.default_rng(0).permutation(len(second)))
    assert compare({"a": first, "b": shuffled}) == compare({"a": first, "b": second})


def test_clips_without_a_prediction_of_either_count_for_neither_and_are_told(two):
    first, second = two(subjects=4, clips=6)
    lost = dataclasses.replace(
        first,
        label=np.where(np.arange(24) < 2, -1, first.label),
        probabilities=np.where((np.arange(24) < 2)[:, None], np.nan, first.probabilities),
    )
    hidden = dataclasses.replace(second, truth=np.where(np.arange(24) == 5, -1, second.truth)).only(range(23))
    pair = compare({"a": lost, "b": hidden})[0]
    assert sorted(pair.left_out.values()) == [1, 1, 2]
    assert [why[-1] for why, clips in pair.left_out.items() if clips == 2] == ["a"]
    assert pair.clips == 20
    kept = [row for row in range(23) if row not in (0, 1, 5)]
    assert pair.difference == paired_difference(first.only(kept), second.only(kept))["balanced_accuracy"]


def test_one_subject_and_one_class_have_neither_interval_nor_verdict(predictions):
    a, b = predictions([1] * 4, [1] * 4, ["p"] * 4), predictions([1] * 4, [0, 0, 1, 1], ["p"] * 4)
    pair = compare({"a": a, "b": b})[0]
    assert pair.difference.value == 0.5 and pair.better is None and pair.permutation.p == 1.0
    assert "better" not in pair.sentence and re.search(r"\b1 person\b", pair.sentence) and "interval" in pair.sentence
    kappa = compare({"a": a, "b": b}, "quadratic_weighted_kappa")[0]
    assert kappa.difference.value is None and "kappa" in kappa.sentence and numbers(kappa.sentence) == ["1"]


# Words


def test_a_clear_difference_is_said_in_one_sentence(two):
    first, second = two(subjects=40, clips=12)
    pair = compare({"A": first, "B": second})[0]
    value, interval = pair.difference.value, pair.difference.interval
    assert re.search(r"\bA\b.* better .*\bB\b.*balanced accuracy", pair.sentence)
    expected = ["40", f"{value:.3f}", "95", f"{interval.low:.3f}", f"{interval.high:.3f}", "0.001"]
    assert sorted(numbers(pair.sentence)) == sorted(expected) and "p < 0.001" in pair.sentence


def test_no_bound_is_a_negative_zero():
    turned = dataclasses.replace(
        paired(p=0.5, low=-0.2, high=0.0)(corrected=0.5),
        difference=Difference(0.4, 0.5, -0.1, Interval(-0.2, 0.0, 20)),
    )
    assert "0.000" in turned.sentence and "-0.000" not in turned.sentence and "0.200" in turned.sentence


def test_what_cannot_be_told_is_not_said(two):
    first, second = two(subjects=12, right=(0.5, 0.5))
    pair = compare({"A": first, "B": second})[0]
    assert pair.better is None and "better" not in pair.sentence and "12" in numbers(pair.sentence)
    same = compare({"A": first, "B": first})[0]
    assert same.better is None and "better" not in same.sentence and f"{0:.3f}" in same.sentence


def test_many_comparisons_make_a_difference_harder_to_claim():
    differences = paired(p=0.03, low=0.01, high=0.2)
    assert differences(corrected=0.03).better == "a"
    assert differences(corrected=0.09).better is None
    assert paired(p=0.03, low=-0.01, high=0.2)(corrected=0.03).better is None


def paired(p, low, high):
    # Imported above, it would be taken for a class of tests.
    from painseq.evaluation.comparison import SignificanceTest

    def make(corrected):
        tested = SignificanceTest(p, "", None, corrected)
        difference = Difference(0.5, 0.4, 0.1, Interval(low, high, 20))
        return Pair("a", "b", "accuracy", 40, {}, difference, {"p": (0.5, 0.4)}, tested, tested, 3)

    return make


def test_the_lower_error_is_the_better(two):
    first, second = two(subjects=40)
    pair = compare({"A": first, "B": second}, "mean_absolute_error")[0]
    assert pair.difference.value < 0 and pair.better == "A"
    assert re.search(rf"\bA\b.* better .*\bB\b.* lower .*{-pair.difference.value:.3f}", pair.sentence)


# Values on a scale


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("statistic", "power"), [("mae", 1), ("mse", 2)])
def test_errors_on_a_scale(statistic, power, balanced):
    rng = np.random.default_rng(1)
    subjects = [f"p{i}" for i in (np.repeat(np.arange(10), 6) if balanced else rng.integers(0, 10, 60))]
    truth = rng.uniform(0, 16, 60)
    a = on_a_scale(truth, truth + rng.normal(0, 1, 60), subjects)
    b = on_a_scale(truth, truth + rng.normal(0, 3, 60), subjects)
    pair = compare({"a": a, "b": b}, statistic)[0]
    errors = np.abs(np.stack([a.value, b.value]) - truth) ** power
    assert pair.difference.value == pytest.approx(errors[0].mean() - errors[1].mean())
    for person, values in pair.by_subject.items():
        assert values == pytest.approx(errors[:, np.array(subjects) == person].mean(axis=1))
    assert pair.better == "a" and pair.difference.interval.high < 0
    own = np.array(list(pair.by_subject.values()))
    if balanced:
        low, high = stats.t.interval(0.95, 9, np.diff(-own)[:, 0].mean(), stats.sem(np.diff(-own)[:, 0]))
        assert (pair.difference.interval.low, pair.difference.interval.high) == pytest.approx((low, high))
        reference = stats.permutation_test(
            tuple(own.T), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=np.inf
        )
        assert pair.permutation.p == pytest.approx(reference.pvalue)
    assert pair.wilcoxon.p == pytest.approx(stats.wilcoxon(own[:, 0], own[:, 1]).pvalue)


def test_values_that_are_missing_or_hidden_are_left_out():
    truth = [1.0, 2.0, np.nan, 4.0]
    a, b = on_a_scale(truth, [1, 2, 3, np.nan], "ppqq"), on_a_scale(truth, [2, 2, 3, 4], "ppqq")
    pair = compare({"a": a, "b": b}, "mae")[0]
    assert pair.clips == 2 and sorted(pair.left_out.values()) == [1, 1]
    assert pair.difference.value == pytest.approx(-0.5)


# Mistakes


def test_what_cannot_be_compared_is_refused(two, predictions):
    first, second = two(subjects=3, clips=3)
    value = on_a_scale([1.0], [1.0], ["p"])
    other_truth = dataclasses.replace(second, truth=(second.truth + 1) % 3)
    other_people = dataclasses.replace(second, subject_ids=("x", *second.subject_ids[1:]))
    elsewhere = dataclasses.replace(second, clip_ids=tuple(f"z{i}" for i in range(len(second))))
    other_classes = dataclasses.replace(second, class_names=("none", "some", "much"))
    turned = dataclasses.replace(second, class_names=second.class_names[::-1])
    unordered = dataclasses.replace(second, order_known=False)
    for wrong, statistic, parts in (
        (other_truth, "accuracy", ("clip0", "9", "truth")),
        (other_people, "accuracy", ("clip0", "subject")),
        (elsewhere, "accuracy", ("clip", "prediction")),
        (other_classes, "accuracy", ("No Pain, Low Pain, High Pain", "none, some, much")),
        (turned, "accuracy", ("No Pain, Low Pain, High Pain", "High Pain, Low Pain, No Pain", "order")),
        (unordered, "quadratic_weighted_kappa", ("kappa", "order")),
        (value, "accuracy", ("classes", "scale")),
        (second, "mse", ("statistic", "mse", "accuracy", "macro_f1")),
    ):
        with pytest.raises(PainseqError, match=r"(?s)\ba\b.*\bb\b") as error:
            compare({"a": first, "b": wrong}, statistic)
        assert all(part in str(error.value) for part in parts)
    with pytest.raises(PainseqError, match=r"\b1\b"):
        compare({"a": first})
    with pytest.raises(PainseqError, match=r"(?s)'c'.*a, b"):
        compare({"a": first, "b": second}, against="c")


def test_scales_and_classes_do_not_mix():
    a = on_a_scale([1.0, 2.0], [1, 1], ["p", "q"])
    for b, statistic, parts in (
        (on_a_scale([1.0, 2.0], [1, 1], ["p", "q"], "vas"), "mae", ("pspi", "vas")),
        (on_a_scale([1.0, 3.0], [1, 1], ["p", "q"]), "mae", ("clip1", "1", "truth")),
        (on_a_scale([1.0, 2.0], [1, 1], ["p", "q"]), "accuracy", ("statistic", "accuracy", "mae, mse")),
    ):
        with pytest.raises(PainseqError) as error:
            compare({"a": a, "b": b}, statistic)
        assert all(part in str(error.value) for part in parts)
