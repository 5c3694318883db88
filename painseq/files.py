"""Write files atomically, and find the files shipped with painseq."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from painseq.errors import PainseqError, printable


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: it is complete or absent, even if the process is killed or the power fails.

    Raises:
        OSError: the disk is full or the folder cannot be written; no partial file remains.
    """
    # A unique name: processes of one launch may write the same file at the same time.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: object) -> None:
    """Write plain values as JSON, atomically; see `write_atomically`.

    Raises:
        ValueError: NaN or an infinite number, which JSON cannot represent.
    """
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Iterable[object]], delimiter: str = ",", line_end: str = "\r\n") -> None:
    """Write a table, header row first, atomically; see `write_atomically`. None becomes an empty cell.

    Bytes of a file name that are not UTF-8 are written as `printable` does."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=line_end).writerows(rows)
    write_atomically(path, printable(text.getvalue()).encode())


def shipped_configs() -> Path:
    """Return the folder of the shipped YAML files: `data/`, `extractor/`, `head/`, `reproduce/`, `demo/`.

    Raises:
        PainseqError: they are missing from this installation.
    """
    try:
        from painseq import configs
    except ImportError:
        configs = None
    folder = None if configs is None else Path(configs.__file__).parent
    if folder is None or not any(folder.rglob("*.yaml")):
        raise PainseqError(
            f"The configurations shipped with painseq were not found for {Path(__file__).parent}. Install painseq "
            "(pip install ., or pip install -e . in a clone); a bare copy of its folder lacks them."
        )
    return folder
