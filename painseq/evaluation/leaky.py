"""Marks on files with leaky predictions, which are of subjects that the model was trained on."""

from __future__ import annotations

import csv
from pathlib import Path

from painseq.files import write_csv
from painseq.tables import read_table, text_of

LEAKY = "LEAKY"
LEAKY_COLUMN = "leaky"


def is_leaky(path: Path) -> bool:
    """Whether a file's path or content contains the word LEAKY, or a column is called leaky."""
    return LEAKY in str(path.resolve()) or LEAKY in text_of(path) or LEAKY_COLUMN in read_table(path)[0]


def marked(name: str) -> str:
    """Name of a model with leaky predictions, as shown in every output."""
    return name if LEAKY in name else f"{name} ({LEAKY})"


def mark(path: Path, column: str = LEAKY_COLUMN, cell: str = LEAKY) -> None:
    """Add a last column to a CSV with the same mark in each row, so that later commands recognise it as leaky."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    write_csv(path, [[*header, column], *([*row, cell] for row in rows)])
