"""Predictions of people who were trained on: how a file says so, and how it is passed on."""

from __future__ import annotations

import csv
from pathlib import Path

from painseq.files import write_csv

LEAKY = "LEAKY"
LEAKY_COLUMN = "leaky"


def is_leaky(path: Path) -> bool:
    """Whether the word LEAKY stands in a file's path or in it, or a column is called leaky."""
    content = path.read_text(encoding="utf-8-sig", errors="replace")
    columns = next(csv.reader(content.splitlines()[:1]), [])
    return LEAKY in str(path.resolve()) or LEAKY in content or LEAKY_COLUMN in columns


def marked(name: str) -> str:
    """The name of a model whose predictions are leaky, as it stands in every output."""
    return name if LEAKY in name else f"{name} ({LEAKY})"


def mark(path: Path, column: str = LEAKY_COLUMN, cell: str = LEAKY) -> None:
    """Give a CSV a last column with the same word in each row, so that no later command takes it for an honest one."""
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    write_csv(path, [[*head, column], *([*row, cell] for row in rows)])
