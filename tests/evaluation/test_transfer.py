"""Cells of a transfer table, from predictions made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from painseq.errors import PainseqError
from painseq.evaluation import Predictions
from painseq.evaluation.transfer import (
    DataSetSettings,
    TransferCell,
    cell_result,
    check_harmonised,
    drawn_order,
    numbers_of_subjects,
    pooled_runs,
)

NAMES = ("no_pain", "high_pain")
CELL = TransferCell("subjects", "heat", "electrical", "cnn", "lstm", 2)


def table(truth, label, subjects):
    """Predictions with certain probabilities."""
    truth, label = np.asarray(truth), np.asarray(label)
    probabilities = np.where(label[:, None] < 0, np.nan, np.eye(2)[np.maximum(label, 0)])
    zeros = np.zeros(len(truth), np.int64)
    ids = tuple(f"c{number}" for number in range(len(truth)))
    return Predictions(NAMES, ids, tuple(subjects), truth, label, probabilities, zeros + 4, zeros)


def random_table(seed, subjects=12, clips=6, balanced=True, skill=0.7):
    """Half of each subject's clips of each class, or any mix of them."""
    random, who = np.random.default_rng([7, subjects, clips]), np.repeat(np.arange(subjects), clips)
    truth = np.tile(np.arange(clips) % 2, subjects) if balanced else random.integers(0, 2, len(who))
    right = np.random.default_rng(seed).random(len(who)) < skill
    return table(truth, np.where(right, truth, 1 - truth), [f"s{number}" for number in who])


@pytest.mark.parametrize("balanced", [True, False])
def test_a_cell_is_the_mean_of_its_runs(balanced):
    runs = {(seed, draw): random_table(10 * seed + draw, balanced=balanced) for seed in (0, 1) for draw in (0, 1, 2)}
    result = cell_result(CELL, runs, None, "nothing")
    singles = [balanced_accuracy_score(run.truth, run.label) for run in runs.values()]
    assert result.value == pytest.approx(np.mean(singles))
    assert (result.lowest, result.highest) == pytest.approx((min(singles), max(singles)))
    assert result.runs == tuple(sorted(runs)) and result.subjects == 12 and result.gap is None
    assert result.majority == result.chance == 0.5
    assert result.to_dict()["runs"][0] == {"seed": 0, "draw": 0} and result.to_dict()["gap"] is None


def test_each_subject_counts_with_its_mean_over_the_runs():
    runs = {(0, draw): random_table(draw) for draw in range(4)}
    result = cell_result(CELL, runs, None, "nothing")
    ids = np.array(runs[0, 0].subject_ids)
    means = [
        np.mean([balanced_accuracy_score(run.truth[ids == s], run.label[ids == s]) for run in runs.values()])
        for s in sorted(set(ids))
    ]
    low, high = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
    assert (result.interval.low, result.interval.high) == pytest.approx((low, min(high, 1.0)))
    assert result.interval.subjects == 12


def test_a_run_twice_changes_neither_score_nor_interval():
    once = cell_result(CELL, {(0, 0): random_table(0, balanced=False)}, None, "nothing")
    run = random_table(0, balanced=False)
    twice = cell_result(CELL, {(0, 0): run, (0, 1): run}, None, "nothing")
    assert twice.value == pytest.approx(once.value)
    assert (twice.interval.low, twice.interval.high) == pytest.approx((once.interval.low, once.interval.high))


def test_the_gap_is_the_targets_own_minus_the_cell_paired_by_subject():
    runs = {(seed, draw): random_table(10 * seed + draw) for seed in (0, 1) for draw in (0, 1)}
    within = {(seed, 0): random_table(100 + seed, skill=0.9) for seed in (0, 1)}
    gap = cell_result(CELL, runs, within, "own").gap
    ids = np.array(runs[0, 0].subject_ids)

    def of(tables, subject):
        return np.mean([balanced_accuracy_score(t.truth[ids == subject], t.label[ids == subject]) for t in tables])

    own = [of(within.values(), subject) for subject in sorted(set(ids))]
    ours = [of(runs.values(), subject) for subject in sorted(set(ids))]
    differences = np.subtract(own, ours)
    assert (gap.first, gap.second, gap.value) == pytest.approx((np.mean(own), np.mean(ours), differences.mean()))
    low, high = stats.t.interval(0.95, len(own) - 1, differences.mean(), stats.sem(differences))
    assert (gap.interval.low, gap.interval.high) == pytest.approx((low, high))


def test_the_order_of_the_clips_in_a_run_does_not_matter():
    run = random_table(0)
    turned = run.only(np.arange(len(run))[::-1])
    plain, mixed = (cell_result(CELL, {(0, 0): run, (0, 1): other}, None, "") for other in (run, turned))
    assert (plain.value, plain.interval) == (mixed.value, mixed.interval)


def test_a_cell_against_itself_has_no_gap():
    run = {(0, 0): random_table(0, balanced=False)}
    gap = cell_result(replace(CELL, k=None), run, run, "itself").gap
    assert gap.value == 0.0 and gap.interval.low == gap.interval.high == 0.0


def test_clips_without_prediction_or_truth_are_left_out():
    run = table([0, 1, 1, -1, 0, 1], [0, 1, -1, 1, 1, 1], ["a", "a", "a", "b", "b", "b"])
    result = cell_result(CELL, {(0, 0): run}, {(0, 0): run}, "itself")
    assert result.value == pytest.approx((0.5 + 1.0) / 2) and result.subjects == 2
    hidden = table([-1, -1], [0, 1], ["a", "b"])
    with pytest.raises(PainseqError, match=r"(?s)\bheat\b.*\b2\b.*\belectrical\b"):
        cell_result(CELL, {(0, 0): hidden}, None, "")


def test_one_subject_has_a_score_and_no_interval():
    run = table([0, 1], [0, 0], ["a", "a"])
    result = cell_result(CELL, {(0, 0): run}, {(0, 0): run}, "itself")
    assert result.value == 0.5 and result.interval.low is None and "2" in result.interval.note
    assert result.gap.value == 0.0 and result.gap.interval.low is None


def test_one_class_in_the_truth_is_scored_by_its_recall():
    result = cell_result(CELL, {(0, 0): table([1, 1, 1, 1], [1, 0, 1, 1], "aabb")}, None, "")
    assert result.value == 0.75 and result.scores.confusion == ((0, 0), (1, 3))


def test_runs_on_other_clips_have_no_mean():
    run = random_table(0)
    with pytest.raises(PainseqError, match=r"(?s)\b2\b.*\b1\b.*'"):
        pooled_runs([run, run.only(range(1, len(run)))])
    with pytest.raises(PainseqError, match=r"(?s)\b2\b.*truth"):
        pooled_runs([run, replace(run, truth=1 - run.truth)])
    with pytest.raises(PainseqError, match=r"(?s)\b2\b.*classes"):
        pooled_runs([run, replace(run, class_names=("low", "high"))])


def counts(**clips):
    return {name: dict(zip(NAMES, numbers, strict=True)) for name, numbers in clips.items()}


def test_draws_are_nested_differ_and_begin_with_somebody_who_has_every_class():
    people = counts(**{f"s{number:02d}": (2, number % 2) for number in range(20)})
    orders = {drawn_order(people, 0, draw) for draw in range(20)}
    assert len(orders) == 20 and all(sorted(order) == sorted(people) for order in orders)
    assert all(people[order[0]]["high_pain"] for order in orders)
    assert drawn_order(people, 3, 1) == drawn_order(dict(reversed(people.items())), 3, 1) != drawn_order(people, 4, 1)
    # Apart from the first, the order is as random as it was: everybody comes everywhere.
    assert len({order[5] for order in orders}) > 8


def test_nobody_with_every_class_cannot_be_drawn():
    with pytest.raises(PainseqError, match=r"\b2\b"):
        drawn_order(counts(a=(1, 0), b=(0, 3)), 0, 0)


def test_a_curve_ends_with_everybody():
    assert numbers_of_subjects((4, 1, 2, 8, 1), 6) == (1, 2, 4, 6)
    assert numbers_of_subjects((1, 2), 1) == (1,)


HEAT = DataSetSettings("binary", NAMES, 8.0, {"face": {"kind": "square", "size_px": 80}}, {"streams": ["cnn"]})


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        ({}, None),
        (
            {"labels": "three", "class_names": ("no_pain", "low_pain", "high_pain")},
            ("b: ", "three", "no_pain, low_pain, high_pain"),
        ),
        ({"class_names": ("high_pain", "no_pain")}, ("b: ", "high_pain, no_pain")),
        ({"class_names": ()}, ("classes", "scale")),
        ({"fps": 25.0}, ("fps", "b: 25", "8")),
        ({"fps": None}, ("fps", "b: ", "8")),
        ({"crops": {"face": {"kind": "square", "size_px": 224}}}, ("size_px", "80", "224")),
        ({"frames": {"streams": ["cnn", "landmarks"]}}, ("streams", "cnn", "landmarks")),
    ],
)
def test_data_sets_that_are_read_otherwise_are_refused(other, parts):
    given = {"a": HEAT, "b": replace(HEAT, **other)}
    if parts is None:
        check_harmonised(given, 8.0)
    else:
        with pytest.raises(PainseqError) as error:
            check_harmonised(given, 8.0)
        assert all(part in str(error.value) for part in parts)
    with pytest.raises(PainseqError):
        check_harmonised(given, 9.0)
