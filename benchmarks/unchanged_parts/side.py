"""The old or the new code: where it lies, which flags it knows, and a process that runs its commands."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
SETTINGS = {
    **dict.fromkeys(THREADS, "1"), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "80", "MPLBACKEND": "Agg",
    "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
SITE = '''\
"""Lets the packages that an installation maps into painseq be found in the tree that is tested."""
import importlib.util, os, sys


class InTree:
    @staticmethod
    def find_spec(name, path=None, target=None):
        package, _, inner = name.partition(".")
        folder = os.path.join(os.environ["PAINSEQ_TREE"], inner)
        if package != "painseq" or inner not in ("data_modules", "configs") or not os.path.isdir(folder):
            return None
        if os.path.isdir(os.path.join(os.environ["PAINSEQ_TREE"], "painseq", inner)):
            return None
        file = os.path.join(folder, "__init__.py")
        return importlib.util.spec_from_file_location(name, file, submodule_search_locations=[folder])


sys.meta_path.insert(0, InTree)
'''


@dataclass(frozen=True)
class Dialect:
    """The flags and public class paths that differ between versions.

    Args:
        average: before the paths of several checkpoints.
        each: before each path of a checkpoint among several; None: the paths follow `average` by themselves.
        score: the command that measures explanations.
        augment: class path of the augmentation.
        calibrate: fits a temperature.
        plan: how parts of a plan of `transfer` are given.
    """

    average: str
    each: str | None
    score: tuple[str, ...]
    augment: str = "painseq.data.Augment"
    calibrate: tuple[str, ...] = ("--calibrate",)
    plan: Literal["arguments", "mappings"] = "mappings"

    def averaged(self, *checkpoints: Path) -> list[str]:
        """Flags that average several checkpoints."""
        if self.each is None:
            return [self.average, *map(str, checkpoints)]
        return [self.average, *(word for path in checkpoints for word in (self.each, str(path)))]


# ---- The table of dialects: what a side's `painseq COMMAND --help` must say -> which flags it takes; or a file of its
# tree -> which class path or form of plan. ----
AVERAGE = {r"--average-checkpoints": ("--average-checkpoints", None), r"--average\b": ("--average", "--checkpoint")}
CALIBRATE = {r"--calibrate true": ("--calibrate", "true"), r"--calibrate\b": ("--calibrate",)}
SCORE = {r"explain --score": ("explain", "--score"), r"explain score|\bscore\b": ("explain", "score")}
AUGMENT = {"painseq/augment.py": "painseq.augment.Augment", "painseq/data": "painseq.data.Augment"}
PLAN: dict[str, Literal["arguments", "mappings"]] = {
    "painseq/cli/transfer_plan.py": "arguments",
    "painseq/studies/transfer_plan.py": "mappings",
}


class Side:
    """Runs the commands of one tree.

    Args:
        tree: root of the repository, at the commit to be run.
        here: folder that the side's outputs go to.
    """

    def __init__(self, tree: Path, here: Path) -> None:
        self.tree, self.here = tree.resolve(), here.resolve()
        site = self.here / "site"
        site.mkdir(parents=True, exist_ok=True)
        (site / "sitecustomize.py").write_text(SITE, encoding="utf-8")
        self.environment: Mapping[str, str] = {
            **os.environ,
            **SETTINGS,
            "PAINSEQ_TREE": str(self.tree),
            "PYTHONPATH": f"{site}{os.pathsep}{self.tree}",
        }
        self.driver: subprocess.Popen[str] | None = None
        self.found: Dialect | None = None

    @property
    def dialect(self) -> Dialect:
        """Asked of the side's own help, once."""
        if self.found is None:
            average, each = AVERAGE[self._first(AVERAGE, "predict")]
            augment = next(path for file, path in AUGMENT.items() if (self.tree / file).exists())
            score, calibrate = SCORE[self._first(SCORE, "explain")], CALIBRATE[self._first(CALIBRATE, "evaluate")]
            plan = next(form for file, form in PLAN.items() if (self.tree / file).exists())
            self.found = Dialect(average, each, score, augment, calibrate, plan)
        return self.found

    def _first(self, table: Mapping[str, object], command: str) -> str:
        text, log = self.here / f"{command}_help.txt", self.here / f"{command}_help.log"
        self.run([command, "--help"], text, log)
        said = " ".join(text.read_text(encoding="utf-8").split())
        for pattern in table:
            if re.search(pattern, said):
                return pattern
        raise SystemExit(f"`painseq {command} --help` in {self.tree} names none of {', '.join(table)}: {log}")

    def run(self, args: list[str], out: Path, log: Path) -> int:
        """Run a command; its exit code. Standard output goes to `out`, messages to `log`."""
        if self.driver is None:
            self.driver = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / "driver.py")],
                cwd=self.tree,
                env=dict(self.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.driver.stdin is not None and self.driver.stdout is not None
        self.driver.stdin.write(json.dumps({"args": args, "out": str(out), "log": str(log)}) + "\n")
        self.driver.stdin.flush()
        answer = self.driver.stdout.readline()
        if not answer:
            raise SystemExit(f"The process that runs {self.tree} ended; see what it printed above.")
        return int(answer)

    def close(self) -> None:
        """End the process."""
        if self.driver is not None and self.driver.stdin is not None:
            self.driver.stdin.close()
            self.driver.wait()
        self.driver = None
