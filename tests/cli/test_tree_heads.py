"""Trees on a stream of landmarks, through every command: explained, cross-validated, audited."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

TREES = '{"class_path": "painseq.heads.RandomForest", "init_args": {"trees": 5, "level": "%s"}}'
COLUMNS = 2 * 68


@pytest.fixture(scope="module")
def given(on_electrical, store, work):
    """The data and a forest on their landmarks."""
    plain = work / "plain.yaml"
    plain.write_text("trainer: {max_epochs: null}\n")
    data = [*on_electrical, "--config", str(plain), "--data.options.store", str(store)]
    return [*data, "--data.options.streams", "[landmarks]", "--model.class_weights=inverse_frequency"]


@pytest.fixture(scope="module")
def forest(given, work) -> Path:
    from painseq.cli.fit import fit

    return fit([*given, "--model.head", TREES % "video", "--out", str(work / "forest")]) / "best.ckpt"


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_video_is_explained_by_frames_and_columns(painseq, forest, video, tmp_path):
    out = tmp_path / "out"
    result = painseq("explain", video, "--checkpoint", forest, "--out", out, "--end-s", 2, "--class-name", "high_pain")
    assert result.code == 0, result.err
    facts = json.loads((out / "explanation.json").read_text())
    assert facts["space"] is None and facts["time"]["method"] == "frame_occlusion"
    assert facts["columns"]["replaced_by"] == "training mean" and facts["columns"]["class"] == "high_pain"
    rows = rows_of(out / "columns.csv")
    assert len(rows) == COLUMNS == len(facts["columns"]["falls"]) and {"x0", "y67"} <= {row["column"] for row in rows}
    sizes = [abs(float(row["fall"])) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert Image.open(out / "column_bars.png").format == "PNG"
    for option, method in (("--method", "gradcam"), ("--time-method", "integrated_gradients")):
        refused = painseq("explain", video, "--checkpoint", forest, "--out", tmp_path / "no", option, method)
        assert refused.code == 1 and refused.err.names(method, "RandomForest", "frame_occlusion")
    assert not (tmp_path / "no").exists()


def test_columns_are_exchanged_between_the_clips_of_a_part(painseq, given, forest, tmp_path):
    out = tmp_path / "out"
    args = [*given, "--part", "train", "--repeats", 2, "--checkpoint", forest, "--out", out]
    result = painseq("explain", "columns", *args)
    assert result.code == 0, result.err
    facts = json.loads((out / "columns.json").read_text())
    assert facts["clips"] == 12 and facts["balanced_accuracy"] > 0.8 and len(facts["columns"]) == COLUMNS
    assert facts["seen_in_training"]["seen"] == 3 and len(facts["columns"][0]["repeats"]) == 2
    rows = rows_of(out / "columns.csv")
    assert [row["column"] for row in rows] == [row["column"] for row in facts["columns"]]
    assert result.out.names(rows[0]["column"]) and rows[0]["column"] in (out / "column_bars.svg").read_text()
    assert (out / "config.yaml").is_file() and Image.open(out / "column_bars.png").format == "PNG"


def test_methods_are_scored(painseq, given, forest, tmp_path):
    out = tmp_path / "out"
    result = painseq("explain", "score", *given, "--clips", 1, "--checkpoint", forest, "--out", out)
    assert result.code == 0, result.err
    assert set(json.loads((out / "scores.json").read_text())["randomisation"]["time"]) == {"frame_occlusion"}
    args = [*given, "--methods", "saliency", "--checkpoint", forest, "--out", tmp_path / "no"]
    refused = painseq("explain", "score", *args)
    assert refused.code == 1 and refused.err.names("saliency", "RandomForest")


def test_folds_and_an_audit_of_trees(painseq, given, tmp_path):
    folds = ["--data.options.split.protocol=subject_kfold", "--data.options.split.folds=2", "--jobs=1"]
    head = ["--model.head", TREES % "frame"]
    assert painseq("crossval", *given, *head, *folds, "--out", tmp_path / "folds").code == 0
    assert json.loads((tmp_path / "folds" / "metrics.json").read_text())["folds"][0]["epochs"] is None
    audit = ["audit", "model", *given, *head, "--folds", 2, "--frames-per-clip", 2]
    refused = painseq(*audit, "--epochs", 3, "--out", tmp_path / "audit")
    assert refused.code == 1 and refused.err.names("epochs", 3, "RandomForest") and not (tmp_path / "audit").exists()
    assert painseq(*audit, "--out", tmp_path / "audit").code == 0
    assert (tmp_path / "audit" / "audit.json").is_file()
    assert "fitted at once" in (tmp_path / "audit" / "report.html").read_text()


def test_a_grid_of_trees_is_searched_inside_the_folds(painseq, given, tmp_path):
    folds = ["--data.options.split.protocol=subject_kfold", "--data.options.split.folds=4", "--jobs=1"]
    grid = ["--model.head", TREES % "video", *folds, "--grid", "trees=2,4", "max_depth=1,2"]
    refused = painseq("crossval", *given, *grid, "--out", tmp_path / "out")
    assert refused.code == 1 and refused.err.names("--inner-folds") and not (tmp_path / "out").exists()
    result = painseq("crossval", *given, *grid, "--inner-folds", 2, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    names = {f"trees={count},max_depth={depth}" for count in (2, 4) for depth in (1, 2)}
    assert set(metrics["how"]["candidates"]) == names and {row["model"] for row in metrics["folds"]} <= names
    for number, row in enumerate(metrics["folds"]):
        choice = json.loads((tmp_path / "out" / f"fold-{number:02d}" / "choice.json").read_text())
        assert choice["name"] == row["model"] and set(choice["candidates"]) == names
