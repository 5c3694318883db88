"""Run folders (configuration, versions, history), the compute device, and the rank of this process in a launch."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from painseq import __version__
from painseq.errors import PainseqError
from painseq.spec import difference


class OnProgress(Protocol):
    """Callback that reports the progress of long work; the command line draws a progress bar with it."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps are done; `note` adds details, such as a rate."""


def no_progress(done: int, total: int, note: str = "") -> None:
    """Ignore progress; the default callback."""


MAX_LINE_LENGTH = 200
"""Differences longer than this many characters are shown without their values."""

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "jsonargparse", "timm", "torchmetrics", "safetensors", "scikit-learn",
    "numpy", "pillow", "opencv-python", "av", "decord",
)  # fmt: skip


def make_run_folder(path: Path) -> Path:
    """Create a new folder for a run; nothing is ever overwritten.

    Raises:
        PainseqError: the folder is not empty, or cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise PainseqError(
                f"{path} already holds a run, which is never overwritten. Choose another folder for --out."
            )
    except OSError as error:
        raise PainseqError(f"The run folder {path} cannot be created: {error}.") from error
    return path


@contextmanager
def new_run_folder(path: Path) -> Iterator[Path]:
    """`make_run_folder` for work that writes at its end: remove the folder again if it failed and wrote nothing."""
    existed = path.exists()
    make_run_folder(path)
    try:
        yield path
    finally:
        if not existed and not any(path.iterdir()):
            path.rmdir()


def versions() -> dict[str, str]:
    """Return the versions of painseq, Python, the platform, and the packages that results depend on."""
    found = {"painseq": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a file written by `painseq.files.write_json`; None if it does not exist.

    Raises:
        PainseqError: the file cannot be read or is not a JSON object.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PainseqError(f"{path} cannot be read: {error}. Was it written by painseq?") from error
    if not isinstance(content, dict):
        raise PainseqError(f"{path} was not written by painseq: it is not a JSON object.")
    return content


def check_same_run(folder: Path, recorded: Mapping[str, object], requested: Mapping[str, object]) -> None:
    """Check that a run folder was started with the same settings, so that the run can be resumed.

    Args:
        folder: of the run.
        recorded: the settings recorded in the folder.
        requested: the settings requested now, in plain values.

    Raises:
        PainseqError: they differ; lists the keys, with their values where these are short.
    """
    lines = difference(*(json.loads(json.dumps(settings)) for settings in (recorded, requested)))
    if lines:
        shown = (line if len(line) <= MAX_LINE_LENGTH else f"{line.partition(':')[0]}: differs" for line in lines)
        raise PainseqError(
            f"{folder} holds a run with other settings. They differ in:\n  "
            + "\n  ".join(shown)
            + "\nwhere the second value is the requested one. Choose another folder, or the settings of that run."
        )


def read_history(run: Path) -> list[Mapping[str, float]]:
    """Read the metrics of each epoch of a fit, including those logged before it was resumed."""
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
    """Resolve a device name: "auto" is "cuda" if there is a GPU, otherwise "cpu"; other names are kept.

    With several processes, "cuda" becomes a separate GPU for each.

    Raises:
        PainseqError: a GPU is requested but not available, or no device has this name.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise PainseqError(f"--device {name}: no usable GPU on this machine. Use --device cpu.")
    if name == "cuda" and process is not None and process.count > 1:
        # Some launchers make only one GPU visible to each process.
        name = f"cuda:{process.local_rank % torch.cuda.device_count()}"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise PainseqError(f"--device {name}: no such device ({reason}). Use auto, cpu, cuda, cuda:0, ...") from error
    return name


@dataclass(frozen=True)
class Process:
    """One of several processes that share work; each does its share without waiting for the others.

    Args:
        rank: rank of this process, from 0.
        count: number of processes on all machines.
        local_rank: rank among the processes on this machine; selects the GPU.
        run: identifier of the launch: the same for all its processes, different for every other launch.

    Raises:
        PainseqError: `rank` is not below `count`.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    run: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count or self.local_rank < 0:
            raise PainseqError(
                f"rank is {self.rank}, count {self.count}, local_rank {self.local_rank}: ranks start at 0, and rank "
                "must be below count."
            )


def this_process(environment: Mapping[str, str] = os.environ) -> Process:
    """Read rank and process count from the launcher's environment variables; a single process if there are none.

    Supports torchrun and any launcher that sets RANK and WORLD_SIZE for torch.distributed; srun; and Lightning's own
    launcher, which starts the command again for each additional device.

    Raises:
        PainseqError: the variables contradict each other or do not determine the rank.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _torch_distributed(environment)
    # Not SLURM_NTASKS, which sbatch also sets for a script that runs once. A shell on a pseudo terminal is a single
    # process, however many tasks its step has.
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment and "SLURM_PTY_PORT" not in environment:
        return _slurm(environment)
    if "LOCAL_RANK" in environment and "WORLD_SIZE" in environment:
        return _lightning(environment)
    return Process()


def _torch_distributed(environment: Mapping[str, str]) -> Process:
    count = _number(environment, "WORLD_SIZE")
    if count == 1:
        return Process(local_rank=_number(environment, "LOCAL_RANK", 0))
    # torchrun's run id is "none" by default; the address then distinguishes launches.
    run = f"torch {environment.get('TORCHELASTIC_RUN_ID', '')} {_address(environment)} {count}"
    return Process(_number(environment, "RANK"), count, _number(environment, "LOCAL_RANK", 0), run)


def _slurm(environment: Mapping[str, str]) -> Process:
    count = _number(environment, "SLURM_STEP_NUM_TASKS")
    local_rank = _number(environment, "SLURM_LOCALID", 0)
    if count == 1:
        return Process(local_rank=local_rank)
    keys = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    run = " ".join(["slurm", *(environment.get(key, "") for key in keys), str(count)])
    return Process(_number(environment, "SLURM_PROCID"), count, local_rank, run)


def _lightning(environment: Mapping[str, str]) -> Process:
    count, local_rank = _number(environment, "WORLD_SIZE"), _number(environment, "LOCAL_RANK")
    if count == 1:
        return Process(local_rank=local_rank)
    if _number(environment, "NODE_RANK", 0):
        raise PainseqError(
            "NODE_RANK, LOCAL_RANK and WORLD_SIZE do not determine the rank of this process: the number of processes "
            "per machine is missing. Start with torchrun or srun, or also set RANK."
        )
    return Process(local_rank, count, local_rank, f"lightning {_address(environment)} {count}")


def _address(environment: Mapping[str, str]) -> str:
    return f"{environment.get('MASTER_ADDR', '')}:{environment.get('MASTER_PORT', '')}"


def _number(environment: Mapping[str, str], key: str, default: int | None = None) -> int:
    value = environment.get(key)
    if value is None and default is not None:
        return default
    try:
        return int(value or "")
    except ValueError:
        raise PainseqError(
            f"The environment variable {key} is {value!r}, not a number. Launchers of several processes set it; unset "
            "it to run a single process."
        ) from None
