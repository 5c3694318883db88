"""Which process of a launch this is, as launchers tell it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from painseq import runs as processes
from painseq.errors import PainseqError
from painseq.runs import Process, is_first_process, this_process

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}
SBATCH = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NAME": "extract",
}
SRUN = {**SBATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "1"}
LIGHTNING = {
    "LOCAL_RANK": "1",
    "NODE_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "41234",
}


def test_a_process_on_its_own_is_the_only_one():
    first, second = this_process({}), this_process({})
    assert (first.rank, first.count, first.local_rank) == (0, 1, 0)
    assert first.run != second.run


@pytest.mark.parametrize(
    ("environment", "numbers"),
    [(TORCHRUN, (3, 4, 1)), (SRUN, (2, 4, 1)), (LIGHTNING, (1, 2, 1)), ({**LIGHTNING, "RANK": "1"}, (1, 2, 1))],
)
def test_launchers_tell_the_rank(environment, numbers):
    process = this_process(environment)
    assert (process.rank, process.count, process.local_rank) == numbers
    assert process == this_process(environment)


@pytest.mark.parametrize(
    ("environment", "of_another", "of_another_launch"),
    [
        (TORCHRUN, {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, {"MASTER_PORT": "29501"}),
        (SRUN, {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, {"SLURM_STEP_ID": "1"}),
        (LIGHTNING, {"LOCAL_RANK": "0"}, {"MASTER_PORT": "41235"}),
    ],
)
def test_the_run_is_that_of_the_launch(environment, of_another, of_another_launch):
    assert this_process(environment).run == this_process({**environment, **of_another}).run
    assert this_process(environment).run != this_process({**environment, **of_another_launch}).run


@pytest.mark.parametrize(
    "environment",
    [
        SBATCH,  # A batch script runs once, whatever number of tasks was asked for.
        {**SRUN, "SLURM_PTY_PORT": "40123", "SLURM_PROCID": "0"},  # srun --pty bash
        {"WORLD_SIZE": "4"},
        {"LOCAL_RANK": "0"},
    ],
)
def test_what_is_no_launch_of_several(environment):
    assert this_process(environment).count == 1


def test_one_process_that_was_launched_shares_with_nobody():
    for environment in (
        {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {**LIGHTNING, "WORLD_SIZE": "1"},
    ):
        first, second = this_process(environment), this_process(environment)
        assert first.count == 1 and first.local_rank == 1 and first.run != second.run


@pytest.mark.parametrize(
    ("environment", "values"),
    [
        ({**TORCHRUN, "WORLD_SIZE": "many"}, "(?=.*WORLD_SIZE)(?=.*'many')"),
        ({**TORCHRUN, "RANK": "4"}, r"\b4\b"),
        ({**LIGHTNING, "NODE_RANK": "1"}, r"\bRANK\b"),
    ],
)
def test_variables_that_tell_nothing_are_refused(environment, values):
    with pytest.raises(PainseqError, match=values):
        this_process(environment)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        (SBATCH, True),
        (TORCHRUN, False),
        ({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}, True),
        ({**TORCHRUN, "RANK": "2", "LOCAL_RANK": "0"}, False),
        (SRUN, False),
        ({**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        ({**SRUN, "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, False),
        (LIGHTNING, False),
        ({**LIGHTNING, "LOCAL_RANK": "0"}, True),
        ({"NODE_RANK": "1"}, False),
    ],
)
def test_one_process_of_a_launch_writes(environment, first):
    assert is_first_process(environment) == first


WORKER = """
import os, sys, time
from multiprocessing import get_context
from painseq.runs import end_with_parent

def work(path):
    end_with_parent()
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(300)

if __name__ == "__main__":
    worker = get_context("spawn").Process(target=work, args=(sys.argv[1],))
    worker.start()
    worker.join()
"""


def test_a_worker_ends_with_a_killed_parent(tmp_path):
    script, told = tmp_path / "study.py", tmp_path / "pid"
    script.write_text(WORKER)
    parent = subprocess.Popen([sys.executable, str(script), str(told)])
    give_up_s = time.monotonic() + 120
    while not (told.is_file() and told.read_text()) and time.monotonic() < give_up_s:
        time.sleep(0.05)
    worker = int(told.read_text())
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    while is_running(worker) and time.monotonic() < give_up_s:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(pid: int) -> bool:
    """Whether a process runs; in a container nobody may collect the orphans, which stay as zombies."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_a_real_torchrun(tmp_path):
    """The module is loaded on its own: a launch of processes that import everything takes long."""
    script = tmp_path / "tell.py"
    script.write_text(
        "import importlib.util, json, sys\n"
        f"spec = importlib.util.spec_from_file_location('processes', {processes.__file__!r})\n"
        "module = sys.modules['processes'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "process = module.this_process()\n"
        f"open({str(tmp_path)!r} + f'/{{process.rank}}.json', 'w').write(json.dumps(vars(process)))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {key: value for key, value in os.environ.items() if key not in TORCHRUN}
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=600)
    told = [Process(**json.loads(Path(tmp_path, f"{rank}.json").read_text())) for rank in (0, 1)]
    assert [(process.rank, process.count, process.local_rank) for process in told] == [(0, 2, 0), (1, 2, 1)]
    assert told[0].run == told[1].run
