"""The published rows, and what always saying one class gives beside them."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from painseq.data_modules import FACTS, AI4Pain, BioVid
from painseq.evaluation import PUBLISHED, published_rows
from painseq.evaluation.published import AI4PAIN, AI4PAIN_VALIDATION, BIOVID, MINTPAIN, REMARKS, SCORED_CLIPS

RECALLS = {"ANN + vote": (0.17, 0.67, 0.55), "LSTM": (0.42, 0.74, 0.49)}
"""Of no, low and high pain on the validation part: Prajod et al. 2024."""


def row(name, dataset, part, metric="accuracy"):
    return next(r for r in published_rows(dataset) if r.name == name and r.part == part and r.metric == metric)


def constant_answer(clips):
    """Truth of these clips, and the most frequent class said of each."""
    truth = np.repeat(np.arange(len(clips)), list(clips.values()))
    return truth, np.full(len(truth), int(np.argmax(list(clips.values()))))


def test_the_validation_part_of_ai4pain_is_12_144_144():
    assert list(AI4PAIN_VALIDATION.values()) == [12, 144, 144]
    expected = AI4Pain.facts.expected
    people = expected.subjects_by_part["validation"]
    assert AI4PAIN_VALIDATION["low pain"] == people * expected.clips_per_class["Low_Pain"]
    assert AI4PAIN_VALIDATION["high pain"] == people * expected.clips_per_class["High_Pain"]


@pytest.mark.parametrize("metric", ["accuracy", "F1"])
def test_the_split_of_the_heat_network_is_not_known(metric):
    """Prajod et al. 2024 quote its scores without it."""
    heat = row("heat-pain VGG16 (Prajod et al. 2022)", BIOVID, "", metric)
    assert "not stated" in heat.protocol and "subject" not in heat.protocol


def test_biovids_classes_are_as_frequent_as_each_other():
    clips = row("VGG, landmarks and Bi-LSTM", BIOVID, "").clips
    expected = BioVid.facts.expected
    assert dict(clips) == {name: count * expected.subjects for name, count in expected.clips_per_class.items()}


def test_data_sets_tell_the_names_of_their_published_rows():
    assert {facts.published_as for facts in FACTS.values()} - {""} == {AI4PAIN, BIOVID, MINTPAIN, "UNBC-McMaster"}
    assert {facts.published_as for facts in FACTS.values()} - {""} <= {row.dataset for row in PUBLISHED}


@pytest.mark.parametrize(("name", "accuracy"), [("ANN + vote", 0.59), ("LSTM", 0.607)])
def test_the_counts_turn_the_papers_recalls_into_its_accuracies(name, accuracy):
    clips = np.array(list(AI4PAIN_VALIDATION.values()))
    right = (np.array(RECALLS[name]) * clips).round()
    assert right.sum() / clips.sum() == pytest.approx(accuracy, abs=0.005)
    assert row(name, AI4PAIN, "validation").value == pytest.approx(accuracy, abs=0.0075)


@pytest.mark.parametrize("clips", SCORED_CLIPS.values(), ids=[key[0] for key in SCORED_CLIPS])
def test_the_majority_class_scores_what_scikit_learn_says(clips):
    known = next(r for r in PUBLISHED if r.clips is clips)
    truth, answer = constant_answer(clips)
    assert known.majority_accuracy == pytest.approx(accuracy_score(truth, answer))
    assert known.constant_balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, answer))


@pytest.mark.parametrize(
    ("name", "dataset", "part", "side", "majority"),
    [
        ("organisers' baseline", AI4PAIN, "validation", "below", "0.48"),
        ("Twins-PainViT (Gkikas)", AI4PAIN, "validation", "below", "0.48"),
        ("ANN + vote", AI4PAIN, "validation", "above", "0.48"),
        ("CNN + RNN, replicated", MINTPAIN, "", "below", "0.50"),
        ("VGG, landmarks and Bi-LSTM", BIOVID, "", "above", "0.20"),
    ],
)
def test_a_row_says_where_it_stands_against_the_majority_class(name, dataset, part, side, majority):
    told = row(name, dataset, part).against_majority
    assert told.startswith(side) and majority in told


@pytest.mark.parametrize(
    ("name", "dataset", "part"),
    [
        # Hidden labels; people who are not those of the predefined part; images that are not public.
        ("LSTM", AI4PAIN, "test"),
        ("ViViT (Bargshady et al. 2024)", AI4PAIN, "validation"),
        ("heat-pain VGG16 (Prajod et al. 2022)", BIOVID, ""),
    ],
)
def test_a_row_of_unknown_clips_is_not_set_against_the_majority_class(name, dataset, part):
    assert row(name, dataset, part).against_majority == ""


def test_all_baselines_of_the_organisers_are_below_always_saying_low():
    baselines = [r for r in published_rows(AI4PAIN) if r.name.startswith("organisers") and r.part == "validation"]
    assert len(baselines) == 3 and all(r.against_majority.startswith("below") for r in baselines)
    assert "12 / 144 / 144" in REMARKS[AI4PAIN] and "0.48" in REMARKS[AI4PAIN]


def test_other_metrics_than_accuracy_are_not_set_against_it():
    auc = row("VGG, landmarks and Bi-LSTM", BIOVID, "", "AUC")
    assert auc.clips and auc.against_majority == ""
