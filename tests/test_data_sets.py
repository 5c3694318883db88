"""benchmarks/data_sets.py: data sets go from generated files to a score, and a step that fails is told."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def data_sets(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("data_sets")


@pytest.mark.slow
def test_videos_images_and_hidden_labels(data_sets, tmp_path, capsys):
    names = ["ai4pain", "unbc-frame", "folder"]
    assert data_sets.main(["--quick", "--only", *names, "--out", str(tmp_path / "out")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    header, *rows, _, caution = rows
    assert header[-3:] == ["seconds", "balanced", "chance"]
    assert [row[0] for row in rows] == names and [row[3:5] for row in rows] == [["18", "5"], ["80", "5"], ["15", "5"]]
    assert [row[-1] for row in rows] == ["0.333", "0.500", "0.333"]
    assert all(0 <= float(row[-2]) <= 1 for row in rows)
    assert "generated" in caution
    for name in names:
        log = (tmp_path / "out" / name / "log.txt").read_text()
        commands = [line.split()[2] for line in log.splitlines() if line.startswith("$ painseq ")]
        assert commands == ["synth", "data", "extract", "fit", "evaluate"] and "Traceback" not in log


def test_every_data_set_has_a_row(data_sets):
    shipped = {path.stem for path in (ROOT / "configs" / "data").glob("*.yaml")}
    assert {row.config for row in data_sets.ROWS} == shipped
    assert len({row.name for row in data_sets.ROWS}) == len(data_sets.ROWS)


@pytest.mark.parametrize(
    ("failing", "logged"),
    [(None, "No frames"), (RuntimeError("a fault"), "RuntimeError: a fault"), (SystemExit(2), "")],
)
def test_a_step_that_fails_ends_its_row_and_no_other(data_sets, tmp_path, capsys, monkeypatch, failing, logged):
    def broken(command: list[str]) -> int:
        if command[0] == "synth":
            return 0
        if failing is not None:
            raise failing
        sys.stderr.write("No frames")
        return 1

    monkeypatch.setattr(data_sets, "painseq", broken)
    out = tmp_path / "out"
    assert data_sets.main(["--quick", "--only", "xite", "mintpain-T", "--out", str(out)]) == 1
    _, *lines = capsys.readouterr().out.splitlines()
    for name, line in zip(["mintpain-T", "xite"], lines[:2], strict=True):
        assert all(part in line for part in (name, "painseq data", "FAILED", str(out / name / "log.txt"))), line
    assert logged in (out / "xite" / "log.txt").read_text()


def test_a_folder_that_is_there_is_refused(data_sets, tmp_path, capsys):
    with pytest.raises(SystemExit):
        data_sets.main(["--out", str(tmp_path)])
    assert str(tmp_path) in capsys.readouterr().err
