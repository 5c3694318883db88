"""`painseq compare`."""

import csv
import html
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from painseq.evaluation import Predictions
from painseq.evaluation.value_predictions import ValuePredictions

CLASSES = ("no_pain", "low_pain", "high_pain")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Predictions of 24 people by a good, a poor and a middling model, each in a folder of its own."""
    root = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    truth = np.tile(np.arange(9) % 3, 24)
    n = len(truth)
    for name, share in (("good", 0.9), ("poor", 0.1), ("middling", 0.8)):
        label = np.where(rng.random(n) < share, truth, rng.integers(0, 3, n))
        if name == "poor":
            label[:4] = -1
        probabilities = np.where((label < 0)[:, None], np.nan, np.eye(3)[label])
        clips = tuple(f"c{i}" for i in range(n))
        people = tuple(f"p{i // 9:02}" for i in range(n))
        counts = np.full(n, 5, np.int64)
        (root / name).mkdir()
        Predictions(CLASSES, clips, people, truth, label, probabilities, counts, 0 * counts).write_csv(
            root / name / "predictions.csv"
        )
    return root


def test_all_pairs_with_a_sentence_each(painseq, folders):
    result = painseq("compare", folders / "good", folders / "poor", f"mid={folders / 'middling' / 'predictions.csv'}")
    assert result.code == 0
    # Of the first pair: people, clips compared, clips left out; of all: how many comparisons are corrected for.
    assert result.out.names("good", "poor", "mid", 24, 212, 4, 3)
    assert "Wilcoxon" in result.out
    text = " ".join(result.out.split())
    for pair in (("good", "poor"), ("good", "mid"), ("mid", "poor")):
        assert re.search(r"\b{}\b[^.]*\b{}\b".format(*pair), text)


def test_the_folder_holds_every_figure(painseq, folders, tmp_path):
    result = painseq(
        "compare", folders / "good", folders / "poor", "--out", tmp_path / "out", "--statistic", "macro_f1"
    )
    assert result.code == 0
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (pair,) = content["pairs"]
    assert content["statistic"] == pair["statistic"] == "macro_f1" and pair["better"] == "good"
    assert len(pair["by_subject"]) == pair["subjects"] == 24
    assert content["files"] == {name: str(folders / name / "predictions.csv") for name in ("good", "poor")}
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["difference"]) == pair["difference"]["difference"] and row["left_out"] == "4"
    page = html.unescape((tmp_path / "out" / "report.html").read_text())
    assert pair["sentence"] in page and "p00" in page and "p23" in page
    result = painseq("compare", folders / "good", folders / "poor", "--out", tmp_path / "out")
    assert result.code == 1 and result.err.names(tmp_path / "out")


def test_all_against_one(painseq, folders, tmp_path):
    result = painseq("compare", *(folders / name for name in ("good", "poor", "middling")), "--against", "middling",
                     "--out", tmp_path / "out")  # fmt: skip
    assert result.code == 0
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    pairs = [({pair["first"], pair["second"]}, pair["better"]) for pair in content["pairs"]]
    assert [names for names, _ in pairs] == [{"good", "middling"}, {"poor", "middling"}] and pairs[1][1] == "middling"
    assert all(pair["sentence"] in " ".join(result.out.split()) for pair in content["pairs"])


def test_values_on_a_scale_are_compared_by_their_error(painseq, tmp_path):
    rng = np.random.default_rng(0)
    truth, people = rng.uniform(0, 16, 80), tuple(f"p{i // 4}" for i in range(80))
    counts = np.ones(80, np.int64)
    for name, noise in (("a", 1), ("b", 4)):
        value = truth + rng.normal(0, noise, 80)
        clips = tuple(f"c{i}" for i in range(80))
        ValuePredictions("pspi", clips, people, truth, value, counts, 0 * counts).write_csv(tmp_path / f"{name}.csv")
    result = painseq("compare", tmp_path / "a.csv", tmp_path / "b.csv", "--out", tmp_path / "out")
    assert result.code == 0 and result.out.names(20, "a", "b")
    (pair,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]
    assert (pair["better"], pair["statistic"], pair["subjects"]) == ("a", "mae", 20)
    result = painseq("compare", tmp_path / "a.csv", tmp_path / "b.csv", "--statistic", "accuracy")
    assert result.code == 1 and result.err.names("accuracy", "mae", "mse")


def test_labels_without_probabilities_take_the_order_of_the_others(painseq, folders, tmp_path):
    """By themselves their classes are in order of the alphabet, which no other file has."""
    with (folders / "poor" / "predictions.csv").open(newline="") as file:
        rows = [[row[key] for key in ("clip_id", "subject_id", "truth", "label")] for row in csv.DictReader(file)]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["clip_id", "subject_id", "truth", "label"], *rows])
    # Scoring such a file, to give it its truth, states no order either.
    assert painseq("evaluate", "--predictions", tmp_path / "labels.csv", "--out", tmp_path / "scored").code == 0
    told = []
    for other in (tmp_path / "labels.csv", tmp_path / "scored", folders / "poor"):
        statistic = ["--statistic", "quadratic_weighted_kappa"]
        result = painseq("compare", f"x={other}", folders / "good", *statistic)
        assert result.code == 0, result.err
        told.append(result.out)
    assert told[0] == told[1] == told[2]


def test_files_without_a_truth_are_told_where_to_get_it(painseq, folders, tmp_path):
    with (folders / "good" / "predictions.csv").open(newline="") as file:
        rows = [{**row, "truth": ""} for row in csv.DictReader(file)]
    with (tmp_path / "hidden.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    result = painseq("compare", tmp_path / "hidden.csv", folders / "good")
    assert result.code == 1 and result.err.names("hidden", "good", "painseq evaluate", "--truth")


@pytest.mark.parametrize("how", ["file", "folder", "column", "cell"])
def test_leaky_predictions_are_refused_and_marked_where_allowed(painseq, folders, tmp_path, how):
    content = (folders / "good" / "predictions.csv").read_text()
    path = tmp_path / {"file": "frame_kfold_LEAKY.csv", "folder": "clip_LEAKY/predictions.csv"}.get(how, "frames.csv")
    path.parent.mkdir(exist_ok=True)
    if how in ("column", "cell"):
        head, *rows = content.splitlines()
        name, cell = ("leaky", "True") if how == "column" else ("protocol", "frame_kfold_LEAKY")
        content = "\n".join([f"{head},{name}", *(f"{row},{cell}" for row in rows)]) + "\n"
    path.write_text(content)
    result = painseq("compare", path, folders / "poor")
    assert result.code == 1 and result.err.names(path, "LEAKY", "--allow-leaky")
    out = tmp_path / "out"
    result = painseq(
        "compare", f"frames={path}", folders / "poor", "--allow-leaky", "--against", "frames", "--out", out
    )
    assert result.code == 0 and "frames (LEAKY)" in " ".join(result.out.split())
    pair = json.loads((out / "comparison.json").read_text())["pairs"][0]
    assert pair["second"] == "frames (LEAKY)" and "frames (LEAKY)" in pair["sentence"]
    assert "frames (LEAKY)" in (out / "comparison.csv").read_text()
    assert "LEAKY" in (out / "report.html").read_text()


def test_mistakes(painseq, folders, tmp_path):
    good, poor = folders / "good", folders / "poor"
    (tmp_path / "empty").mkdir()
    for args, facts in (
        ([good], (1,)),
        ([good, good / "predictions.csv"], ("good", "NAME=")),
        ([good, tmp_path / "empty"], (tmp_path / "empty", "predictions.csv", "--out")),
        ([good, tmp_path / "none.csv"], (tmp_path / "none.csv",)),
        ([good, poor, "--against", "best"], ("best", "good", "poor")),
        ([good, poor, "--statistic", "mse"], ("mse", "accuracy", "balanced_accuracy")),
    ):
        result = painseq("compare", *args)
        assert result.code == 1 and result.err.names(*facts)


def test_it_needs_no_torch(folders):
    code = (
        "import sys; from painseq.cli import main; "
        f"main(['compare', {str(folders / 'good')!r}, {str(folders / 'poor')!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=600).returncode == 0
