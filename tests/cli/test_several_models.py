"""Three models on different inputs, side by side: action units, a CNN's features, and both."""

import csv
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from painseq.cli.fit import fit

TREES = '{"class_path": "painseq.heads.HistogramBoosting", "init_args": {"trees": 5, "min_rows": 2}}'
UNITS = ("AU04_r", "AU06_r", "AU10_r")


def write_units(path, frames):
    rng = np.random.default_rng(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["frame", "timestamp", "confidence", "success", *UNITS])
        for row in range(frames):
            units = np.round(rng.uniform(0, 5, len(UNITS)), 2)
            table.writerow([row + 1, round(row / 3, 3), 0.98, 1, *units])


@pytest.fixture(scope="module")
def tables(electrical, work):
    for video in electrical.rglob("*.mp4"):
        frames = len(load_file(video.with_suffix(".faces.safetensors"))["times_s"])
        write_units(work / "units" / video.relative_to(electrical).with_suffix(".csv"), frames)
    return work / "units"


@pytest.fixture(scope="module")
def on_units(on_electrical, store, tables):
    """Options of the data for each model: its streams, and the rest that all share."""
    shared = [*on_electrical, "--data.options.labels", "binary", "--data.options.split.protocol", "official"]
    shared += ["--data.options.store", str(store)]
    units = ["--data.options.action_units", str(tables), "--data.options.streams"]
    return {"au": [*shared, *units, "[action_units]"], "cnn": shared, "hybrid": [*shared, *units, "[cnn,action_units]"]}


@pytest.fixture(scope="module")
def three(on_units, work):
    trees = ["--model.head", TREES, "--model.class_weights=inverse_frequency", "--trainer.max_epochs", "null"]
    tuned = [*trees, "--tune-threshold", "balanced_accuracy", "--inner-folds", "2"]
    heads = {"au": tuned, "cnn": ["--config", "configs/head/frame_ann.yaml"], "hybrid": tuned}
    return {
        name: fit([*options, *heads[name], "--out", str(work / "three" / name)]) / "best.ckpt"
        for name, options in on_units.items()
    }


def checkpoints(three):
    return [text for path in three.values() for text in ("--checkpoint", path)]


def test_they_predict_a_video_with_its_table_beside_it(painseq, three, video, tables):
    shutil.copy(tables / "Test" / "S06" / "S06_1.csv", video.with_suffix(".csv"))
    result = painseq("predict", video, *checkpoints(three), "--json")
    assert result.code == 0, result.err
    together = json.loads(result.out)
    for path in three.values():
        assert together[str(path)] == json.loads(painseq("predict", video, "--checkpoint", path, "--json").out)
    assert [bool(of_model[0]["threshold"]) for of_model in together.values()] == [True, False, True]
    assert painseq("predict", video, *checkpoints(three)).out.names("au", "cnn", "hybrid")


def test_a_named_table_goes_to_the_models_that_take_it(painseq, three, video, tables, tmp_path):
    table = ["--action-units", tables / "Test" / "S06" / "S06_1.csv"]
    result = painseq("predict", video, *checkpoints(three), *table, "--json")
    assert result.code == 0 and [len(each) for each in json.loads(result.out).values()] == [1, 1, 1], result.err
    refused = painseq("predict", video, "--checkpoint", three["cnn"], *table)
    assert refused.code == 1 and refused.err.names("without action units")


def test_each_is_scored_on_its_own_data_and_compared(painseq, on_units, three, electrical, tmp_path):
    refused = painseq("evaluate", *on_units["hybrid"], *checkpoints(three), "--out", tmp_path / "no")
    assert refused.code == 1 and refused.err.names("action_units", "painseq compare") and not (tmp_path / "no").exists()
    truth = ["--truth", electrical.parent / "electrical_truth" / "labels.csv"]
    scores = {}
    for name, options in on_units.items():
        done = painseq("evaluate", *options, "--checkpoint", three[name], *truth, "--out", tmp_path / name)
        assert done.code == 0, done.err
        (scores[name],) = json.loads((tmp_path / name / "metrics.json").read_text())["models"].values()
    result = painseq("compare", *(tmp_path / name for name in three), "--out", tmp_path / "compared")
    assert result.code == 0 and result.out.names("au", "cnn", "hybrid", "Sensitivity", "Specificity"), result.err
    shown = json.loads((tmp_path / "compared" / "comparison.json").read_text())["side_by_side"]
    assert list(shown["points"]) == list(three) and shown["clips"] == scores["au"]["counts"]["scored"]
    for name, points in shown["points"].items():
        if name == "cnn":
            (point,) = points.values()
            assert point["balanced_accuracy"] == pytest.approx(scores[name]["scores"]["balanced_accuracy"])
            continue
        of_tuned, at_half = points.values()
        assert of_tuned == scores[name]["threshold"]["tuned"] and at_half == scores[name]["threshold"]["at_half"]
    assert "Specificity" in (tmp_path / "compared" / "report.html").read_text()
