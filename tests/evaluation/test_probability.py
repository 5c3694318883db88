"""Scores of probabilities against scikit-learn and torchmetrics, on random input and on what divides by nothing."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from painseq.evaluation import Predictions, probability_scores
from painseq.evaluation.intervals import draw_subjects
from painseq.evaluation.probability import (
    BINS,
    drawn_statistics,
    one_against_rest,
    overconfidence,
    probability_intervals,
    rated,
)


def made_of(truth, probabilities, subjects=None, names=None) -> Predictions:
    truth, probabilities = np.asarray(truth, np.int64), np.asarray(probabilities, np.float64)
    n, k = probabilities.shape
    return Predictions(
        class_names=tuple(names or (f"class {i}" for i in range(k))),
        clip_ids=tuple(f"clip{i}" for i in range(n)),
        subject_ids=tuple(subjects or [f"s{i:04d}" for i in range(n)]),
        truth=truth,
        label=np.where(np.isnan(probabilities).any(1), -1, np.nan_to_num(probabilities).argmax(1)),
        probabilities=probabilities,
        frames=np.full(n, 10, np.int64),
        faceless=np.zeros(n, np.int64),
    )


def random_clips(seed: int, n: int = 60, k: int = 3, subjects: int = 12, rounded: bool = False) -> Predictions:
    """Better than chance, and with `rounded` full of ties, of zeros and of ones."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) * 2 + np.eye(k)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if rounded:
        probabilities = np.round(probabilities * 4) / 4
        probabilities[np.arange(n), probabilities.argmax(1)] += 1 - probabilities.sum(1)
    return made_of(truth, probabilities, [f"s{i % subjects:02d}" for i in range(n)])


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_a_draw_of_subjects_scores_as_scikit_learn_does_with_weights(seed, k, rounded):
    predictions = random_clips(seed, k=k, rounded=rounded)
    clips = rated(predictions)
    times = draw_subjects(len(clips.subjects), 10, seed)
    ours, areas = drawn_statistics(clips, times), one_against_rest(clips, times)
    for draw, drawn in enumerate(times):
        weight = drawn[clips.subject].astype(float)
        one_side = [len(set(clips.truth[weight > 0] == c)) == 1 for c in range(k)]
        for area, theirs in (
            (areas.auroc, reference.roc_auc_score),
            (areas.auprc, reference.average_precision_score),
        ):
            for c in range(k):
                value = area[draw, c]
                if one_side[c]:
                    assert np.isnan(value)
                else:
                    expected = theirs(clips.truth == c, clips.probabilities[:, c], sample_weight=weight)
                    assert value == pytest.approx(expected, abs=1e-12)
        assert ours["auroc"][draw] == pytest.approx(np.nanmean(areas.auroc[draw]))
        assert ours["auprc"][draw] == pytest.approx(np.nanmean(areas.auprc[draw]))
        brier = reference.brier_score_loss(
            clips.truth, clips.probabilities, sample_weight=weight, labels=list(range(k)), scale_by_half=False
        )
        assert ours["brier"][draw] == pytest.approx(brier)
        assert ours["ece"][draw] == pytest.approx(
            calibration_error(clips, np.repeat(np.arange(60), drawn[clips.subject]))
        )


def calibration_error(clips, rows) -> float:
    """That of torchmetrics; probabilities on an edge are moved into the bin below it, where ours has them."""
    probabilities = (torch.from_numpy(clips.probabilities[rows]) - 1e-9).clamp(min=0)
    return float(
        multiclass_calibration_error(
            probabilities, torch.from_numpy(clips.truth[rows]), clips.probabilities.shape[1], BINS
        )
    )


def test_all_subjects_once_is_what_is_reported():
    predictions = random_clips(7)
    scores, clips = probability_scores(predictions), rated(predictions)
    binary = np.eye(3)[clips.truth]
    assert scores.auroc == pytest.approx(reference.roc_auc_score(clips.truth, clips.probabilities, multi_class="ovr"))
    assert scores.auprc == pytest.approx(reference.average_precision_score(binary, clips.probabilities))
    assert scores.auroc_by_class[1] == pytest.approx(reference.roc_auc_score(binary[:, 1], clips.probabilities[:, 1]))
    assert scores.clips == 60 and scores.left_out == 0 and not scores.undefined
    bins = scores.reliability
    assert sum(bins.clips) == 60 and len(bins.clips) == BINS and len(bins.edges) == BINS + 1
    apart = [n * abs(c - a) for n, c, a in zip(bins.clips, bins.confidence, bins.accuracy, strict=True) if n]
    assert scores.ece == pytest.approx(sum(apart) / 60)
    assert all((n == 0) == (c is None) for n, c in zip(bins.clips, bins.confidence, strict=True))


def test_one_class_only_has_no_area_but_a_reason():
    scores = probability_scores(made_of([1, 1, 1], [[0.2, 0.8, 0], [0.5, 0.25, 0.25], [0, 1, 0]]))
    assert scores.auroc is None and scores.auprc is None
    assert scores.auroc_by_class == (None, None, None)
    assert "3" in scores.undefined["auroc"] and "class 1" in scores.undefined["auroc"]
    assert scores.brier == pytest.approx(np.mean([0.08, 0.25 + 0.5625 + 0.0625, 0]))
    assert "auroc" not in probability_intervals(made_of([1, 1], [[0.2, 0.8], [0.5, 0.5]]))


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    scores = probability_scores(made_of([0, 1, 0, 1], [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0.1, 0.2], [0.1, 0.9, 0]]))
    assert scores.auroc_by_class == (1.0, 1.0, None)
    assert (scores.auroc, scores.auprc) == (1.0, 1.0)


def test_certain_and_right_is_perfect_and_certain_and_wrong_is_the_worst():
    truth = [0, 1, 2, 0, 1, 2]
    right, wrong = np.eye(3)[truth], np.eye(3)[[1, 2, 0, 1, 2, 0]]
    best, worst = probability_scores(made_of(truth, right)), probability_scores(made_of(truth, wrong))
    assert (best.auroc, best.auprc, best.brier, best.ece) == (1, 1, 0, 0)
    assert (worst.brier, worst.ece) == (2, 1)
    assert worst.auroc == pytest.approx(0.25)
    assert best.reliability.clips[-1] == 6


def test_the_same_probabilities_for_all_rank_nothing():
    scores = probability_scores(made_of([0, 0, 1, 2], np.full((4, 3), 1 / 3)))
    assert scores.auroc == 0.5
    assert scores.auprc_by_class == pytest.approx((0.5, 0.25, 0.25))


def test_clips_without_probabilities_truth_or_prediction_are_left_out_and_counted():
    predictions = random_clips(1, n=30)
    probabilities, label, truth = (
        predictions.probabilities.copy(), predictions.label.copy(), predictions.truth.copy()
    )  # fmt: skip
    probabilities[:6] = np.nan
    label[:2] = -1
    truth[10] = -1
    some = dataclasses.replace(predictions, probabilities=probabilities, label=label, truth=truth)
    scores = probability_scores(some)
    assert (scores.clips, scores.left_out) == (23, 4)
    assert scores == dataclasses.replace(
        probability_scores(some.only(np.flatnonzero(~np.isnan(probabilities[:, 0])))), left_out=4
    )
    nothing = dataclasses.replace(predictions, probabilities=np.full((30, 3), np.nan))
    assert probability_scores(nothing) is None
    assert overconfidence(nothing) is None
    assert probability_intervals(nothing) == {}


def test_intervals_hold_the_scores_and_say_how_they_were_made():
    predictions = random_clips(3, n=240, subjects=24)
    scores, intervals = probability_scores(predictions), probability_intervals(predictions)
    assert list(intervals) == ["auroc", "auprc", "brier", "ece"]
    for name in ("auroc", "auprc", "brier"):
        assert intervals[name].low < scores.value(name) < intervals[name].high
    assert "Student" in intervals["brier"].method and "bootstrap" in intervals["auroc"].method
    # A model that is always sure and right has an interval at 0, so the note must not say that none reaches it.
    assert "0" in intervals["ece"].note and intervals["auroc"].note is None
    # Of a subject with more clips than others the Brier score is no mean of subjects.
    assert "bootstrap" in probability_intervals(predictions.only(range(239)))["brier"].method
    assert probability_intervals(random_clips(3, subjects=1))["auroc"].low is None


def test_many_draws_at_once_are_those_of_few(monkeypatch):
    clips = rated(random_clips(5))
    times = draw_subjects(12, 40, 0)
    whole = one_against_rest(clips, times)
    monkeypatch.setattr("painseq.evaluation.probability.CELLS_AT_ONCE", 400)
    for blocks, at_once in zip(one_against_rest(clips, times), whole, strict=True):
        np.testing.assert_allclose(blocks, at_once, rtol=0, atol=1e-12)


def test_overconfidence_is_what_is_stated_less_what_is_right():
    clips = made_of([0, 0, 1, 1], [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], ["a", "b", "a", "b"])
    apart, interval = overconfidence(clips)
    assert apart == pytest.approx(0.4)
    assert interval.low == pytest.approx(0.4) and interval.high == pytest.approx(0.4)


@pytest.mark.parametrize("rounded", [False, True])
def test_memory_grows_with_the_clips_and_not_with_clips_times_subjects(rounded):
    predictions = random_clips(0, n=10_000, subjects=1_000, rounded=rounded)
    tracemalloc.start()
    scores, intervals = probability_scores(predictions), probability_intervals(predictions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A table of subjects by clips alone has 80 MB.
    assert peak < 75e6
    assert intervals["auprc"].low < scores.auprc < intervals["auprc"].high
