"""benchmarks/unchanged.py: what its comparison sees, what it leaves out, and which steps need which."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return {name: importlib.import_module(f"unchanged_parts.{name}") for name in ("compare", "side", "steps")}


def write(folder: Path, change=lambda content: None) -> Path:
    """A folder such as a command writes, with changes."""
    content = {
        "json": {
            "score": 0.25,
            "clip": "S01_1",
            "said": "two words",
            "seconds": 3.0,
            "class_path": "a.heads.lstm.LSTM",
        },
        "csv": "clip_id,value\nS01,0.5\n",
        "tensor": np.arange(3, dtype=np.float32),
        "store": str(folder / "store"),
    }
    change(content)
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(content["json"] | {"store": content["store"]}))
    (folder / "rows.csv").write_text(content["csv"])
    save_file({"features": content["tensor"]}, folder / "store.safetensors")
    torch.save({"state_dict": {"w": torch.from_numpy(content["tensor"])}}, folder / "best.ckpt")
    return folder


def differences(parts, tmp_path, change) -> list[str]:
    old, new = write(tmp_path / "old"), write(tmp_path / "new", change)
    return parts["compare"].Reader((str(old), str(new))).differences(old, new)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: None,
        lambda content: content["json"].update(said="other words", seconds=9.0, added=1),
        lambda content: content["json"].update(class_path="a.heads.LSTM", score=0.25 + 1e-8),
    ],
)
def test_words_times_and_moved_classes_do_not_count(parts, tmp_path, change):
    assert differences(parts, tmp_path, change) == []


@pytest.mark.parametrize(
    ("change", "files"),
    [
        (lambda content: content["json"].update(score=0.25001), ["metrics.json"]),
        (lambda content: content["json"].update(clip="S01_2"), ["metrics.json"]),
        (lambda content: content["json"].update(class_path="a.heads.lstm.GRU"), ["metrics.json"]),
        (lambda content: content["json"].pop("score"), ["metrics.json"]),
        (lambda content: content.update(csv="clip_id,value\nS01,0.6\n"), ["rows.csv"]),
        (lambda content: content.update(csv="clip_id,value\nS01,0.5\nS02,0.5\n"), ["rows.csv"] * 2),
        (lambda content: content["tensor"].__setitem__(1, 1.0000001), ["best.ckpt", "store.safetensors"]),
        (lambda content: content.update(tensor=np.arange(3)), ["best.ckpt", "store.safetensors"]),
    ],
)
def test_figures_ids_and_tensors_count(parts, tmp_path, change, files):
    assert [line.partition(":")[0] for line in differences(parts, tmp_path, change)] == files


def test_a_file_that_is_not_written_and_nothing_at_all_are_differences(parts, tmp_path):
    old, new = write(tmp_path / "old"), write(tmp_path / "new")
    (new / "rows.csv").unlink()
    assert len(parts["compare"].Reader().differences(old, new)) == 2  # also the store's path, as no home is given
    (tmp_path / "empty").mkdir()
    assert parts["compare"].Reader().differences(tmp_path / "empty", new)


def test_a_step_brings_along_what_it_reads(parts, tmp_path):
    flags = parts["side"].Dialect("--average-checkpoints", None, ("explain", "--score"))
    inputs = parts["steps"].Inputs(tmp_path / "inputs", tmp_path / "old", None)
    steps = parts["steps"].steps_of(tmp_path / "old", inputs, flags)
    needed = parts["steps"].closure(["predict_averaged"], steps, tmp_path / "old")
    assert needed == ["synth_electrical", "store_electrical", "fit_lstm", "fit_started", "predict_averaged"]
    assert "store_part" in parts["steps"].closure(["store_resumed"], steps, tmp_path / "old")


def test_each_dialect_averages_with_its_own_flags(parts):
    dialect = parts["side"].Dialect
    paths = Path("a"), Path("b")
    assert dialect("--average-checkpoints", None, ()).averaged(*paths) == ["--average-checkpoints", "a", "b"]
    assert dialect("--average", "--checkpoint", ()).averaged(*paths) == [
        "--average", "--checkpoint", "a", "--checkpoint", "b",
    ]  # fmt: skip
