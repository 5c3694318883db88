"""Scoring and submitting."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from painseq.evaluation import read_predictions, with_temperature
from painseq.evaluation.value_predictions import read_value_predictions
from painseq.runs import short_names

SAMPLE = "clip_id,subject_id,truth,label,prob_no_pain,prob_low_pain,prob_high_pain\n"


@pytest.fixture
def evaluated(painseq, on_electrical, store, lstm, tmp_path):
    """The folder of the LSTM's test predictions, and what the command result."""
    more = ["--data.options.store", store, "--checkpoint", lstm, "--out", tmp_path / "test"]
    return tmp_path / "test", painseq("evaluate", *on_electrical, *more)


def test_hidden_labels_give_predictions_and_no_score(evaluated, painseq, lstm, tmp_path):
    folder, result = evaluated
    assert result.code == 0 and not result.out.names("LSTM")
    predictions = read_predictions(folder / "predictions.csv")
    assert len(predictions) == 6 and predictions.class_names == ("no_pain", "low_pain", "high_pain")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["models"] == {} and metrics["part"] == "test" and metrics["versions"]["torch"]
    again = painseq("evaluate", "--config", folder / "config.yaml", "--checkpoint", lstm, "--out", tmp_path / "again")
    assert again.code == 0 and (tmp_path / "again" / "config.yaml").read_text() == (folder / "config.yaml").read_text()
    result = painseq("evaluate", "--predictions", folder / "predictions.csv")
    assert result.code == 1 and result.err.names("--truth")


def test_the_truth_from_a_file_scores_them(evaluated, painseq, on_electrical, electrical, store, lstm, tmp_path):
    with (electrical.parent / "electrical_truth" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    truth = tmp_path / "truth.csv"
    truth.write_text("clip_id,label\n" + "".join(f"{row['clip_id']},{row['label']}\n" for row in rows))
    more = ["--data.options.store", store, "--checkpoint", lstm, "--truth", truth, "--out", tmp_path / "scored"]
    result = painseq("evaluate", *on_electrical, *more)
    assert result.code == 0 and result.out.names("LSTM") and "majority" in result.out
    scores = json.loads((tmp_path / "scored" / "metrics.json").read_text())["models"]["LSTM"]
    predictions = read_predictions(tmp_path / "scored" / "predictions.csv")
    right = float((predictions.truth == predictions.label).mean())
    assert scores["scores"]["accuracy"] == pytest.approx(right)
    result = painseq("evaluate", "--predictions", tmp_path / "scored" / "predictions.csv", "--out", tmp_path / "again")
    assert result.code == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())["models"]["scored"]
    assert again["scores"]["accuracy"] == pytest.approx(right)


def test_a_file_of_anybodys_is_scored_with_its_truth(painseq, tmp_path):
    (tmp_path / "mine.csv").write_text("clip_id,subject_id,label\na,s1,low\nb,s1,high\nc,s2,low\nd,s2,high\n")
    (tmp_path / "truth.csv").write_text("clip_id,truth\na,low\nb,low\nc,low\nd,high\n")
    args = ["--predictions", tmp_path / "mine.csv", "--truth", tmp_path / "truth.csv"]
    result = painseq("evaluate", *args, "--classes", "low", "high", "--out", tmp_path / "scores")
    assert result.code == 0, result.err
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())["models"]["mine"]
    assert scores["scores"]["accuracy"] == 0.75


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (["--checkpoint", "none.ckpt"], ("none.ckpt",)),
        (["--part", "train"], (3, "ai4pain/S01", "ai4pain/S02", "ai4pain/S04")),
        (["--data.options.labels", "binary"], (2, 3)),
        (["--device", "cude"], ("--device", "cude")),
        (["--truth", "none.csv"], ("none.csv",)),
    ],
)
def test_a_score_that_cannot_be(painseq, on_electrical, store, lstm, tmp_path, change, facts):
    good = ["--data.options.store", store, "--checkpoint", lstm, "--out", tmp_path / "out"]
    result = painseq("evaluate", *on_electrical, *good, *change)
    assert result.code == 1 and result.err.names(*facts) and not (tmp_path / "out" / "metrics.json").exists()


def test_a_submission_has_one_row_a_test_item_in_native_labels(evaluated, painseq, electrical, tmp_path):
    folder, _ = evaluated
    result = painseq("submit", "--predictions", folder / "predictions.csv", "--out", tmp_path / "submission.csv")
    assert result.code == 0 and result.log.names(6, tmp_path / "submission.csv")
    with (tmp_path / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["item", "label"]
    videos = {path.relative_to(electrical).with_suffix("").as_posix() for path in electrical.glob("Test/*/*.mp4")}
    assert {item for item, _ in rows[1:]} == videos and len(rows) == 7
    assert {label for _, label in rows[1:]} <= {"No_Pain", "Low_Pain", "High_Pain"}


def test_a_clip_without_a_prediction_needs_a_word_of_the_user(painseq, tmp_path):
    (tmp_path / "p.csv").write_text(f"{SAMPLE}a,s1,,low_pain,0.2,0.5,0.3\nb,s1,,,,,\n")
    args = ["submit", "--predictions", tmp_path / "p.csv", "--out", tmp_path / "s.csv"]
    result = painseq(*args)
    assert result.code == 1 and result.err.names(1, "b", "--fill")
    assert not (tmp_path / "s.csv").exists()
    result = painseq(*args, "--fill", "some_pain")
    assert result.code == 1 and result.err.names("fill", "some_pain", "no_pain", "low_pain", "high_pain")
    assert painseq(*args, "--fill", "no_pain").code == 0
    assert (tmp_path / "s.csv").read_text().split() == ["item,label", "a,Low_Pain", "b,No_Pain"]


def test_predictions_of_other_classes_are_no_submission(painseq, tmp_path):
    (tmp_path / "p.csv").write_text(f"{SAMPLE}a,s1,,low_pain,0.2,0.5,0.3\n")
    args = ["submit", "--predictions", tmp_path / "p.csv", "--out", tmp_path / "s.csv", "--labels"]
    result = painseq(*args, "binary")
    assert result.code == 1 and result.err.names("low_pain", "--labels")
    assert painseq(*args, "five").err.names("ai4pain", "five", "binary", "three")


def write_predictions(path, who, rng, sharper=1.0, people=12):
    """Clips of `people` subjects, with probabilities that are `sharper` than they should be; no age, no sex."""
    rows = ["clip_id,subject_id,truth,label,prob_none,prob_mild,prob_strong,frames,faceless"]
    names = ("none", "mild", "strong")
    for subject in range(people):
        for clip in range(9):
            logits = rng.normal(size=3)
            fair = np.exp(logits) / np.exp(logits).sum()
            truth = names[rng.choice(3, p=fair)]
            stated = fair**sharper / (fair**sharper).sum()
            cells = [f"{value:.6f}" for value in stated]
            rows.append(f"{who}{subject}_{clip},{who}{subject},{truth},{names[stated.argmax()]},{','.join(cells)},8,1")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_file_leaves_scores_subjects_a_page_and_its_numbers(painseq, tmp_path):
    rng = np.random.default_rng(0)
    mine = write_predictions(tmp_path / "mine.csv", "s", rng)
    (tmp_path / "people.csv").write_text(
        "subject_id,sex,age\n" + "".join(f"s{i},{'fm'[i % 2]},{25 + 4 * i}\n" for i in range(11))
    )
    result = painseq(
        "evaluate", "--predictions", mine, "--subjects", tmp_path / "people.csv", "--out", tmp_path / "out"
    )
    assert result.code == 0, result.err
    assert result.out.names("AUROC", "sex", "f", "m")
    assert result.log.names(1, "s11")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "predictions.csv", "metrics.json", "subjects.csv", "report.html", "figures",
    }  # fmt: skip
    made = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]["mine"]
    predictions = read_predictions(tmp_path / "out" / "predictions.csv")
    assert made["probability"]["auroc"] == pytest.approx(
        roc_auc_score(predictions.truth, predictions.probabilities, multi_class="ovr")
    )
    assert made["intervals"]["auroc"]["low"] < made["probability"]["auroc"] < made["intervals"]["auroc"]["high"]
    groups = {group["name"]: group["subjects"] for group in made["subgroups"] if group["attribute"] == "sex"}
    assert groups == {"f": 6, "m": 5, "not known": 1}
    with (tmp_path / "out" / "subjects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[0]["subject_id"] == "s0" and rows[0]["sex"] == "f" and rows[0]["age"] == "25"
    right = (predictions.truth == predictions.label)[np.array(predictions.subject_ids) == "s0"]
    assert float(rows[0]["accuracy"]) == pytest.approx(right.mean())
    assert float(rows[0]["faceless_share"]) == 1 / 8
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{made['probability']['auroc']:.3f}" in page and "sex" in page and "age" in page
    figures = json.loads((tmp_path / "out" / "figures" / "figures.json").read_text())
    assert figures and (tmp_path / "out" / "figures" / "scores.csv").is_file()


def test_a_file_is_calibrated_on_other_people(painseq, tmp_path):
    rng = np.random.default_rng(1)
    mine = write_predictions(tmp_path / "mine.csv", "s", rng, sharper=3.0, people=30)
    others = write_predictions(tmp_path / "others.csv", "v", rng, sharper=3.0, people=30)
    args = ["evaluate", "--predictions", mine, "--calibrate-on"]
    result = painseq(*args, others, "--out", tmp_path / "out")
    assert result.code == 0 and result.out.count("mine") >= 2
    made = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]["mine"]
    calibration = made["calibration"]
    assert calibration["temperature"] == pytest.approx(3, rel=0.3) and len(calibration["fitted_on"]) == 30
    assert calibration["before"]["brier"] > calibration["after"]["brier"] == made["probability"]["brier"]
    before, after = read_predictions(mine), read_predictions(tmp_path / "out" / "predictions.csv")
    assert after.label.tolist() == before.label.tolist()
    assert after.probabilities == pytest.approx(with_temperature(before, calibration["temperature"]).probabilities)
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"\b270\b\D+\b30\b", page) and f"{calibration['temperature']:.2f}" in page
    result = painseq(*args, mine, "--out", tmp_path / "again")
    assert result.code == 1 and result.err.names(30, "s0") and not (tmp_path / "again").exists()
    leaky = others.rename(tmp_path / "clip_kfold_LEAKY.csv")
    assert painseq(*args, leaky).err.names("LEAKY", leaky)


def test_values_on_a_scale_are_scored_from_a_file(painseq, tmp_path):
    rng = np.random.default_rng(2)
    truth = rng.uniform(0, 16, 60)
    value = truth + rng.normal(size=60)
    rows = [f"c{i},s{i % 10},{value[i]:.4f}" for i in range(60)]
    (tmp_path / "values.csv").write_text("clip_id,subject_id,value_pspi\n" + "\n".join(rows) + "\n")
    (tmp_path / "truth.csv").write_text("clip_id,truth\n" + "".join(f"c{i},{truth[i]:.4f}\n" for i in range(60)))
    args = ["evaluate", "--predictions", tmp_path / "values.csv"]
    assert painseq(*args).err.names("--truth")
    result = painseq(*args, "--truth", tmp_path / "truth.csv", "--out", tmp_path / "out")
    assert result.code == 0 and result.out.names("pspi") and "ICC" in result.out, result.err
    made = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]["values"]
    assert made["scores"]["mse"] == pytest.approx(((truth - value) ** 2).mean(), abs=1e-3)
    assert (tmp_path / "out" / "predictions.csv").read_text().startswith("clip_id,subject_id,truth,value_pspi")
    with (tmp_path / "out" / "subjects.csv").open(newline="") as file:
        assert [row["subject_id"] for row in csv.DictReader(file)] == [f"s{i}" for i in range(10)]
    assert "pspi" in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "people.csv").write_text("subject_id,sex\ns0,f\n")
    result = painseq(*args, "--subjects", tmp_path / "people.csv")
    assert result.code == 1 and result.err.names("sex", "age", "classes")
    result = painseq(*args, "--calibrate-on", tmp_path / "values.csv")
    assert result.code == 1 and result.err.names("probabilities")
    assert painseq(*args, "--classes", "none", "some").err.names("--classes")
    (tmp_path / "truth.csv").write_text("clip_id,truth\nc0,much\n")
    assert painseq(*args, "--truth", tmp_path / "truth.csv").err.names("c0", "much")
    (tmp_path / "truth.csv").write_text("clip_id,truth\nc0,1\n")
    assert painseq(*args, "--truth", tmp_path / "truth.csv").err.names("c1")
    written = tmp_path / "out" / "predictions.csv"
    result = painseq("evaluate", "--predictions", written, "--truth", tmp_path / "truth.csv")
    assert result.err.names("c0", f"{read_value_predictions(written).truth[0]:g}", 1)


def test_predictions_from_few_frames_with_a_face_are_warned_of_in_every_output(painseq, tmp_path):
    head = "clip_id,subject_id,truth,label,prob_No,prob_Yes,frames,faceless\n"
    rows = [("a", 52, 51), ("b", 52, 30), ("c", 52, 0)]
    text = "".join(f"{name},{name},No,No,0.7,0.3,{frames},{faceless}\n" for name, frames, faceless in rows)
    (tmp_path / "p.csv").write_text(head + text)
    result = painseq("evaluate", "--predictions", tmp_path / "p.csv", "--out", tmp_path / "out")
    assert result.code == 0 and result.out.names("2 of 3 clips", "50%")
    (scored,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"].values()
    assert scored["counts"]["few_faces"] == 2 and any("50%" in line for line in scored["warnings"])
    assert "2 of 3 clips are predicted" in (tmp_path / "out" / "report.html").read_text()
    fewer = painseq("evaluate", "--predictions", tmp_path / "p.csv", "--min-face-share", "0.1")
    assert fewer.out.names("1 of 3 clips", "10%")


def test_a_checkpoint_that_sees_few_faces_is_warned_of(painseq, on_electrical, store, lstm, tmp_path):
    call = ["evaluate", *on_electrical, "--data.options.store", store, "--checkpoint", lstm, "--min-face-share"]
    assert not painseq(*call, "1", "--out", tmp_path / "all").log.names("100%")  # A face in every frame.
    result = painseq(*call, "2", "--out", tmp_path / "out")
    assert result.code == 1 and result.err.names("--min-face-share", "2.0")


def test_a_leaky_file_says_so_in_every_output(painseq, tmp_path):
    mine = write_predictions(tmp_path / "frame_kfold_LEAKY.csv", "s", np.random.default_rng(3))
    result = painseq("evaluate", "--predictions", mine, "--out", tmp_path / "out")
    assert result.code == 0 and result.log.names("LEAKY")
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]) == ["frame_kfold_LEAKY"]
    assert "LEAKY" in (tmp_path / "out" / "report.html").read_text()
    # Nor does the mark end with the first command that reads the file.
    for name in ("predictions.csv", "subjects.csv"):
        with (tmp_path / "out" / name).open(newline="") as file:
            assert {row["leaky"] for row in csv.DictReader(file)} == {"LEAKY"}
    again = painseq("evaluate", "--predictions", tmp_path / "out" / "predictions.csv")
    assert again.code == 0 and again.log.names("LEAKY") and "LEAKY" in again.out
    honest = write_predictions(tmp_path / "honest.csv", "s", np.random.default_rng(4))
    result = painseq("compare", tmp_path / "out", honest)
    assert result.code == 1 and result.err.names("LEAKY")


def test_help_tells_the_options_of_both_forms(painseq):
    result = painseq("evaluate", "--help")
    assert result.code == 0 and len(result.out.splitlines()) < 50 and max(map(len, result.out.splitlines())) <= 120
    options = "--config --checkpoint --average --part --truth --calibrate --prior --device --trust --out"
    assert result.out.names(*options.split(), "--predictions", "--data.options.store")
    assert painseq("evaluate").out == result.out
    of_file = painseq("evaluate", "--predictions", "x.csv", "--help")
    assert of_file.out.names("--dataset", "--subjects", "--calibrate-on")


def test_several_checkpoints_are_scored_side_by_side(painseq, on_electrical, store, lstm, ann, true_labels, tmp_path):
    args = ["evaluate", *on_electrical, "--data.options.store", store, "--truth", true_labels]
    result = painseq(*args, "--checkpoint", lstm, "--checkpoint", ann, "--out", tmp_path / "both")
    names = [path.parent.name for path in (lstm, ann)]
    assert result.code == 0 and result.out.names(*names) and result.out.count("Macro F1") == 1, result.err
    for name, checkpoint in zip(names, (lstm, ann), strict=True):
        alone = painseq(*args, "--checkpoint", checkpoint, "--out", tmp_path / name)
        assert alone.code == 0
        for file in ("predictions.csv", "subjects.csv"):
            assert (tmp_path / "both" / name / file).read_bytes() == (tmp_path / name / file).read_bytes()
        assert (tmp_path / "both" / name / "report.html").is_file()
    averaged = painseq(*args, "--average", "--checkpoint", lstm, "--checkpoint", ann, "--out", tmp_path / "averaged")
    assert averaged.code == 1 and averaged.err.names("level")


def test_runs_are_named_by_as_many_folders_as_tell_them_apart():
    assert short_names([Path("runs/a/best.ckpt"), Path("runs/b/best.ckpt")]) == ["a", "b"]
    assert short_names([Path("x/fold0/best.ckpt"), Path("y/fold0/best.ckpt")]) == ["x-fold0", "y-fold0"]
    assert short_names([Path("run/best.ckpt"), Path("run/last.ckpt")]) == ["best", "last"]


def test_scoring_a_file_loads_no_torch(tmp_path):
    mine = write_predictions(tmp_path / "mine.csv", "s", np.random.default_rng(4))
    code = (
        "import sys; from painseq.cli import main; "
        f"code = main(['evaluate', '--predictions', {str(mine)!r}, '--out', {str(tmp_path / 'out')!r}]); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=600).returncode == 0


@pytest.fixture
def true_labels(electrical, tmp_path):
    """The truth of the electrical test part, which its layout hides."""
    with (electrical.parent / "electrical_truth" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    path = tmp_path / "truth.csv"
    path.write_text("clip_id,label\n" + "".join(f"{row['clip_id']},{row['label']}\n" for row in rows))
    return path


def test_a_checkpoint_is_calibrated_on_its_validation_subjects(
    painseq, on_electrical, store, lstm, true_labels, tmp_path
):
    args = ["evaluate", *on_electrical, "--data.options.store", store, "--checkpoint", lstm]
    plain = painseq(*args, "--truth", true_labels, "--out", tmp_path / "plain")
    result = painseq(*args, "--truth", true_labels, "--calibrate", "--out", tmp_path / "scaled")
    assert plain.code == result.code == 0, result.err
    details = json.loads((tmp_path / "scaled" / "metrics.json").read_text())
    calibration = details["models"]["LSTM"]["calibration"]
    assert calibration["fitted_on"] == details["split"]["validation"] and len(calibration["fitted_on"]) == 1
    assert calibration["temperature"] == details["temperature"] != 1
    own, scaled = (read_predictions(tmp_path / run / "predictions.csv") for run in ("plain", "scaled"))
    assert scaled.probabilities == pytest.approx(with_temperature(own, details["temperature"]).probabilities)
    assert scaled.label.tolist() == own.label.tolist()
    assert json.loads((tmp_path / "plain" / "metrics.json").read_text())["temperature"] is None
    page = (tmp_path / "scaled" / "report.html").read_text()
    assert "generated" in page and f"{details['temperature']:.2f}" in page
    assert "learning_curves" in json.loads((tmp_path / "scaled" / "figures" / "figures.json").read_text())
    # With hidden labels the probabilities are scaled all the same.
    hidden = painseq(*args, "--calibrate", "--out", tmp_path / "hidden")
    assert hidden.code == 0 and not (tmp_path / "hidden" / "report.html").exists()
    assert json.loads((tmp_path / "hidden" / "metrics.json").read_text())["temperature"] == details["temperature"]


def test_a_temperature_is_not_fitted_on_those_scored_or_trained_on(
    painseq, on_electrical, store, lstm, electrical, tmp_path
):
    args = ["evaluate", *on_electrical, "--data.options.store", store, "--checkpoint", lstm, "--calibrate"]
    result = painseq(*args, "--part", "validation", "--out", tmp_path / "a")
    assert result.code == 1 and result.err.names("validation")
    trained = sorted(path.name for path in (electrical / "Train").iterdir())
    test = sorted(path.name for path in (electrical / "Test").iterdir())
    split = ["--data.options.split.protocol", "subject_lists"]
    split += [
        f"--data.options.split.{part}={json.dumps(who)}" for part, who in (("validation", trained), ("test", test))
    ]
    result = painseq(*args, *split, "--out", tmp_path / "b")
    assert result.code == 1 and result.err.names("validation", 3, "ai4pain")
    none = ["--data.options.split.protocol", "subject_lists", f"--data.options.split.test={json.dumps(test)}"]
    result = painseq(*args, *none, "--out", tmp_path / "c")
    assert result.code == 1 and result.err.names("validation", "temperature")


def test_a_manifest_that_knows_sex_and_age_gives_subgroups(painseq, on_heat, heat, lstm, tmp_path):
    """A model fitted on other data, so that everybody can be scored."""
    wanted = ["--data.options.labels", "three"]
    result = painseq(
        "extract", *on_heat, *wanted, "--out", tmp_path / "store", "--dtype", "float32", "--precision", "fp32"
    )
    assert result.code == 0, result.err
    names = sorted(path.name for path in (heat / "PartA" / "video").iterdir())
    everybody = ["--data.options.split.protocol", "subject_lists", f"--data.options.split.test={json.dumps(names)}"]
    args = [*on_heat, *wanted, *everybody, "--data.options.store", tmp_path / "store", "--checkpoint", lstm]
    result = painseq("evaluate", *args, "--out", tmp_path / "out")
    assert result.code == 0 and result.out.names("sex"), result.err
    with (tmp_path / "out" / "subjects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and all(row["sex"] == {"m": "m", "w": "f"}[row["subject_id"].split("_")[1]] for row in rows)
    assert all(row["age"] == row["subject_id"].split("_")[2] for row in rows)
