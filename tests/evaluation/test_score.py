import dataclasses
import io
import json
import re

import numpy as np
import pytest
import sklearn.metrics as reference
from rich.console import Console
from sklearn.dummy import DummyClassifier

from painseq.errors import PainseqError
from painseq.evaluation import (
    PUBLISHED,
    Person,
    always_majority,
    baselines,
    calibrate,
    paired_difference,
    score,
    table,
)
from painseq.evaluation.tables import probability_table, subgroup_table


def test_the_majority_class_is_that_of_the_scored_clips(predictions):
    truth = [0] * 2 + [1] * 5 + [2] * 3
    majority, chance = baselines(predictions(truth, [0] * 10))
    assert "Low Pain" in majority.rule
    assert majority.scores.accuracy == 0.5
    assert majority.scores.balanced_accuracy == pytest.approx(1 / 3)
    assert majority.scores.quadratic_weighted_kappa == pytest.approx(0)
    assert chance.scores.accuracy == pytest.approx(1 / 3)


def test_chance_is_what_guessing_gives_on_average(predictions):
    truth = [0] * 12 + [1] * 60 + [2] * 48
    chance = baselines(predictions(truth, [0] * 120))[1].scores
    guesses = [
        DummyClassifier(strategy="uniform", random_state=seed).fit(np.zeros((3, 1)), [0, 1, 2]).predict(truth)
        for seed in range(400)
    ]
    assert chance.accuracy == pytest.approx(1 / 3)
    assert chance.balanced_accuracy == pytest.approx(1 / 3)
    assert chance.quadratic_weighted_kappa == pytest.approx(0)
    for ours, theirs in (
        (chance.accuracy, lambda g: reference.accuracy_score(truth, g)),
        (chance.balanced_accuracy, lambda g: reference.balanced_accuracy_score(truth, g)),
        (chance.quadratic_weighted_kappa, lambda g: reference.cohen_kappa_score(truth, g, weights="quadratic")),
        (chance.macro_f1, lambda g: reference.f1_score(truth, g, average="macro")),
    ):
        assert ours == pytest.approx(np.mean([theirs(guess) for guess in guesses]), abs=0.015)


def test_baselines_are_scored_on_the_clips_that_the_model_is(predictions):
    made = predictions([0, 0, 1, 1, 2], [0, -1, 1, 1, -1])
    majority = baselines(made)[0]
    assert sum(majority.scores.support) == score(made).counts.scored == 3
    assert majority.scores.accuracy == pytest.approx(2 / 3)
    always = always_majority(made)
    assert always.label.tolist() == [1, -1, 1, 1, -1]
    assert paired_difference(made, always, ["accuracy"])["accuracy"].value == pytest.approx(1 / 3)


def test_predictions_from_few_frames_with_a_face_are_counted_and_warned_of(predictions):
    made = dataclasses.replace(
        predictions([0, 1, 2, 2, -1, 0], [0, 1, 2, -1, 1, 0]),
        frames=np.array([10, 10, 10, 10, 52, -1]),
        faceless=np.array([4, 5, 6, 10, 51, -1]),
    )
    evaluation = score(made)
    assert (evaluation.counts.few_faces, evaluation.counts.min_face_share) == (2, 0.5)
    assert warned(evaluation, "2", "6", "50%", "face")
    assert evaluation.to_dict()["counts"]["few_faces"] == 2
    assert score(made, min_face_share=0.6).counts.few_faces == 3
    few = score(made, min_face_share=1 / 52)
    assert few.counts.few_faces == 0 and not warned(few, "frames have a face")
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(PainseqError, match=rf"min_face_share.*{share}"):
            score(made, min_face_share=share)


def test_clips_without_a_prediction_are_left_out_and_counted(predictions):
    evaluation = score(predictions([0, 1, 2, 2, -1], [0, 1, -1, 2, 0], ["a", "b", "c", "d", "e"]))
    counts = evaluation.counts
    assert (counts.clips, counts.scored, counts.without_prediction, counts.hidden) == (5, 3, 1, 1)
    assert counts.without_prediction_by_class == {"No Pain": 0, "Low Pain": 0, "High Pain": 1}
    assert counts.without_prediction_by_subject == {"c": 1}
    assert counts.faceless_share_by_class == {"No Pain": 0.0, "Low Pain": 0.0, "High Pain": 0.5}
    assert (counts.frames, counts.faceless, counts.subjects) == (50, 10, 3)
    assert evaluation.scores.accuracy == 1
    assert warned(evaluation, "1", "5", "prediction")
    assert warned(evaluation, "1", "5", "truth")


def warned(evaluation, *parts):
    return any(all(part in line for part in parts) for line in evaluation.warnings)


def test_warnings(predictions):
    subjects = [f"s{i // 4}" for i in range(120)]
    truth = [0, 1, 2, 1] * 30
    perfect = score(predictions(truth, truth, subjects))
    assert perfect.warnings == ()

    never_high = score(predictions(truth, [0, 1, 1, 1] * 30, subjects))
    assert warned(never_high, "High Pain", "recall 0", "30", "predicted")
    assert not any(warned(never_high, baseline.name) for baseline in never_high.baselines)
    never_right = score(predictions(truth, [2, 1, 1, 1] * 30, subjects))
    assert warned(never_right, "High Pain", "recall 0", "30")
    assert not warned(never_right, "High Pain", "predicted")

    constant = score(predictions(truth, [1] * 120, subjects))
    assert all(warned(constant, baseline.name, "0.333") for baseline in constant.baselines)

    rng = np.random.default_rng(3)
    guess = np.where(rng.random(120) < 0.05, truth, rng.integers(0, 3, 120))
    guessed = score(predictions(truth, list(guess), subjects))
    interval = guessed.intervals["balanced_accuracy"]
    assert warned(guessed, f"{interval.low:.3f}", f"{interval.high:.3f}", "0.333")

    assert warned(score(predictions([0, 1], [0, 1], ["a", "b"])), "High Pain", "truth")
    assert warned(score(predictions([0, 1], [0, 1], ["a", "b"])), "2 subjects")
    assert warned(score(predictions([0, 1], [0, 1], ["a", "a"])), "1 subject", "interval")
    assert warned(score(predictions([1, 1], [1, 1])), "kappa", "class")
    assert warned(score(predictions([0, 1, 2], [0, 1, 2], order_known=False)), "kappa", "order")


@pytest.mark.parametrize(("truth", "label"), [([], []), ([-1, -1], [0, 1]), ([0, 1], [-1, -1]), ([1], [1])])
def test_degenerate_predictions_give_an_evaluation_without_nan(predictions, truth, label):
    evaluation = score(predictions(truth, label))
    text = json.dumps(evaluation.to_dict(), allow_nan=False)
    assert json.loads(text)["scores"]["quadratic_weighted_kappa"] is None
    if truth != [1]:
        assert evaluation.counts.scored == 0 and warned(evaluation, "truth", "prediction")
    render({"model": evaluation})


def test_the_keys_of_the_json_file(predictions):
    values = json.loads(json.dumps(score(predictions([0, 1, 2], [0, 2, 2])).to_dict(), allow_nan=False))
    assert list(values) == [
        "class_names",
        "scores",
        "probability",
        "intervals",
        "baselines",
        "calibration",
        "threshold",
        "subgroups",
        "subgroup_differences",
        "by_subject",
        "counts",
        "clips_without_prediction",
        "warnings",
    ]
    assert list(values["intervals"]) == [
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "quadratic_weighted_kappa",
        "mean_absolute_error",
        "auroc",
        "auprc",
        "brier",
        "ece",
    ]
    assert list(values["baselines"]) == ["majority class", "chance"]
    assert values["scores"]["per_class"]["High Pain"] == {
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "support": 1,
        "predicted": 2,
    }


def test_an_error_is_compared_the_other_way_round(predictions):
    # Always the middle class is nearer to the truth than a model that takes the ends for each other.
    subjects = [f"s{i // 4}" for i in range(120)]
    truth = [0, 0, 1, 2] * 30
    far_off = score(predictions(truth, [0, 2, 1, 0] * 30, subjects))
    assert far_off.scores.mean_absolute_error == 1
    assert warned(far_off, far_off.baselines[0].name, "1.000", "0.750")  # always “No Pain”, the majority
    assert [line for line in far_off.warnings if "No Pain" in line and "1.000" in line and "baseline" not in line]
    middle = score(predictions([0, 1, 2, 0, 2] * 20, [0, 1, 0, 0, 0] * 20))
    assert warned(middle, "Low Pain", "0.800")
    assert not warned(middle, middle.baselines[0].name, "0.800")
    near = score(predictions(truth, [0, 0, 1, 1] * 30, subjects))
    assert not warned(near, "No Pain", "0.750")


def test_warnings_of_the_probabilities(predictions):
    truth, subjects = [0, 1, 2, 1] * 30, [f"s{i // 4}" for i in range(120)]
    made = predictions(truth, [0, 1, 2, 0] * 30, subjects)
    (too_sure,) = score(made).warnings
    assert "1.000" in too_sure and "0.750" in too_sure
    unsure = dataclasses.replace(made, label=made.truth, probabilities=np.eye(3)[made.truth] * 0.4 + 0.2)
    (too_unsure,) = score(unsure).warnings
    assert "0.600" in too_unsure and "1.000" in too_unsure
    # One is told from the other by more than its numbers.
    assert len({re.sub(r"-?[0-9.]+", "", line) for line in (too_sure, too_unsure)}) == 2
    wrong = dataclasses.replace(made, probabilities=np.roll(np.eye(3)[made.truth], 1, axis=1))
    assert warned(score(wrong), "AUROC", "0.250", "0.500")
    assert warned(score(wrong), "Brier", "2.000", "0.625")
    shares = dataclasses.replace(made, probabilities=np.tile([0.25, 0.5, 0.25], (120, 1)))
    assert warned(score(shares), "Brier", "0.625") and warned(score(shares), "AUROC", "0.500")
    assert len(score(shares).warnings) == 2

    bare = dataclasses.replace(made, probabilities=np.full((120, 3), np.nan))
    assert score(bare).probability is None and score(bare).value("auroc") is None
    assert warned(score(bare), "probabilities", "AUROC")
    some = made.probabilities.copy()
    some[:5] = np.nan
    assert warned(score(dataclasses.replace(made, probabilities=some)), "5 of 120", "probabilities")


def test_a_value_is_found_by_the_name_of_its_interval(predictions):
    evaluation = score(predictions([0, 1, 2, 1] * 8, [0, 1, 2, 0] * 8))
    for name, interval in evaluation.intervals.items():
        assert interval.low - 1e-9 <= evaluation.value(name) <= interval.high + 1e-9 or name == "ece"
    assert evaluation.value("accuracy") == evaluation.scores.accuracy
    assert evaluation.value("brier") == evaluation.probability.brier


def test_subgroups_and_subjects_are_part_of_an_evaluation(predictions):
    made = predictions([0, 1, 2, 1] * 12, [0, 1, 2, 0] * 12, [f"s{i // 4:02d}" for i in range(48)])
    people = {f"s{i:02d}": Person("fm"[i % 2], 30 + 5 * i) for i in range(12)}
    evaluation = score(made, people)
    assert [group.name for group in evaluation.subgroups] == ["f", "m", "under 36", "36 to 50", "over 50"]
    assert [(d.first, d.second) for d in evaluation.subgroup_differences] == [("f", "m")]
    assert [(row.subject_id, row.sex) for row in evaluation.by_subject][:2] == [("s00", "f"), ("s01", "m")]
    values = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert values["subgroups"][0]["subjects"] == 6 and values["by_subject"][3]["age"] == 45
    console = Console(width=80, file=io.StringIO())
    console.print(subgroup_table({"LSTM": evaluation}))
    text = console.file.getvalue()
    assert all(group.attribute in text and group.name in text for group in evaluation.subgroups)
    assert "+0.000" in text
    assert subgroup_table({"LSTM": score(made)}) is None


def test_the_table_of_probabilities_shows_them_before_and_after_calibration(predictions):
    rng = np.random.default_rng(0)
    made = predictions([0, 1, 2, 1] * 12, [0, 1, 2, 0] * 12, [f"s{i // 4:02d}" for i in range(48)])
    made = dataclasses.replace(made, probabilities=rng.dirichlet(np.ones(3), 48))
    others = dataclasses.replace(made, subject_ids=tuple(f"other {s}" for s in made.subject_ids))
    scaled, calibration = calibrate(made, others)
    console = Console(width=80, file=io.StringIO())
    console.print(probability_table({"LSTM": score(scaled, calibration=calibration)}))
    text = " ".join(console.file.getvalue().split())
    assert text.count("LSTM") == 2 and "temperature" in text
    assert f"{calibration.before.ece:.3f}" in text and f"{calibration.after.ece:.3f}" in text
    bare = dataclasses.replace(made, probabilities=np.full((48, 3), np.nan))
    assert probability_table({"LSTM": score(bare)}) is None


def render(evaluations) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(table(evaluations))
    return console.file.getvalue()


def test_the_table_shows_models_and_baselines_once(predictions):
    made = predictions([0, 1, 2, 2] * 5, [0, 1, 1, 2] * 5)
    evaluation = score(made)
    majority = evaluation.baselines[0].name
    text = render({"LSTM [heat]": evaluation, "ANN": evaluation})
    assert "LSTM [heat]" in text
    assert "0.750" in text
    assert text.count(majority) == 2  # one row, one rule below the table
    other = score(made.only(range(7)))
    assert f"{majority} (ANN)" in " ".join(render({"LSTM": evaluation, "ANN": other}).split())


def test_a_class_that_is_not_in_the_truth_makes_naming_another_one_the_mark(predictions):
    """Of three classes two occur: always naming one of them scores 0.5, and guessing among all 0.333."""
    truth = [0, 1] * 72
    right = np.random.default_rng(3).random(144) < 0.54
    made = score(
        predictions(truth, np.where(right, truth, 1 - np.array(truth)).tolist(), [f"s{i // 6}" for i in range(144)])
    )
    interval = made.intervals["balanced_accuracy"]
    assert 1 / 3 < interval.low < 0.5 < made.scores.balanced_accuracy
    assert warned(made, f"{interval.low:.3f}", f"{interval.high:.3f}", "0.500")


def test_published_rows_state_where_they_are_from():
    assert all(row.dataset and row.protocol and row.source and 0 <= row.value <= 1 for row in PUBLISHED)
    assert len({(row.verified, row.standing) for row in PUBLISHED}) == len({row.standing for row in PUBLISHED}) == 2
    assert {row.part for row in PUBLISHED} == {"validation", "test", ""}
    keys = [(row.name, row.dataset, row.modality, row.part, row.metric) for row in PUBLISHED]
    assert len(set(keys)) == len(keys)


def test_at_chance_is_at_chance_though_the_last_digit_is_above(predictions):
    """Recalls of 16, 19, 22, 15 and 23 of 95: a fifth on average."""
    truth = np.repeat(np.arange(5), 95)
    label = np.where(np.arange(475) % 95 < np.repeat([16, 19, 22, 15, 23], 95), truth, (truth + 1) % 5)
    people = [f"s{i % 25}" for i in range(475)]
    made = score(predictions(truth.tolist(), label.tolist(), people, tuple("abcde")))
    assert made.scores.balanced_accuracy > 0.2 == made.baselines[-1].scores.balanced_accuracy
    assert warned(made, made.baselines[-1].name, "0.200")
    interval = made.intervals["balanced_accuracy"]
    assert interval.low < 0.2 and not warned(made, f"{interval.low:.3f}", f"{interval.high:.3f}")
