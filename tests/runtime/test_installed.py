"""The wheel where only what its base dependencies install can be imported."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

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
