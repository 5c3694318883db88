"""Files that are there whole or not at all, and those shipped with painseq."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from painseq.errors import PainseqError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, also when the process is killed or the power fails.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind then.
    """
    # A name of its own: processes of one launch may write the same file at the same time.
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
    """Write plain values as JSON, whole or not at all; see `write_atomically`.

    Raises:
        ValueError: NaN or an infinite number, which JSON does not have.
    """
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Iterable[object]], delimiter: str = ",", line_end: str = "\r\n") -> None:
    """Write a table, its head first, whole or not at all; see `write_atomically`. None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=line_end).writerows(rows)
    write_atomically(path, text.getvalue().encode())


def shipped_configs() -> Path:
    """The folder of the YAML files shipped with painseq: `data/`, `extractor/`, `head/`, `reproduce/`, `demo/`.

    Raises:
        PainseqError: this installation lacks them.
    """
    try:
        from painseq import configs
    except ImportError:
        configs = None
    folder = None if configs is None else Path(configs.__file__).parent
    if folder is None or not any(folder.rglob("*.yaml")):
        raise PainseqError(
            f"The configurations shipped with painseq are not found beside {Path(__file__).parent}. Install painseq "
            "(pip install ., or pip install -e . in a clone); a copy of its folder alone lacks them."
        )
    return folder
