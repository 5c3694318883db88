"""What every run folder holds (configuration, versions, seed, data, split), and which process of a launch this is."""

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
    """What long work calls as it goes on; the command line draws a bar with it."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note that `done` of `total` are done; `note` says more, such as a rate."""


def no_progress(done: int, total: int, note: str = "") -> None:
    """The default: show nothing."""


LONGEST_LINE = 200
"""Letters of a difference that is shown with its values."""

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


def read_json(path: Path) -> dict[str, Any] | None:
    """What `painseq.files.write_json` wrote; None where there is no such file.

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


def check_same_run(folder: Path, then: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Check that what a folder holds was begun with the same settings, so that it can be gone on with.

    Args:
        folder: of the run.
        then: the settings that were written down in it.
        now: those that are asked for, in plain values.

    Raises:
        PainseqError: they differ; names the keys, and the values where these are short.
    """
    lines = difference(*(json.loads(json.dumps(settings)) for settings in (then, now)))
    if lines:
        shown = (line if len(line) <= LONGEST_LINE else f"{line.partition(':')[0]}: differs" for line in lines)
        raise PainseqError(
            f"{folder} holds another run. What differs:\n  "
            + "\n  ".join(shown)
            + "\nwhere the second value is the one asked for. Choose another folder, or the settings of that run."
        )


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


@dataclass(frozen=True)
class Process:
    """One of the processes that share a piece of work, each doing its part without waiting for the others.

    Args:
        rank: of this process, from 0.
        count: of processes, on all machines together.
        local_rank: of this process among those of its machine; which of its GPUs to take.
        run: names the launch: the same for all its processes, another one for every other launch.

    Raises:
        PainseqError: a rank that is not below the count.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    run: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count or self.local_rank < 0:
            raise PainseqError(
                f"Process {self.rank} of {self.count}, number {self.local_rank} on its machine: processes are counted "
                "from 0, and each rank must be below their number."
            )


def this_process(environment: Mapping[str, str] = os.environ) -> Process:
    """What the launcher says in the environment's variables; a process on its own where none does.

    Understood are torchrun, and whatever else sets RANK and WORLD_SIZE as torch.distributed expects; srun; and
    Lightning's own launcher, which starts the command again for each further device.

    Raises:
        PainseqError: variables that contradict each other or do not tell the rank.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _torch_distributed(environment)
    # Not SLURM_NTASKS, which sbatch sets too, in a script that runs once. A shell on a pseudo terminal is one process
    # of its step, whatever the number of the others.
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment and "SLURM_PTY_PORT" not in environment:
        return _slurm(environment)
    if "LOCAL_RANK" in environment and "WORLD_SIZE" in environment:
        return _lightning(environment)
    return Process()


def _torch_distributed(environment: Mapping[str, str]) -> Process:
    count = _number(environment, "WORLD_SIZE")
    if count == 1:
        return Process(local_rank=_number(environment, "LOCAL_RANK", 0))
    # torchrun's own id is "none" unless it was given one; the address is what tells launches apart then.
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
            "NODE_RANK, LOCAL_RANK and WORLD_SIZE do not tell which process of all this one is, as the number of "
            "processes a machine is not among them. Start with torchrun or srun, or set RANK too."
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
            f"The environment's variable {key} is {value!r}, not a number. It is set by the launcher of several "
            "processes; unset it to run one."
        ) from None
