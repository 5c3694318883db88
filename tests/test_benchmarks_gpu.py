"""benchmarks/gpu.py: runs without the packages that a bare GPU machine lacks, keeps its time, says what differs."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
ABSENT = ("jsonargparse", "captum", "decord", "av", "face_alignment", "pytest")
BLOCK = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


@pytest.mark.slow
def test_everything_runs_without_the_absent_packages(tmp_path):
    # In every process, those that fit folds included.
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    before = (ROOT / "benchmarks" / "RESULTS.md").read_bytes()
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--device=cpu", "--small", f"--out={out}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(out.read_text())["parts"]
    assert not any(part["problems"] for part in parts.values())
    stopped = {name: part["stopped"] for name, part in parts.items() if part["stopped"]}
    assert set(stopped) == {"tests"} and "pytest" in stopped["tests"]
    rows = {title: rows for part in parts.values() for title, rows in part["rows"].items()}
    assert {row["of"] for row in rows["agreement with the CPU"]} == {"features", "loss and gradients"}
    assert {row["precision"] for row in rows["VGG16"]} == {"bf16", "fp32"}
    assert all(row["frames/s"] > 0 and row["share"] > 0 for row in rows["VGG16"])
    assert len(rows) == 6
    assert (ROOT / "benchmarks" / "RESULTS.md").read_bytes() == before


def bench_of(gpu, tmp_path, seconds: float):
    end = time.perf_counter() + seconds
    return gpu.Bench(torch.device("cpu"), False, end, tmp_path / "gpu.json", tmp_path, "This machine.")


def test_parts_stop_when_the_time_is_over_and_the_rest_is_pending(gpu, tmp_path, monkeypatch):
    def first(bench):
        "First."
        bench.add("first", {"value": 1.5})
        bench.need(1000)

    monkeypatch.setattr(gpu, "PARTS", {"first": first, "second": lambda bench: bench.add("second", {"value": 2})})
    bench = bench_of(gpu, tmp_path, 100)
    gpu.measure(bench, ["first"])
    bench.end = time.perf_counter() + 1
    gpu.measure(bench, ["second"])
    kept = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert kept["first"]["rows"] == {"first": [{"value": 1.5}]} and kept["first"]["stopped"]
    assert kept["second"]["rows"] == {} and kept["second"]["stopped"]
    page = gpu.page(bench)
    assert "| 1.5 |" in page and "`first`: the rest is pending" in page and "`second`: pending" in page


def test_a_part_that_fails_does_not_cost_the_others(gpu, tmp_path, monkeypatch):
    def lacks(bench):
        raise torch.OutOfMemoryError("no memory")

    def fault(bench):
        raise TypeError("a fault of the program")

    parts = {"broken": lacks, "whole": lambda bench: bench.add("whole", {"value": 2}), "fault": fault}
    monkeypatch.setattr(gpu, "PARTS", parts)
    bench = bench_of(gpu, tmp_path, 100)
    with pytest.raises(TypeError):
        gpu.measure(bench, list(parts))
    assert "OutOfMemoryError" in bench.parts["broken"].stopped and bench.parts["whole"].rows


def test_what_differs_from_the_cpu_is_a_problem(gpu, tmp_path, monkeypatch):
    agreement = importlib.import_module("gpu_parts.agreement")
    bench = bench_of(gpu, tmp_path, 100)
    bench.small = True
    monkeypatch.setattr(agreement, "FEATURES_APART", {"fp32": -1.0})
    gpu.measure(bench, ["agreement"])
    assert any("VGG16, fp32" in problem for problem in bench.parts["agreement"].problems)


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["nothing"], "'nothing'"),
        (["--write", "--small"], "--write"),
        (["--write", "--device", "cpu"], "--write"),
        (["--write", "steps"], "--write"),
    ],
)
def test_a_wrong_command_line(gpu, argv, value, capsys):
    with pytest.raises(SystemExit):
        gpu.main(argv)
    assert value in capsys.readouterr().err


def test_the_page_has_a_place_for_the_tables():
    page = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    assert "<!-- gpu -->" in page and "<!-- /gpu -->" in page
