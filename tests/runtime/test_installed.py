"""The wheel where only what its base dependencies install can be imported."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from painseq.runtime import load

Requirement = pytest.importorskip("packaging.requirements").Requirement
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def base_distributions() -> set[str]:
    """The base dependencies of painseq, and what these need."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    waiting, found = list(settings["project"]["dependencies"]), set()
    while waiting:
        requirement = Requirement(waiting.pop())
        # Distributions of OpenCV differ in their windows alone; either may be installed here.
        if requirement.name == "opencv-python-headless":
            requirement.name = importlib.metadata.packages_distributions()["cv2"][0]
        if requirement.name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(requirement.name)
            waiting += importlib.metadata.requires(requirement.name) or []
    return found


@pytest.fixture(scope="module")
def bare(installed, tmp_path_factory):
    """Runs Python with the wheel and the base dependencies alone, as a fresh environment has them."""
    links = tmp_path_factory.mktemp("links")
    for name in base_distributions():
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (links / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{links}"}
        words = [sys.executable, "-S", *map(str, command)]
        return subprocess.run(words, cwd=links, env=env, capture_output=True, text=True, timeout=300)

    return run


def test_nothing_of_training_is_there(bare):
    absent = ("torch", "pytorch_lightning", "sklearn", "scipy", "matplotlib", "pandas", "timm", "jsonargparse")
    code = f"import importlib.util as u, painseq.runtime; print([n for n in {absent} if u.find_spec(n) is not None])"
    done = bare("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_exported_folder_predicts_as_where_everything_is_installed(bare, write_folder, colours):
    folder = write_folder()
    done = bare("-m", "painseq", "predict", colours, "--checkpoint", folder, "--json")
    assert done.returncode == 0, done.stderr
    (found,), expected = json.loads(done.stdout), load(folder).predict(colours).to_dict()
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    assert found.keys() == expected.keys() and found["label"] == expected["label"]


def test_an_exported_checkpoint_predicts_as_the_checkpoint(bare, lstm, electrical, tmp_path):
    pytest.importorskip("onnxscript")
    import painseq
    from painseq.export import export

    video = electrical / "Test" / "S06" / "S06_1.mp4"
    export(lstm, tmp_path / "exported")
    done = bare("-m", "painseq", "predict", video, "--checkpoint", tmp_path / "exported", "--json")
    assert done.returncode == 0, done.stderr
    (found,), expected = json.loads(done.stdout), painseq.load(lstm).predict(video).to_dict()
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    for name, value in expected.items():
        if name == "frame_probabilities":
            assert np.abs(np.array(found[name]) - value).max() < 1e-4
        elif name not in ("probabilities", "backends"):
            assert found[name] == value, name


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["predict", "--help"], ["movements", "--help"]])
def test_help_is_there(bare, words):
    done = bare("-m", "painseq", *words)
    assert done.returncode == 0 and "painseq" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["predict", "video.mp4", "--checkpoint", "best.ckpt"], "torch"),
        (["fit", "--config", "lstm.yaml"], "pytorch_lightning"),
        (["demo"], "painseq[train]"),
        (["movements", "video.mp4", "--out", "movements"], "matplotlib"),
    ],
)
def test_what_needs_more_says_what_to_install(bare, words, named):
    done = bare("-m", "painseq", *words)
    assert done.returncode == 1 and named in done.stderr and "painseq[train]" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
