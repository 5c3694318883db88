"""Kills extractions, fits and cross-validations at random times, and resumes them until they are done.

    python benchmarks/kill_storm.py                        # 100 kills of each command, with one and with two processes
    python benchmarks/kill_storm.py --kills 10 --only fit  # fewer, of one command
    python benchmarks/kill_storm.py --write                # and record the table in benchmarks/RESULTS.md

A small data set is generated, and each command runs once undisturbed. Then it is started, killed (SIGKILL) after a
random time of up to 1.2 of what it took undisturbed, and started again with the same arguments (`fit` with
`--resume`), until it ends by itself; then in a new folder, until there were enough kills. What it left must equal what
the undisturbed command left: the files of a store byte for byte (with two ranks, whose clips lie in other shards, each
clip bit by bit), the weights of a fit, the predictions and scores of a cross-validation. After each kill no process
that it had started may go on, and no file may be left in the folder for temporary files.

Processes: `extract` and `fit` in two ranks as torchrun starts them, of which one is killed (the other one of a fit is
then ended, as torchrun does); `crossval --jobs 2`, of which the first process is killed, and its workers must end by
themselves. Each run is a fork of a process that has imported everything, since importing takes longer than the work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from results import RESULTS, machine, write_between

from painseq.cli import main as painseq
from painseq.features import FeatureStore, shards
from painseq.model.checkpoint import read_checkpoint
from painseq.synthetic import AI4PainPlan, write_ai4pain

ENDS_WITHIN_S = 120.0
"""How long the workers of a killed process may take to end: one that is still importing ends when it has."""

NETWORK = """
model: {extractor: {class_path: painseq.extractors.TimmBackbone,
                    init_args: {model: test_resnet, weights: null, input_size_px: 32}}}
data: {init_args: {options: {fps: 3, face: {class_path: painseq.faces.FaceCrops,
                    init_args: {locator: {class_path: painseq.faces.Sidecar}, size_px: 32}}}}}
trainer: {max_epochs: 8, enable_progress_bar: false, enable_model_summary: false, accelerator: cpu}
"""


@dataclass
class Storm:
    """A command, how many processes it has, and what became of its kills."""

    command: str
    processes: int
    arguments: Sequence[str]
    same: Callable[[Path, Path], bool]
    kills: int = 0
    runs: int = 0
    equal: int = 0
    processes_left: int = 0
    files_left: int = 0
    errors: list[str] = field(default_factory=list)
    whole_s: float = 0.0

    def ranks(self) -> list[dict[str, str]]:
        """The environment of each process that is started."""
        if self.processes == 1 or self.command == "crossval":
            return [{}]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        return [{**address, "TORCHELASTIC_RUN_ID": "storm", "RANK": r, "LOCAL_RANK": r} for r in "01"]

    def start(self, out: Path) -> list[int]:
        """Start the command, and return its processes, each the leader of a session."""
        begun = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
        resume = ["--resume"] if self.command == "fit" and begun else []
        return [start([self.command, *self.arguments, "--out", str(out), *resume], rank, out) for rank in self.ranks()]

    def row(self) -> str:
        """The row of the table."""
        cells = [f"`{self.command}`", self.processes, self.kills, self.runs, f"{self.equal} of {self.runs}"]
        return "| " + " | ".join(map(str, [*cells, self.processes_left, self.files_left, len(self.errors)])) + " |"


def start(argv: list[str], environment: dict[str, str], out: Path) -> int:
    """Run a command in a forked process, whose output goes to a file beside the run folder."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        code = painseq(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def session(leader: int) -> list[int]:
    """The processes that run in the session of a process, which may be dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == leader and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def wait(pids: Sequence[int], until_s: float) -> dict[int, int]:
    """Wait for processes until a time; returns the exit codes of those that ended."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        for pid in set(pids) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > until_s:
            break
        time.sleep(0.005)
    return codes


def strike(storm: Storm, out: Path, wait_s: float, temp: Path) -> bool:
    """Start the command, and kill it after a time; returns whether it had ended before."""
    pids = storm.start(out)
    codes = wait(pids, time.monotonic() + wait_s)
    if len(codes) == len(pids):
        check_codes(storm, codes, out)
        return True
    victim = random.choice([pid for pid in pids if pid not in codes])
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    storm.kills += 1
    others = [pid for pid in pids if pid not in codes and pid != victim]
    if storm.command == "fit":
        for pid in others:
            os.kill(pid, signal.SIGKILL)
    # The other rank of an extraction finishes its share.
    ended = wait(others, time.monotonic() + 120)
    if storm.command != "fit":
        check_codes(storm, ended, out)
    until_s = time.monotonic() + ENDS_WITHIN_S
    while (left := [pid for leader in pids for pid in session(leader)]) and time.monotonic() < until_s:
        time.sleep(0.05)
    storm.processes_left += len(left)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    for path in temp.iterdir():
        storm.files_left += 1
        storm.errors.append(f"left in the folder for temporary files: {path.name}")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return False


def check_codes(storm: Storm, codes: dict[int, int], out: Path) -> None:
    """Note commands that ended with an error."""
    if any(codes.values()):
        storm.errors.append(f"exit codes {list(codes.values())}: {out.with_suffix('.log').read_text()[-2000:]}")


def run(storm: Storm, work: Path, temp: Path, kills: int, minutes: float) -> None:
    """Kill a command so many times, or for so many minutes; its last run is finished and compared too."""
    base = work / f"{storm.command}{storm.processes}"
    whole, begin_s = base / "whole", time.monotonic()
    base.mkdir(parents=True)
    codes = wait(storm.start(whole), begin_s + 900)
    if any(codes.values()) or not codes:
        sys.exit(f"undisturbed, {storm.command} ended with {codes}: {whole.with_suffix('.log').read_text()}")
    storm.whole_s = time.monotonic() - begin_s
    begin_s = time.monotonic()
    while storm.kills < kills and time.monotonic() < begin_s + 60 * minutes and len(storm.errors) < 10:
        out = base / f"run{storm.runs}"
        strikes = 0
        while True:
            strikes += 1
            enough = storm.kills >= kills or strikes > 20 or time.monotonic() > begin_s + 60 * minutes
            wait_s = 900.0 if enough else random.uniform(0, 1.2 * storm.whole_s)
            if strike(storm, out, wait_s, temp):
                break
        storm.runs += 1
        storm.equal += storm.same(whole, out)
        if not storm.same(whole, out):
            storm.errors.append(f"{out} differs from {whole}")
    print(storm.row(), *storm.errors, sep="\n", flush=True)


def same_files(one: Path, other: Path) -> bool:
    """Whether two stores have the same files; run.json tells of times, the weights' metadata have any order."""

    def files(store: Path) -> dict[str, bytes]:
        names = ("run.json", "extractor.safetensors")
        found = [path for path in sorted(store.rglob("*")) if path.is_file() and not path.name.startswith(".lock")]
        return {str(path.relative_to(store)): path.read_bytes() for path in found if path.name not in names}

    return files(one) == files(other)


def same_clips(one: Path, other: Path) -> bool:
    """Whether two stores hold the same clips, bit by bit, and have no other fault."""
    a, b = FeatureStore(one), FeatureStore(other)
    return not b.check() and set(a) == set(b) and all(torch.equal(a[clip].features, b[clip].features) for clip in a)


def same_weights(one: Path, other: Path) -> bool:
    """Whether two fits have the same checkpoints."""
    for name in ("best.ckpt", "last.ckpt"):
        a, b = read_checkpoint(one / name).head, read_checkpoint(other / name).head
        if a.keys() != b.keys() or not all(torch.equal(value, b[key]) for key, value in a.items()):
            return False
    scores = [json.loads((run / "run.json").read_text())["best_val_loss"] for run in (one, other)]
    return scores[0] == scores[1]


def same_folds(one: Path, other: Path) -> bool:
    """Whether two cross-validations have the same predictions, folds and scores."""
    names = ("predictions.csv", "metrics.json", "folds.json", "fold-00/predictions.csv")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def storms(work: Path) -> list[Storm]:
    """Generate the data, extract the features, and return each command with one and with two processes."""
    plan = AI4PainPlan(train=4, validation=1, test=2, trials=1, baseline_s=25, fps=3, size_px=64)
    write_ai4pain(work / "data", plan, seed=0)
    (work / "network.yaml").write_text(NETWORK)
    common = ["--config", "configs/data/ai4pain.yaml", "--config", str(work / "network.yaml")]
    common += ["--data.root", str(work / "data")]
    # One frame a batch: which frames share a batch, and so the last digits, depend on what was done before a kill.
    extract = [*common, "--batch-frames", "1", "--precision", "fp32"]
    painseq(["extract", *extract, "--out", str(work / "store")])
    features = [*common, "--data.options.store", str(work / "store"), "--config", "configs/head/lstm.yaml"]
    ddp = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    folds = [*features, "--data.options.split.protocol", "loso", "--data.options.split.validation_share", "0.2"]
    return [
        Storm("extract", 1, extract, same_files),
        Storm("extract", 2, extract, same_clips),
        Storm("fit", 1, features, same_weights),
        Storm("fit", 2, [*features, *ddp], same_weights),
        Storm("crossval", 1, [*folds, "--jobs", "1"], same_folds),
        Storm("crossval", 2, [*folds, "--jobs", "2"], same_folds),
    ]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="kills of each command and number of processes")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="longest time for a command and number of processes"
    )
    parser.add_argument(
        "--work", type=Path, help="a new folder to work in; default: a temporary one, removed at the end"
    )
    parser.add_argument("--only", choices=("extract", "fit", "crossval"))
    parser.add_argument("--processes", type=int, choices=(1, 2), help="only with so many; default: both")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--write", action="store_true", help="record the table in benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(args.seed)
    shards.CLIPS_PER_SHARD = 8
    work = args.work or Path(tempfile.mkdtemp(prefix="kill_storm_"))
    temp = work / "temp"
    temp.mkdir(parents=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temp)
    chosen = [
        storm
        for storm in storms(work)
        if args.only in (None, storm.command) and args.processes in (None, storm.processes)
    ]
    for storm in chosen:
        run(storm, work, temp, args.kills, args.minutes)
    head = "| command | processes | kills | runs resumed to the end | equal to the undisturbed one | processes left | "
    head += "temporary files left | errors |\n|---|---|---|---|---|---|---|---|"
    table = "\n".join([machine(), "", head, *(storm.row() for storm in chosen)])
    print(table)
    if args.write:
        write_between(RESULTS, "kill_storm", table)
    if args.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
