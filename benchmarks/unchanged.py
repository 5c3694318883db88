"""Does every command give the same figures as before? The old code and this one, side by side on small data.

    python benchmarks/unchanged.py --against a2381f5                          # all steps, on both sides
    python benchmarks/unchanged.py --against a2381f5 --work runs/unchanged    # keeps the folder: run again, it uses
                                                                              # what the old side wrote before
    python benchmarks/unchanged.py --recorded                                 # against benchmarks/unchanged.json
    python benchmarks/unchanged.py --recorded --record                        # write that file anew

The old code is a git worktree of the commit. Both sides run `python -m painseq ...` as a user does, each with its own
flags and the YAML files of its own tree, on one thread with fixed seeds, and read the data that the old side
generated. Compared is what they write: tensors and decoded pictures exactly, figures to 1e-6, ids; no sentences, times,
versions or paths. The real videos take part where they lie beside the repository. A change of figures on purpose
renews benchmarks/unchanged.json, and says why.

`--steps fit_lstm,predict` runs some steps and what these read; `--list` names them. Exit code 1: something differs.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unchanged_parts import recorded
from unchanged_parts.compare import Reader
from unchanged_parts.side import Side
from unchanged_parts.steps import COPIED, PICTURES, Inputs, closure, steps_of

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT.parent / "shared" / "assets"
RECORD = ROOT / "benchmarks" / "unchanged.json"
SHOWN = 5


@dataclass(frozen=True)
class Outcome:
    """A step that a side ran: its arguments, exit code and seconds."""

    args: list[str]
    code: int
    seconds: float


def git(*args: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *args], check=True, capture_output=True, text=True).stdout.strip()


def tree_of(commit: str, folder: Path) -> Path:
    """A worktree of the commit; one that is there is used again."""
    if not (folder / ".git").exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(folder), commit)
    return folder


@contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    """The folder asked for, or one that goes with what is in it."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="unchanged-"))
    try:
        yield folder.resolve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(side: Side, name: str, args: list[str], old: Path) -> Outcome:
    """Run a step in an empty folder."""
    folder = side.here / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name in COPIED:
        shutil.copytree(old / COPIED[name], folder, dirs_exist_ok=True)
    began = time.perf_counter()
    code = side.run(args, folder / "stdout.json", folder / "messages.txt")
    outcome = Outcome(args, code, time.perf_counter() - began)
    (folder / "outcome.txt").write_text(json.dumps(vars(outcome)), encoding="utf-8")
    return outcome


def kept(side: Side, name: str, args: list[str], needed: Sequence[str]) -> Outcome | None:
    """What a side has done already, if it was this, and after all that it reads."""
    paths = [side.here / one / "outcome.txt" for one in (*needed, name)]
    if not all(path.is_file() for path in paths) or paths[-1].stat().st_mtime_ns < max(
        path.stat().st_mtime_ns for path in paths
    ):
        return None
    outcome = Outcome(**json.loads(paths[-1].read_text(encoding="utf-8")))
    return outcome if outcome.args == args and outcome.code == 0 else None


class Comparison:
    """Runs steps on one side or on both, and tells what differs.

    Args:
        work: folder for everything.
        commit: of the old side; None compares with the recorded figures.
    """

    def __init__(self, work: Path, commit: str | None) -> None:
        self.new = Side(ROOT, work / "new")
        self.old = None
        if commit is not None:
            short = commit[:12]
            self.old = Side(tree_of(commit, work / f"tree-{short}"), work / f"old-{short}")
        self.first = self.old or self.new
        assets = ASSETS if ASSETS.is_dir() else None
        self.inputs = Inputs(work / "inputs", self.first.here, assets)
        self.recorded: dict[str, dict] = {}
        if self.old is None and RECORD.is_file():
            content = json.loads(RECORD.read_text(encoding="utf-8"))
            self.recorded = content["steps"]
            if content["machine"] != recorded.machine():
                print(f"Recorded on {content['machine']}, run on {recorded.machine()}: last digits may differ.")
        self.figures: dict[str, dict] = {}

    def names(self) -> list[str]:
        """All steps, in order."""
        return list(steps_of(self.first.here, self.inputs, self.first.dialect))

    def chosen(self, wanted: Sequence[str]) -> list[str]:
        """The steps wanted, and those that they read."""
        steps = steps_of(self.first.here, self.inputs, self.first.dialect)
        unknown = [name for name in wanted if name not in steps]
        if unknown:
            raise SystemExit(f"No step {unknown[0]!r}; there are {', '.join(steps)}.")
        return closure(wanted, steps, self.first.here) if wanted else list(steps)

    def step(self, name: str, pool: ThreadPoolExecutor) -> bool:
        """Run a step and print what differs; whether nothing does."""
        steps = {side: steps_of(side.here, self.inputs, side.dialect) for side in (self.first, self.new)}
        args = {side: of[name] for side, of in steps.items()}
        done: dict[Side, Outcome] = {}
        if self.old is not None:
            needed = closure([name], steps[self.old], self.old.here)
            before = kept(self.old, name, args[self.old], needed)
            done |= {} if before is None else {self.old: before}
        sides = [side for side in args if side not in done]
        outcomes = pool.map(lambda side: run(side, name, args[side], self.first.here), sides)
        done |= dict(zip(sides, outcomes, strict=True))
        if name == "synth_electrical":
            self.inputs.write_units()
        lines = [
            f"exit code {outcome.code}, see {side.here / name / 'messages.txt'}"
            for side, outcome in done.items()
            if outcome.code
        ]
        lines += self._compare(name, reader := self._reader(name))
        times = " + ".join(f"{done[side].seconds:.0f}" for side in sides)
        compared = f"{reader.arrays} arrays, {reader.figures} figures and ids"
        print(f"{name:20} {'DIFFERENT' if lines else 'equal':10} {compared}; {times} s", flush=True)
        for line in lines[:SHOWN]:
            print(f"    {line}", flush=True)
        if len(lines) > SHOWN:
            print(f"    and {len(lines) - SHOWN} more", flush=True)
        return not lines

    def _reader(self, name: str) -> Reader:
        homes = [str(path) for side in (self.first, self.new) for path in (side.here, side.tree)]
        return Reader(tuple(homes), name in PICTURES)

    def _compare(self, name: str, reader: Reader) -> list[str]:
        self.figures[name] = recorded.figures_of(self.new.here / name)
        if self.old is None:
            reader.figures = len(self.recorded.get(name, {}))
            return recorded.against(self.recorded[name], self.figures[name]) if name in self.recorded else ["no record"]
        return reader.differences(self.old.here / name, self.new.here / name)

    def close(self) -> None:
        """End the processes of both sides."""
        for side in {self.first, self.new}:
            side.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--against", metavar="COMMIT", help="run the code of this commit too, and compare")
    what.add_argument("--recorded", action="store_true", help=f"compare with {RECORD.relative_to(ROOT)}")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(ROOT)}")
    parser.add_argument("--steps", default="", metavar="A,B", help="only these, and what they read")
    parser.add_argument("--list", action="store_true", help="name the steps")
    parser.add_argument("--work", type=Path, help="folder to keep; the old side's outputs in it are used again")
    args = parser.parse_args(argv)
    commit = None if args.against is None else git("rev-parse", f"{args.against}^{{commit}}")
    with working_folder(args.work) as work:
        comparison = Comparison(work, commit)
        try:
            if args.list:
                print("\n".join(comparison.names()))
                return 0
            began = time.perf_counter()
            names = comparison.chosen([name for name in args.steps.split(",") if name])
            with ThreadPoolExecutor(2) as pool:
                same = [comparison.step(name, pool) for name in names]
        finally:
            comparison.close()
    if commit is not None:
        git("worktree", "prune")
    print(f"{sum(same)} of {len(same)} steps equal, {time.perf_counter() - began:.0f} s")
    if args.record:
        recorded.write(RECORD, git("rev-parse", "--short", commit or "HEAD"), comparison.figures)
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
