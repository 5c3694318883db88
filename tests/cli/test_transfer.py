"""`painseq transfer`: from a plan in YAML to tables in the terminal."""

from pathlib import Path

import pytest
import yaml


@pytest.fixture
def plan(heat, tiny, tmp_path):
    """A plan of one data set and an untrained extractor, which stands for one that was trained on it."""
    network = {
        "class_path": "painseq.extractors.TimmBackbone",
        "init_args": {"model": "test_resnet", "input_size_px": 32},
    }
    extractor = {"set": {"model": {"extractor": network}}}
    keys = {"root": str(heat), "options": {"split": {"test_share": 0.4}}}
    content = {
        "fps": 3,
        "data": {"heat": {"config": ["configs/data/biovid.yaml", str(tiny)], "set": {"data": {"init_args": keys}}}},
        "extractors": {"cnn": {**extractor, "trained_on": "heat"}, "untrained": {**extractor, "trained_on": "nothing"}},
        "heads": {"linear": {"config": ["configs/head/linear_probe.yaml"], "set": {"trainer": {"max_epochs": 1}}}},
        "sources": ["heat"],
        "targets": ["heat"],
        "extract": {"precision": "fp32"},
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def cells_of(text):
    """The cells of the rows of every table that rich printed."""
    rows = [line.strip("│┃").replace("┃", "│").split("│") for line in text.splitlines() if line.count("│") > 1]
    return [[cell.strip() for cell in row] for row in rows]


def test_a_dry_run_counts_and_writes_nothing(painseq, plan, tmp_path):
    out = tmp_path / "out"
    done = painseq("transfer", plan, "--out", out, "--dry-run")
    assert done.code == 0 and not out.exists()
    counts = [row[1:] for row in cells_of(done.out)]
    assert counts[:4] == [["2", "0"], ["2", "0"], ["0", "0"], ["4", ""]]
    assert "no_pain" in done.out and "heat: " in done.out


@pytest.mark.slow
def test_the_tables_and_the_page_are_shown(painseq, plan, tmp_path):
    out = tmp_path / "out"
    done = painseq("transfer", plan, "--out", out)
    assert done.code == 0 and (out / "transfer.json").is_file()
    assert f"Report: {out / 'report.html'}" in done.out
    rows = [row for row in cells_of(done.out) if row[0] == "heat, heat"]
    assert len(rows) == 2 and all(row[1] == "linear" for row in rows)


def test_a_plan_of_arguments_is_refused(painseq, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("heads: {lstm: [--config=configs/head/lstm.yaml]}")
    done = painseq("transfer", path, "--out", tmp_path / "out")
    assert done.code == 1 and done.err.names("heads.lstm", "config")
    assert not Path(tmp_path / "out").exists()
