"""Where what was measured is recorded: tables between two comments of a page."""

import os
import platform
import re
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def machine() -> str:
    """On what it was measured."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"Machine: {os.cpu_count()} cores, {platform.machine()}, {versions}."


def write_between(path: Path, marker: str, text: str) -> None:
    """Put text between two comments of a page; tell if they are not there."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    if begin not in page or end not in page:
        print(f"{path} has no {begin} ... {end}: nothing written.")
        return
    between = re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL)
    path.write_text(between, encoding="utf-8")
