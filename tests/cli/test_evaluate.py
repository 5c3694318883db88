"""Scoring and submitting."""

import csv
import json

import pytest

from painseq.evaluation import read_predictions

SAMPLE = "clip_id,subject_id,truth,label,prob_no_pain,prob_low_pain,prob_high_pain\n"


@pytest.fixture
def evaluated(painseq, on_electrical, store, lstm, tmp_path):
    """The folder of the LSTM's test predictions, and what the command said."""
    more = ["--data.options.store", store, "--checkpoint", lstm, "--out", tmp_path / "test"]
    return tmp_path / "test", painseq("evaluate", *on_electrical, *more)


def test_hidden_labels_give_predictions_and_no_score(evaluated, painseq):
    folder, said = evaluated
    assert said.code == 0 and "The labels of this part are hidden" in said.log
    predictions = read_predictions(folder / "predictions.csv")
    assert len(predictions) == 6 and predictions.class_names == ("no_pain", "low_pain", "high_pain")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["models"] == {} and metrics["part"] == "test" and metrics["versions"]["torch"]
    assert (folder / "config.yaml").is_file()
    said = painseq("evaluate", "--predictions", folder / "predictions.csv")
    assert said.code == 1 and "nothing to score. Give the truth with --truth" in said.err


def test_the_truth_from_a_file_scores_them(evaluated, painseq, on_electrical, electrical, store, lstm, tmp_path):
    with (electrical.parent / "electrical_truth" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    truth = tmp_path / "truth.csv"
    truth.write_text("clip_id,label\n" + "".join(f"{row['clip_id']},{row['label']}\n" for row in rows))
    more = ["--data.options.store", store, "--checkpoint", lstm, "--truth", truth, "--out", tmp_path / "scored"]
    said = painseq("evaluate", *on_electrical, *more)
    assert said.code == 0 and "majority" in said.out and "LSTM" in said.out
    scores = json.loads((tmp_path / "scored" / "metrics.json").read_text())["models"]["LSTM"]
    predictions = read_predictions(tmp_path / "scored" / "predictions.csv")
    right = float((predictions.truth == predictions.label).mean())
    assert scores["scores"]["accuracy"] == pytest.approx(right)
    said = painseq("evaluate", "--predictions", tmp_path / "scored" / "predictions.csv", "--out", tmp_path / "again")
    assert said.code == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())["models"]["predictions"]
    assert again["scores"]["accuracy"] == pytest.approx(right)


def test_a_file_of_anybodys_is_scored_with_its_truth(painseq, tmp_path):
    (tmp_path / "mine.csv").write_text("clip_id,subject_id,label\na,s1,low\nb,s1,high\nc,s2,low\nd,s2,high\n")
    (tmp_path / "truth.csv").write_text("clip_id,truth\na,low\nb,low\nc,low\nd,high\n")
    args = ["--predictions", tmp_path / "mine.csv", "--truth", tmp_path / "truth.csv"]
    said = painseq("evaluate", *args, "--classes", "low", "high", "--out", tmp_path / "scores")
    assert said.code == 0, said.err
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())["models"]["mine"]
    assert scores["scores"]["accuracy"] == 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--checkpoint", "none.ckpt"], "No checkpoint at none.ckpt"),
        (["--part", "train"], "says nothing of a new patient"),
        (["--data.options.labels", "binary"], "tells 3 classes apart"),
        (["--device", "cude"], "--device cude: no such device"),
        (["--truth", "none.csv"], "No truth at none.csv"),
    ],
)
def test_a_score_that_cannot_be(painseq, on_electrical, store, lstm, tmp_path, change, message):
    good = ["--data.options.store", store, "--checkpoint", lstm, "--out", tmp_path / "out"]
    said = painseq("evaluate", *on_electrical, *good, *change)
    assert said.code == 1 and message in said.err and not (tmp_path / "out" / "metrics.json").exists()


def test_a_submission_has_one_row_a_test_item_in_native_labels(evaluated, painseq, electrical, tmp_path):
    folder, _ = evaluated
    said = painseq("submit", "--predictions", folder / "predictions.csv", "--out", tmp_path / "submission.csv")
    assert said.code == 0 and "6 items written" in said.log
    with (tmp_path / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["item", "label"]
    videos = {path.relative_to(electrical).with_suffix("").as_posix() for path in electrical.glob("Test/*/*.mp4")}
    assert {item for item, _ in rows[1:]} == videos and len(rows) == 7
    assert {label for _, label in rows[1:]} <= {"No_Pain", "Low_Pain", "High_Pain"}


def test_a_clip_without_a_prediction_needs_a_word_of_the_user(painseq, tmp_path):
    (tmp_path / "p.csv").write_text(f"{SAMPLE}a,s1,,low_pain,0.2,0.5,0.3\nb,s1,,,,,\n")
    args = ["submit", "--predictions", tmp_path / "p.csv", "--out", tmp_path / "s.csv"]
    said = painseq(*args)
    assert said.code == 1 and "1 clips have no prediction, such as 'b'" in said.err and "--fill CLASS" in said.err
    assert not (tmp_path / "s.csv").exists()
    said = painseq(*args, "--fill", "some_pain")
    assert said.code == 1 and "--fill 'some_pain' is no class; classes are no_pain, low_pain, high_pain" in said.err
    assert painseq(*args, "--fill", "no_pain").code == 0
    assert (tmp_path / "s.csv").read_text().split() == ["item,label", "a,Low_Pain", "b,No_Pain"]


def test_predictions_of_other_classes_are_no_submission(painseq, tmp_path):
    (tmp_path / "p.csv").write_text(f"{SAMPLE}a,s1,,low_pain,0.2,0.5,0.3\n")
    args = ["submit", "--predictions", tmp_path / "p.csv", "--out", tmp_path / "s.csv", "--labels"]
    said = painseq(*args, "binary")
    assert said.code == 1 and "Give --labels the scheme of the model" in said.err
    assert "ai4pain has no label scheme 'five'" in painseq(*args, "five").err
