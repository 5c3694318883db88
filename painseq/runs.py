"""Run folders (configuration, versions, history), the compute device, and the rank of this process in a launch."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import logging
import multiprocessing
import os
import platform
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, Any, Protocol
from uuid import uuid4

from painseq import __version__
from painseq.errors import PainseqError
from painseq.files import NO_LOCKS, is_partial, parse_json, remove_partials, try_lock, unlock
from painseq.spec import difference

log = logging.getLogger("painseq")

LOCK = ".lock"
"""The lock in a run folder; see `locked_folder`."""


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
    "numpy", "pillow", "opencv-python", "opencv-python-headless", "av", "decord",
)  # fmt: skip


def files_of(folder: Path) -> set[str]:
    """Return the names in a run folder, without its lock and without unfinished files of killed processes."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if name != LOCK and not is_partial(name)}


@contextmanager
def locked_folder(path: Path) -> Iterator[bool]:
    """Create the folder of a run if it is missing, and lock it: a second command that would write into it is refused.

    If nothing was written, the folder is removed again. If the work fails after it has written something, the file
    `.lock` stays, as after a kill; it does not lock anything then, but marks the folder as that of an interrupted run.

    Yields:
        Whether an earlier run in this folder was interrupted.

    Raises:
        PainseqError: another process works in the folder, or the folder cannot be created.

    Example:
        >>> with locked_folder(Path("runs/lstm")):
        ...     make_run_folder(Path("runs/lstm"))
    """
    existed = path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock, interrupted = _take_lock(path)
        remove_partials(path)
    except OSError as error:
        raise PainseqError(f"The run folder {path} cannot be created: {error}.") from error
    before, finished = files_of(path), False
    try:
        yield interrupted
        finished = True
    finally:
        files = files_of(path)
        # Work that was refused has written nothing, and leaves no mark on files of others.
        if finished or not files or not (interrupted or files - before):
            (path / LOCK).unlink(missing_ok=True)
        unlock(lock)
        if not files and not existed:
            # The next process may be in it already.
            with suppress(OSError):
                path.rmdir()


def _take_lock(folder: Path) -> tuple[IO[bytes], bool]:
    """Return the locked file, and whether a killed process had locked it before."""
    path = folder / LOCK
    while True:
        lock = path.open("a+b")
        lock.seek(0)
        owner = lock.read().decode(errors="replace")
        try:
            is_locked = try_lock(lock)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning(
                "The file system of %s has no file locks (%s): make sure that nothing else writes into it.",
                folder,
                error.strerror,
            )
            is_locked = True
        if not is_locked:
            lock.close()
            raise PainseqError(
                f"{owner or 'Another process'} is writing into {folder}. Wait until it ends, or choose another folder "
                "(command line: --out)."
            )
        # The last owner may have removed the file before it was locked here.
        if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            break
        unlock(lock)
    lock.truncate(0)
    lock.write(f"Process {os.getpid()} on {platform.node()}".encode())
    lock.flush()
    return lock, bool(owner)


def make_run_folder(path: Path, ignored: Collection[str] = ()) -> Path:
    """Create a new folder for a run; nothing is ever overwritten.

    Args:
        path: the folder.
        ignored: names of files that it may hold: those that a run writes first, where an earlier one was interrupted.

    Raises:
        PainseqError: the folder is not empty, or cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if files_of(path) - set(ignored):
            raise PainseqError(
                f"{path} already holds a run, which is never overwritten. Choose another folder for --out."
            )
    except OSError as error:
        raise PainseqError(f"The run folder {path} cannot be created: {error}.") from error
    return path


@contextmanager
def new_run_folder(path: Path) -> Iterator[Path]:
    """`locked_folder` with `make_run_folder`, for work that is not resumed."""
    with locked_folder(path):
        yield make_run_folder(path)


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
        content = parse_json(path.read_bytes())
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
    """Read the metrics of each epoch of a fit, including those logged before it was resumed.

    Raises:
        PainseqError: a file of that name is no such table.
    """
    rows: dict[int, dict[str, float]] = {}
    older = sorted(run.glob("metrics_before_*.csv"), key=lambda path: int(path.stem.rpartition("_")[2]))
    for path in (*older, run / "metrics.csv"):
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            try:
                for row in csv.DictReader(file):
                    values = {key: float(value) for key, value in row.items() if value and key != "step"}
                    rows.setdefault(int(values["epoch"]), {}).update(values)
            except (ValueError, KeyError, TypeError, csv.Error) as error:
                raise PainseqError(
                    f"{path} is not the table of metrics that a fit writes ({error!r}). Move it to another folder."
                ) from error
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


def is_first_process(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is the only process of a fit, or the first one of its launch, which writes the files."""
    if "RANK" in environment:
        return _number(environment, "RANK") == 0
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PTY_PORT" not in environment:
        return _number(environment, "SLURM_PROCID", 0) == 0
    # Lightning's own launcher, on one machine or several.
    return _number(environment, "LOCAL_RANK", 0) == 0 and _number(environment, "NODE_RANK", 0) == 0


def end_with_parent() -> None:
    """End this process as soon as the process that started it ends, even if that was killed.

    For the workers of a study: they would go on with their fold, and then wait for the next one forever.
    """
    parent = multiprocessing.parent_process()
    parent_id = os.getppid()

    def watch() -> None:
        if parent is not None:
            parent.join()
        else:
            while os.getppid() == parent_id:
                time.sleep(1.0)
        # Not sys.exit, which would end this thread alone.
        os._exit(1)

    Thread(target=watch, name="parent", daemon=True).start()


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


def short_names(models: Sequence[Path]) -> list[str]:
    """Name checkpoints by their run folders, and exported models by their own, with as many parent folders as needed to
    make the names unique.
    """
    files = [path / "model" if path.is_dir() else path for path in models]
    runs = [path.resolve().with_suffix("").parts[1:] for path in files]
    if len({run[:-1] for run in runs}) == len(runs):
        runs = [run[:-1] for run in runs]
    depth = next(n for n in range(1, 1 + max(map(len, runs))) if len({run[-n:] for run in runs}) == len(runs))
    return ["-".join(run[-depth:]) for run in runs]
