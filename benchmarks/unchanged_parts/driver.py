"""One side's process: runs `python -m painseq ...` again and again, without importing torch anew each time.

Started with the side's tree as working folder. Reads a line of JSON a command, `{"args": [...], "out": FILE, "log":
FILE}`, runs it in a forked process, and answers with a line that holds its exit code.
"""

import importlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

PRELOADED = (
    "torch", "torchvision", "pytorch_lightning.cli", "jsonargparse", "timm", "scipy.stats", "sklearn.metrics",
    "matplotlib.pyplot", "captum.attr", "rich.progress",
)  # fmt: skip
"""Slow to import. Nothing of painseq is among them: each command imports that by itself."""
OWN = ("painseq", "data_modules", "configs")
WRONG_TREE = 99


def strangers(tree: Path) -> list[str]:
    """Modules of painseq that were imported from somewhere else than the side's tree."""
    files = [
        Path(file).resolve()
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in OWN and (file := getattr(module, "__file__", None))
    ]
    return [str(file) for file in files if tree not in file.parents]


def run(args: list[str], tree: Path) -> int:
    """What `python -m painseq` does, and its exit code."""
    sys.argv = ["painseq", *args]
    try:
        runpy.run_module("painseq", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    if wrong := strangers(tree):
        print(f"Imported from outside {tree}: {', '.join(wrong)}", file=sys.stderr)
        return WRONG_TREE
    return code


def forked(command: dict, tree: Path) -> int:
    """Run a command in a process of its own."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for name, descriptor in (("out", 1), ("log", 2)):
        file = os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 70
    try:
        code = run(command["args"], tree)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    tree = Path.cwd().resolve()
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(forked(json.loads(line), tree), flush=True)


if __name__ == "__main__":
    main()
