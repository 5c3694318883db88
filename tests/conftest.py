"""Fixtures that every part of the tests shares."""

import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from painseq.model.record import ModelRecord

# Its own profile for CI: the same examples each time, and no limit on the time of one. What hypothesis finds by chance
# is found by running it with `--hypothesis-profile=default`.
settings.load_profile("ci")

# What commands say is read as it is said to a file, whatever terminal the tests run in.
os.environ["COLUMNS"] = "80"
for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)

ROOT = Path(__file__).parents[1]
ASSETS = Path(__file__).parents[1].parent / "shared" / "assets"

TINY = """
model:
  extractor:
    class_path: painseq.extractors.TimmBackbone
    init_args: {model: test_resnet, weights: null, input_size_px: 32}
data:
  init_args:
    options:
      fps: 3
      face:
        class_path: painseq.faces.FaceCrops
        init_args: {locator: {class_path: painseq.faces.Sidecar}, size_px: 32}
trainer: {max_epochs: 2, enable_progress_bar: false, enable_model_summary: false, accelerator: cpu}
"""
"""The smallest network of timm, on small crops at three frames a second."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process of a parallel run is left with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real face videos and real weights, which lies beside the repository."""
    if not ASSETS.is_dir():
        pytest.skip(f"the real videos and weights are not here ({ASSETS} is absent)")
    return ASSETS


@pytest.fixture(autouse=True)
def quiet_logs() -> None:
    """What is logged does not depend on the tests before: commands and some packages set levels for the process."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("painseq").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a seed of its own is the same, whichever tests ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks run slower on two threads, and sums differ in their last digits by the number of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_record() -> Callable[..., "ModelRecord"]:
    """Makes a record of a model that was fitted on nobody, but for the fields that are given."""
    from painseq.model.record import DataRecord, ModelRecord, SplitRecord, StreamRecord

    def make(**fields: object) -> ModelRecord:
        known = {
            "class_names": ("no_pain", "low_pain", "high_pain"),
            "scale": None,
            "head": {"class_path": "painseq.heads.LSTM", "init_args": {}},
            "loss": "cross_entropy",
            "in_shape": (),
            "extractor": None,
            "face": None,
            "fps": 5.0,
            "streams": (StreamRecord("cnn", {}),),
            "baseline_clips": 0,
            "train_prior": (1 / 3, 1 / 3, 1 / 3),
            "data": DataRecord("biovid", "three", "0" * 16, SplitRecord("official", (), (), ()), {}, None),
            "started_from": (),
            "fitted_on": (),
            "extractor_trained_on": (),
            "validation_seen_by_extractor": (),
            "validation_seen_by_start": (),
        }
        return ModelRecord(**known | fields)

    return make


@pytest.fixture(scope="session")
def coded_video() -> Callable[[Path, int, float], Path]:
    """Writes a video whose frame n shows the bits of n as a 3 x 3 board; `number_of` reads them again."""
    from painseq.video import write_video

    def write(path: Path, frames: int, fps: float) -> Path:
        bits = (np.arange(frames)[:, None] >> np.arange(9)) & 1
        boards = np.kron(bits.reshape(-1, 3, 3), np.ones((32, 32))).astype(np.uint8) * 255
        write_video(path, (np.repeat(board[..., None], 3, axis=2) for board in boards), fps)
        return path

    return write


@pytest.fixture(scope="session")
def number_of() -> Callable[[np.ndarray], list[int]]:
    """Reads the numbers of (T, 3, S, S) crops of a coded video."""

    def read(crops: np.ndarray) -> list[int]:
        third = crops.shape[-1] // 3
        middles = slice(third // 2, None, third)
        bits = (crops[:, 0, middles, middles].reshape(len(crops), -1)[:, :9] > 127).astype(int)
        return (bits @ (1 << np.arange(9))).tolist()

    return read


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the generated data and what is made of them lie: heat, electrical, tiny.yaml, stores, runs.

    Each process of a parallel run has its own: making them takes seconds, waiting for another process as long.
    """
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def heat(work: Path) -> Path:
    """Five people, one clip of each of BioVid's five classes."""
    from painseq.synthetic import BioVidPlan, write_biovid

    write_biovid(work / "heat", BioVidPlan(subjects=5, trials=1, fps=4, size_px=64), seed=0)
    return work / "heat"


@pytest.fixture(scope="session")
def electrical(work: Path) -> Path:
    """Four people in Train, whose no-pain recordings last 25 s, one in Validation, two in Test."""
    from painseq.synthetic import AI4PainPlan, write_ai4pain

    plan = AI4PainPlan(train=4, validation=1, test=2, trials=1, baseline_s=25, fps=3, size_px=64)
    write_ai4pain(work / "electrical", plan, seed=0)
    return work / "electrical"


@pytest.fixture(scope="session")
def tiny(work: Path) -> str:
    """A configuration file: see `TINY`."""
    path = work / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="session")
def on_electrical(electrical: Path, tiny: str) -> list[str]:
    """Options for the electrical data through the tiny network."""
    return ["--config", "configs/data/ai4pain.yaml", "--config", tiny, "--data.root", str(electrical)]


@pytest.fixture(scope="session")
def on_heat(heat: Path, tiny: str) -> list[str]:
    """Options for the heat data through the tiny network."""
    return ["--config", "configs/data/biovid.yaml", "--config", tiny, "--data.root", str(heat)]


@pytest.fixture(scope="session")
def store(work: Path, on_electrical: list[str]) -> Path:
    """Features of the electrical data, fp32."""
    from painseq.cli.extract import main as extract

    extract([*on_electrical, "--out", str(work / "store"), "--dtype", "float32", "--precision", "fp32"])
    return work / "store"


@pytest.fixture(scope="session")
def heat_crops(work: Path, on_heat: list[str]) -> Path:
    """Crops of the heat data, all five classes."""
    from painseq.cli.extract import main as extract

    pixels = '{"class_path": "painseq.extractors.Pixels", "init_args": {"input_size_px": 32}}'
    extract([*on_heat, "--data.options.labels", "five", "--model.extractor", pixels, "--out", str(work / "heat_crops")])
    return work / "heat_crops"


@pytest.fixture(scope="session")
def lstm(work: Path, on_electrical: list[str], store: Path) -> Path:
    """The best checkpoint of an LSTM on the electrical features."""
    from painseq.cli.fit import fit

    head = ["--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "2"]
    return fit([*on_electrical, *head, "--data.options.store", str(store), "--out", str(work / "lstm")]) / "best.ckpt"


@pytest.fixture(scope="session")
def ann(work: Path, on_electrical: list[str], store: Path) -> Path:
    """The best checkpoint of a frame ANN on the electrical features."""
    from painseq.cli.fit import fit

    head = ["--config", "configs/head/frame_ann.yaml", "--trainer.max_epochs", "2"]
    return fit([*on_electrical, *head, "--data.options.store", str(store), "--out", str(work / "ann")]) / "best.ckpt"


@pytest.fixture
def video(electrical: Path, tmp_path: Path) -> Path:
    """A generated video with its sidecar, outside its data set, so that nothing marks it as generated."""
    source = electrical / "Test" / "S06" / "S06_1"
    shutil.copy(f"{source}.mp4", tmp_path / "clip.mp4")
    shutil.copy(f"{source}.faces.safetensors", tmp_path / "clip.faces.safetensors")
    return tmp_path / "clip.mp4"


def _pip(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def _backend_at_hand() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone."""
    # Built from a copy: setuptools leaves a folder `build` behind, and packs what an older one holds.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("painseq", "data_modules", "configs", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    isolation = ["--no-build-isolation"] if _backend_at_hand() else []
    built = _pip("wheel", "--no-deps", *isolation, "-w", str(out), str(source))
    if built.returncode and "No matching distribution found for setuptools" in built.stderr:
        pytest.skip("a wheel is built with setuptools 77 or newer, which is neither installed nor to be fetched here")
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel alone."""
    target = tmp_path_factory.mktemp("installed")
    done = _pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    assert done.returncode == 0, done.stderr
    return target
