"""Models compared from Python, from their predictions files."""

import json

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.evaluation import Predictions
from painseq.studies.compare import CompareOptions, compare_runs

CLASSES = ("no_pain", "pain")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Predictions of 12 people: all right, and four of ten wrong."""
    root = tmp_path_factory.mktemp("runs")
    truth = np.tile(np.arange(10) % 2, 12)
    people = tuple(f"p{row // 10:02}" for row in range(len(truth)))
    clips = tuple(f"c{row}" for row in range(len(truth)))
    frames = np.full(len(truth), 5, np.int64)
    for name, wrong in (("good", 0), ("poor", 4)):
        label = np.where(np.arange(len(truth)) % 10 < wrong, 1 - truth, truth)
        (root / name).mkdir()
        Predictions(CLASSES, clips, people, truth, label, np.eye(2)[label], frames, 0 * frames).write_csv(
            root / name / "predictions.csv"
        )
    return {"A": root / "good", "B": root / "poor" / "predictions.csv"}


def test_returns_what_it_writes(runs, tmp_path):
    comparison = compare_runs(runs, tmp_path / "out", CompareOptions("accuracy", seed=3))
    (pair,) = comparison.pairs
    assert (pair.first, pair.second, pair.better) == ("A", "B", "A")
    assert pair.difference.value == pytest.approx(0.4)
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["pairs"] == [pair.to_dict()] and content["seed"] == comparison.seed == 3
    assert content["statistic"] == comparison.statistic == "accuracy"
    assert content["files"] == {name: str(path) for name, path in comparison.files.items()}
    assert comparison.files["A"] == runs["A"] / "predictions.csv"


def test_classes_are_compared_by_balanced_accuracy(runs):
    assert compare_runs(runs).statistic == "balanced_accuracy"


def test_leaky_files_only_where_allowed(runs, tmp_path):
    leaky = tmp_path / "frames_LEAKY.csv"
    leaky.write_bytes((runs["A"] / "predictions.csv").read_bytes())
    with pytest.raises(PainseqError, match="allow_leaky"):
        compare_runs({**runs, "C": leaky})
    comparison = compare_runs({**runs, "C": leaky}, options=CompareOptions(against="C", allow_leaky=True))
    assert {pair.second for pair in comparison.pairs} == {"C (LEAKY)"}
