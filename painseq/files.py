"""Write files atomically, lock them, and find the files shipped with painseq."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from painseq.errors import PainseqError, printable

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems, and of operating systems, without file locks."""


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a path in the same folder to write to, which becomes `path` at the end: complete, or not at all.

    Args:
        path: the file.
        durable: whether it must outlast a power failure too, which takes some milliseconds.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is unchanged, and nothing else remains.
    """
    # A unique name: processes of one launch may write the same file at the same time.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
        if durable:
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        # Errors of a full disk name no file.
        raise error if error.filename else OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically: it is complete or absent, even if the process is killed or the power fails.

    Raises:
        OSError: the disk is full or the folder cannot be written; no partial file remains.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def is_partial(name: str) -> bool:
    """Whether this is the name of a file that a killed process has not finished; see `replacing`."""
    return name.startswith(".") and name.endswith(".partial")


def remove_partials(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder that no other process writes into."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


def try_lock(file: IO[bytes], exclusive: bool = True) -> bool:
    """Lock an open file, and return true; return false if another process has locked it.

    The system releases the lock when the process ends, even if it is killed.

    Raises:
        OSError: among others with an `errno` in `NO_LOCKS`.
    """
    try:
        import fcntl
    except ImportError as error:
        raise OSError(errno.ENOSYS, "no file locks on this operating system") from error
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(file: IO[bytes]) -> None:
    """Release the lock of `try_lock`, and close the file."""
    # Closing the file is not enough: a forked child shares it and would keep the lock.
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)
    except (ImportError, OSError):
        pass  # There was no lock.
    file.close()


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
