"""Which process of a launch this one is: torchrun's, Slurm's, or Lightning's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from painseq.errors import PainseqError


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
