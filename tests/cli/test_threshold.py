"""A tuned threshold on the command line: fitted, scored beside 0.5, predicted with, cross-validated."""

import csv
import json

import pytest

from painseq.cli.fit import fit


@pytest.fixture(scope="module")
def tuned(work, on_electrical, store):
    """The run of a frame ANN of two classes with a tuned threshold."""
    args = [*on_electrical, "--data.options.labels", "binary", "--data.options.split.protocol", "official"]
    args += ["--data.options.store", str(store), "--config", "configs/head/frame_ann.yaml"]
    return fit([*args, "--tune-threshold", "sensitivity=0.9", "--inner-folds", "2", "--out", str(work / "tuned")])


def on_test(on_electrical, store):
    split = ["--data.options.split.protocol", "official", "--data.options.store", str(store)]
    return [*on_electrical, "--data.options.labels", "binary", *split]


def test_a_tuned_model_is_scored_beside_one_half_in_every_report(
    painseq, tuned, electrical, on_electrical, store, tmp_path
):
    found = json.loads((tuned / "run.json").read_text())["threshold"]
    assert (found["metric"], found["inner_folds"], found["replaces_votes"]) == ("sensitivity=0.9", 2, True)
    truth = electrical.parent / "electrical_truth" / "labels.csv"
    args = ["--checkpoint", tuned / "best.ckpt", "--truth", truth, "--out", tmp_path / "out"]
    done = painseq("evaluate", *on_test(on_electrical, store), *args)
    assert done.code == 0 and "Sensitivity" in done.out and "Specificity" in done.out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    (scores,) = metrics["models"].values()
    assert metrics["threshold"] == found and scores["threshold"]["thresholds"] == [found["value"]]
    assert {"sensitivity", "specificity"} <= scores["threshold"]["at_half"].keys()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Specificity" in page and "out-of-fold" in page and f"{found['value']:.4f}" in page
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert float(row["tuned_threshold"]) == found["value"]
            assert (float(row["prob_high_pain"]) >= found["value"]) is (row["label"] == "high_pain")
    again = painseq("evaluate", "--predictions", tmp_path / "out" / "predictions.csv")
    assert again.code == 0 and "Sensitivity" in again.out


def test_a_video_is_labelled_by_the_threshold(painseq, tuned, video):
    found = json.loads((tuned / "run.json").read_text())["threshold"]["value"]
    done = painseq("predict", video, "--checkpoint", tuned / "best.ckpt", "--json")
    (prediction,) = json.loads(done.out)
    assert prediction["threshold"] == found
    assert (prediction["probabilities"]["high_pain"] >= found) is (prediction["label"] == "high_pain")
    assert painseq("predict", video, "--checkpoint", tuned / "best.ckpt").out.names(f"{found:.4f}")


def test_folds_have_thresholds_of_their_own(painseq, on_electrical, store, tmp_path):
    args = [*on_electrical, "--data.options.store", store, "--config", "configs/head/frame_ann.yaml"]
    args += ["--data.options.labels", "binary", "--data.options.split.protocol", "subject_kfold"]
    args += ["--data.options.split.folds", "3", "--jobs", "1", "--trainer.max_epochs", "1"]
    args += ["--tune-threshold", "balanced_accuracy", "--threshold-folds", "2", "--out", tmp_path / "run"]
    done = painseq("crossval", *args)
    assert done.code == 0 and "Sensitivity" in done.out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (scores,) = metrics["models"].values()
    thresholds = {row["threshold"] for row in metrics["folds"]}
    assert set(scores["threshold"]["thresholds"]) == thresholds
    assert "balanced_accuracy" in metrics["how"]["tuned_threshold"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--tune-threshold", "f2"], "f2"),
        (["--tune-threshold", "weighted_f1"], "--tune-threshold"),
        (["--tune-threshold", "weighted_f1", "--inner-folds", "1"], "inner_folds"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_a_folder_is_made(painseq, on_electrical, store, tmp_path, args, named):
    head = ["--config", "configs/head/lstm.yaml", "--data.options.store", store]
    done = painseq("fit", *on_electrical, *head, *args, "--out", tmp_path / "run")
    assert done.code != 0 and named in done.err and not (tmp_path / "run").exists()
