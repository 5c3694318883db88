"""What every run folder holds: configuration, versions, seed, data fingerprint, split."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from painseq import __version__
from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.features.processes import Process

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "jsonargparse", "timm", "torchmetrics", "safetensors", "scikit-learn",
    "numpy", "pillow", "opencv-python", "av", "decord",
)  # fmt: skip


def make_run_folder(path: Path) -> Path:
    """Make a new folder for a run; nothing is ever overwritten.

    Raises:
        PainseqError: the folder holds something already, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise PainseqError(f"{path} holds a run already, and nothing is overwritten. Give --out another folder.")
    except OSError as error:
        raise PainseqError(f"The run folder {path} cannot be made: {error}.") from error
    return path


@contextmanager
def new_run_folder(path: Path) -> Iterator[Path]:
    """`make_run_folder`, for work that writes at its end: where it fails before, no empty folder stays behind."""
    there = path.exists()
    make_run_folder(path)
    try:
        yield path
    finally:
        if not there and not any(path.iterdir()):
            path.rmdir()


def versions() -> dict[str, str]:
    """painseq, Python, platform, and the packages that figures depend on."""
    found = {"painseq": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(path: Path, content: object) -> None:
    """Write JSON at once: a reader never sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None where there is no such file.

    Raises:
        PainseqError: a file that cannot be read so.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PainseqError(f"{path} cannot be read: {error}. Was it written by painseq?") from error
    if not isinstance(content, dict):
        raise PainseqError(f"{path} is not what painseq writes: it holds no table of keys.")
    return content


def read_history(run: Path) -> list[Mapping[str, float]]:
    """The figures of each epoch of a fit, those from before it was resumed included."""
    rows: dict[int, dict[str, float]] = {}
    older = sorted(run.glob("metrics_before_*.csv"), key=lambda path: int(path.stem.rpartition("_")[2]))
    for path in (*older, run / "metrics.csv"):
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = {key: float(value) for key, value in row.items() if value and key != "step"}
                rows.setdefault(int(values["epoch"]), {}).update(values)
    return [rows[epoch] for epoch in sorted(rows)]


def pick_device(name: str, process: Process | None = None) -> str:
    """ "auto" is "cuda" if there is a GPU, else the CPU; of several processes, "cuda" is for each its own; anything
    else is taken as it is.

    Raises:
        PainseqError: a GPU is asked for and there is none, or no device has this name.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise PainseqError(f"--device {name}: no GPU can be used here. Use --device cpu.")
    if name == "cuda" and process is not None and process.count > 1:
        # Some launchers show each process a GPU of its own, and no other.
        name = f"cuda:{process.local_rank % torch.cuda.device_count()}"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).partition("\n")[0].partition(". ")[0]
        raise PainseqError(f"--device {name}: no such device here ({why}). Use auto, cpu, cuda, cuda:0, ...") from error
    return name
