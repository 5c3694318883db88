import json
import re

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error

from painseq.evaluation.intervals import BOOTSTRAP, STUDENT_T
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.evaluation.value_scores import MEAN_RULE, VALUE_TITLES, score_values, value_table


def values(truth, value, subjects=None, faceless=0) -> ValuePredictions:
    """Each clip of a subject of its own if none are given."""
    n = len(truth)
    return ValuePredictions(
        scale="pspi",
        clip_ids=tuple(f"clip{i}" for i in range(n)),
        subject_ids=tuple(subjects or [f"s{i:03d}" for i in range(n)]),
        truth=np.array(truth, np.float64),
        value=np.array(value, np.float64),
        frames=np.full(n, 10, np.int64),
        faceless=np.full(n, faceless, np.int64),
    )


def random_values(clips, subjects, seed=0) -> ValuePredictions:
    rng = np.random.default_rng(seed)
    truth = rng.gamma(1.0, 2.0, clips)
    value = 0.6 * truth + rng.normal(1.0, 1.0, clips)
    return values(truth, value, [f"s{i:02d}" for i in rng.integers(0, subjects, clips)])


def warned(evaluation, *parts) -> bool:
    return any(all(part in line for part in parts) for line in evaluation.warnings)


def icc_3_1_by_anova(table) -> float:
    """Shrout and Fleiss 1979 for any number of raters: (n, k) from the two-way table's mean squares."""
    n, k = table.shape
    between = k * ((table.mean(1) - table.mean()) ** 2).sum() / (n - 1)
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    residual = (rest**2).sum() / ((n - 1) * (k - 1))
    return (between - residual) / (between + (k - 1) * residual)


def test_the_reference_has_the_value_of_shrout_and_fleiss():
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    assert icc_3_1_by_anova(table) == pytest.approx(0.71, abs=0.005)
    # Its first two judges as truth and model.
    scores = score_values(values(table[:, 0], table[:, 1])).scores
    assert scores.icc_3_1 == pytest.approx(icc_3_1_by_anova(table[:, :2]))


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_others(seed):
    p = random_values(150, 12, seed)
    scores = score_values(p).scores
    assert scores.mse == pytest.approx(mean_squared_error(p.truth, p.value))
    assert scores.mae == pytest.approx(mean_absolute_error(p.truth, p.value))
    assert scores.pearson == pytest.approx(stats.pearsonr(p.truth, p.value).statistic)
    assert scores.icc_3_1 == pytest.approx(icc_3_1_by_anova(np.stack([p.truth, p.value], 1)))


def test_a_large_offset_costs_no_digits():
    p = random_values(50, 5)
    far = values(p.truth + 1e6, p.value + 1e6, list(p.subject_ids))
    assert score_values(far).scores.pearson == pytest.approx(stats.pearsonr(p.truth, p.value).statistic)
    assert score_values(far).scores.mse == pytest.approx(score_values(p).scores.mse)


def test_an_offset_lowers_neither_correlation_and_another_spread_only_icc():
    p = random_values(80, 8)
    shifted, wider = (score_values(values(p.truth, v)).scores for v in (p.truth + 3, 4 * p.truth))
    assert (shifted.icc_3_1, shifted.pearson) == (pytest.approx(1), pytest.approx(1))
    assert shifted.mse == pytest.approx(9)
    assert wider.pearson == pytest.approx(1)
    assert wider.icc_3_1 == pytest.approx(2 * 4 / (1 + 16))


def test_the_baseline_is_the_variance_of_the_truth_with_an_icc_of_0():
    p = random_values(60, 6)
    evaluation = score_values(p)
    assert evaluation.mean == pytest.approx(p.truth.mean())
    assert evaluation.baseline.mse == pytest.approx(p.truth.var())
    assert evaluation.baseline.icc_3_1 == 0
    assert evaluation.baseline.pearson is None


@pytest.mark.parametrize("constant", [2.5, 0.1 + 0.2])
def test_constant_predictions_have_no_pearson_and_say_why(constant):
    p = random_values(60, 6)
    evaluation = score_values(values(p.truth, np.full(60, constant), list(p.subject_ids)))
    assert evaluation.scores.pearson is None
    assert list(evaluation.scores.undefined) == ["pearson"] and "prediction" in evaluation.scores.undefined["pearson"]
    assert evaluation.scores.icc_3_1 == 0
    assert "pearson" not in evaluation.intervals
    assert warned(evaluation, MEAN_RULE, f"{evaluation.baseline.mse:.3f}")
    assert warned(evaluation, VALUE_TITLES["pearson"], evaluation.scores.undefined["pearson"])


def test_where_most_clips_have_0_always_0_is_the_error_to_beat():
    truth = np.array([0.0] * 80 + [6.0] * 20)
    value = np.where(truth == 0, 0.9, 3.5)
    evaluation = score_values(values(truth, value, [f"s{i % 25}" for i in range(100)]))
    assert evaluation.scores.mae < evaluation.baseline.mae
    (line,) = evaluation.warnings
    assert sorted(re.findall(r"[0-9]+(?:\.[0-9]+)?", line)) == ["0", "1.200", "1.220"]
    better = score_values(values(truth, np.where(truth == 0, 0.5, 3.5), [f"s{i % 25}" for i in range(100)]))
    assert better.warnings == ()


def test_truth_all_the_same():
    evaluation = score_values(values([1, 1, 1, 1], [1, 2, 1, 3]))
    assert "truth" in evaluation.scores.undefined["pearson"]
    assert evaluation.scores.icc_3_1 == 0
    both = score_values(values([1, 1, 1], [2, 2, 2])).scores
    assert set(both.undefined) == {"pearson", "icc_3_1"}
    assert all("truth" in why and "prediction" in why for why in both.undefined.values())
    assert both.mse == 1


def test_values_from_few_frames_with_a_face_are_counted_and_warned_of():
    p = values([1, 2, 3], [1, 3, np.nan], faceless=6)
    evaluation = score_values(p)
    assert evaluation.counts.few_faces == 2 and warned(evaluation, "2", "3", "50%", "face")
    assert score_values(p, min_face_share=0.4).counts.few_faces == 0


def test_hidden_truths_and_missing_predictions_are_left_out_and_counted():
    nan = np.nan
    p = values([1, 2, nan, 4, nan], [1, 3, 2, nan, nan], ["a", "b", "b", "c", "c"], faceless=3)
    evaluation = score_values(p)
    counts = evaluation.counts
    assert evaluation.scores.mse == pytest.approx(0.5)
    assert (counts.clips, counts.scored, counts.without_prediction, counts.hidden, counts.subjects) == (5, 2, 2, 1, 2)
    assert (counts.frames, counts.faceless) == (50, 15)
    a, b, c = evaluation.by_subject
    assert (a.subject_id, a.scores.mse, a.truth, a.value) == ("a", 0, 1, 1)
    assert a.scores.undefined["pearson"]
    assert (b.counts.scored, b.counts.hidden, b.scores.mae) == (1, 1, 1)
    assert (c.counts.without_prediction, c.scores.mse, c.truth) == (2, None, None)
    assert warned(evaluation, "2", "5", "prediction")
    assert warned(evaluation, "1", "5", "truth")
    assert warned(evaluation, "2 subjects")


def test_nothing_to_score():
    for p in (values([], []), values([np.nan, 1], [1, np.nan])):
        evaluation = score_values(p)
        assert all(evaluation.scores.value(name) is None for name in VALUE_TITLES)
        assert evaluation.mean is None
        assert evaluation.intervals == {}
        assert evaluation.counts.scored == 0 and warned(evaluation, "truth", "prediction")
        json.dumps(evaluation.to_dict(), allow_nan=False)


def test_one_subject_has_no_interval():
    evaluation = score_values(values([1, 2, 4], [1, 3, 3], ["a", "a", "a"]))
    assert all(interval.low is None for interval in evaluation.intervals.values())
    assert warned(evaluation, "1 subject", "interval")


def test_errors_of_balanced_clips_have_students_t_and_all_else_draws_subjects():
    rng = np.random.default_rng(3)
    truth = rng.random(96) * 10
    value = truth + np.repeat(rng.normal(0, 1, 24), 4) + rng.normal(0, 1, 96)
    p = values(truth, value, [f"s{i:02d}" for i in np.repeat(np.arange(24), 4)])
    even, uneven = score_values(p).intervals, score_values(p.only(np.arange(95))).intervals
    by_subject = ((value - truth) ** 2).reshape(24, 4).mean(1)
    expected = stats.t.interval(0.95, 23, by_subject.mean(), stats.sem(by_subject))
    assert (even["mse"].low, even["mse"].high) == pytest.approx(expected)
    assert [even[name].method for name in VALUE_TITLES] == [STUDENT_T, STUDENT_T, BOOTSTRAP, BOOTSTRAP]
    assert {interval.method for interval in uneven.values()} == {BOOTSTRAP}
    # Two ways of the same thing.
    assert uneven["mse"].low == pytest.approx(even["mse"].low, abs=0.2)
    assert all(even[name].low < score_values(p).scores.value(name) < even[name].high for name in VALUE_TITLES)


def test_drawn_pearson_is_that_of_the_drawn_clips():
    p = random_values(120, 10, seed=4)
    found = score_values(p).intervals["pearson"]
    ids = np.array(p.subject_ids)
    rows = [np.flatnonzero(ids == subject) for subject in sorted(set(ids))]

    def pearson(drawn) -> float:
        clips = np.concatenate([rows[int(subject)] for subject in drawn])
        return stats.pearsonr(p.truth[clips], p.value[clips]).statistic

    # The percentiles of 10 subjects: a t of 9 degrees of freedom, times sqrt(10 / 9), on the scale of the normal.
    level = 1 - 2 * stats.norm.cdf(np.sqrt(10 / 9) * stats.t.ppf(0.025, 9))
    reference = stats.bootstrap(
        (np.arange(10),),
        pearson,
        confidence_level=level,
        n_resamples=2000,
        vectorized=False,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.02)


def test_values_that_have_nothing_to_do_with_the_truth_are_told():
    p = random_values(200, 25)
    shuffled = values(p.truth, np.random.default_rng(1).permutation(p.value), list(p.subject_ids))
    against = values(p.truth, -p.value, list(p.subject_ids))
    told = []
    for wrong in (shuffled, against):
        evaluation = score_values(wrong)
        ends = [f"{end:.3f}" for end in (evaluation.intervals["icc_3_1"].low, evaluation.intervals["icc_3_1"].high)]
        (line,) = [line for line in evaluation.warnings if all(end in line for end in ends)]
        told.append(re.sub(r"-?[0-9]+\.[0-9]+", "", line))
    # Values that fall where the truth rises are told from those that have nothing to do with it.
    assert told[0] != told[1]
    assert score_values(p).warnings == ()


def test_the_order_of_the_clips_does_not_matter():
    p = random_values(90, 9)
    mixed = p.only(np.random.default_rng(0).permutation(90))
    for name in VALUE_TITLES:
        assert score_values(mixed).scores.value(name) == pytest.approx(score_values(p).scores.value(name))
    assert [row.subject_id for row in score_values(mixed).by_subject] == sorted(set(p.subject_ids))


def test_json_and_table_hold_the_scores():
    p = random_values(60, 6)
    evaluation = score_values(p)
    content = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert content["scores"]["icc_3_1"] == pytest.approx(evaluation.scores.icc_3_1)
    assert content["intervals"]["mse"]["method"] == BOOTSTRAP
    (baseline,) = content["baselines"].values()
    assert baseline["mse"] == pytest.approx(p.truth.var())
    assert len(content["by_subject"]) == 6

    console = Console(width=80, record=True)
    console.print(value_table({"mine [1]": evaluation, "poor": score_values(p.only(np.arange(30)))}))
    shown = console.export_text()
    assert f"{evaluation.scores.mse:.3f}" in shown
    assert "mine [1]" in shown
    # Other clips, another baseline.
    assert f"{p.truth.var():.3f}" in shown
    assert f"{p.truth[:30].var():.3f}" in shown
    # Where all are off alike, two equal ends would look like certainty.
    console.print(value_table({"alike": score_values(values([0.0, 1.0, 2.0], [0.5, 1.5, 2.5]))}))
    shown = console.export_text()
    assert "width" in shown and not re.search(r"0\.50\b", shown)
