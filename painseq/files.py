"""Write files atomically, lock them, and find the files shipped with painseq."""

from __future__ import annotations

import csv
import errno
import glob
import io
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import yaml

from painseq.errors import PainseqError, printable

MAX_DEPTH = 50
"""Lists within lists that are read from a file."""
MAX_YAML_CHARACTERS, MAX_YAML_VALUES = 4 * 2**20, 200_000
"""Limits of a YAML file. Aliases let a few lines stand for billions of values."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems, and of operating systems, without file locks."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBERS = re.compile(r"[-+]?[\d.,]+( ?%)?( \([-+\d., %to]*\))?")
"""A number or a percentage, with or without its interval in brackets."""

_OWN_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial")


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


@contextmanager
def folder_replacing(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path` to write to, which becomes `path` at the end: complete, or not at all.

    Unfinished folders that killed processes left of the same `path` are removed first.

    Args:
        path: the folder, which does not exist yet or is empty.

    Raises:
        PainseqError: it is the current folder, or a mounted one, which cannot be replaced.
        OSError: the disk is full, the folder cannot be written, or somebody else has filled `path` meanwhile; nothing
            remains.
    """
    named, path = path, path.resolve()
    if path == Path.cwd() or path.is_mount():
        raise PainseqError(f"{named} is the current folder or a mounted one. Name a new folder, such as one inside it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if _OWN_PARTIAL.fullmatch(left.name) and left.is_dir():
            with _folder_locked(left) as is_ours:
                if is_ours:
                    shutil.rmtree(left, ignore_errors=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    partial.mkdir()
    with _folder_locked(partial):
        try:
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    with file.open("r+b") as opened:
                        os.fsync(opened.fileno())
            partial.replace(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def _folder_locked(folder: Path) -> Iterator[bool]:
    """Lock a folder while somebody writes into it; gives false if another process does, or if that cannot be known."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # Gone meanwhile, or an operating system that opens no folders.
        yield False
        return
    try:
        try:
            is_ours = try_lock(number)
        except OSError:
            is_ours = False
        yield is_ours
    finally:
        os.close(number)


def is_partial(name: str) -> bool:
    """Whether this is the name of a file that a killed process has not finished; see `replacing`."""
    return name.startswith(".") and name.endswith(".partial")


def remove_partials(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder that no other process writes into."""
    for path in folder.glob(".*.partial"):
        if _OWN_PARTIAL.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def try_lock(file: IO[bytes] | int, exclusive: bool = True) -> bool:
    """Lock an open file (or its number), and return true; return false if another process has locked it.

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


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from a file that may be damaged.

    Raises:
        ValueError: not JSON, not in UTF-8, NaN or an infinite number, or nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(MAX_DEPTH):
        values = (value for inner in level for value in (inner.values() if isinstance(inner, dict) else inner))
        level = [value for value in values if isinstance(value, dict | list)]
    if level:
        raise ValueError("nested too deeply")
    return content


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Read a file of one JSON object a line, which a process may have been killed at writing.

    Returns:
        The objects, and whether the last line is unfinished or damaged, which is left out.

    Raises:
        PainseqError: a line before the last one is no JSON object.
    """
    *lines, last = path.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError("no JSON object")
        except ValueError as error:
            if number == len(lines) and not last:
                return rows, True
            raise PainseqError(f"{path}, line {number}: {error}. Choose another file, or remove the line.") from error
        rows.append(row)
    return rows, bool(last)


@contextmanager
def appending(path: Path) -> Iterator[Callable[[object], None]]:
    """Give a function that appends a plain value to a file as a line of JSON, at once, so that it survives a kill.

    Raises:
        PainseqError: another process appends to the file.
        OSError: the file cannot be written.
    """
    with path.open("ab") as file:
        try:
            is_locked = try_lock(file)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            is_locked = True
        # The last owner may have replaced the file before it was locked here.
        if not is_locked or not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise PainseqError(f"Another process writes into {path}. Wait until it ends, or choose another file.")

        def append(row: object) -> None:
            file.write((printable(json.dumps(row, allow_nan=False)) + "\n").encode())
            file.flush()

        yield append


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys of a YAML file that may be damaged; an empty file has none.

    Raises:
        PainseqError: it cannot be read, is too large or nested too deeply, see `check_yaml`, or holds no keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
        check_yaml(text)
        content = yaml.safe_load(text) or {}
    # Besides its own errors, PyYAML raises those of the types that it builds.
    except (OSError, ValueError, LookupError, TypeError, OverflowError, AttributeError, yaml.YAMLError) as error:
        raise PainseqError(f"{path} cannot be read as YAML: {error}.") from error
    if not isinstance(content, dict):
        raise PainseqError(f"{path} holds no keys; it must be YAML such as `data: ...`.")
    return content


def check_yaml(text: str) -> None:
    """Check that YAML is small enough to be read, with its aliases written out.

    Raises:
        ValueError: it has too many values, is nested too deeply, or contains itself.
        yaml.YAMLError: it is not YAML.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"it has more than {MAX_YAML_CHARACTERS} characters")
    sizes: dict[str, int] = {}
    within: list[tuple[str | None, int]] = []
    size = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            within.append((event.anchor, size))
            size = 0
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            anchor, outside = within.pop()
            if anchor is not None:
                sizes[anchor] = size
            size += outside
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in within):
                raise ValueError(f"the value of &{event.anchor} contains itself")
            size += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
        if size > MAX_YAML_VALUES or len(within) > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_YAML_VALUES} values, or is nested more than {MAX_DEPTH} deep")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def write_csv(
    path: Path,
    rows: Iterable[Iterable[object]],
    delimiter: str = ",",
    line_end: str = "\r\n",
    spreadsheet: bool = False,
) -> None:
    """Write a table, header row first, atomically; see `write_atomically`. None becomes an empty cell.

    Bytes of a file name that are not UTF-8 are written as `printable` does.

    Args:
        spreadsheet: the file is for people, and painseq does not read it: texts that a spreadsheet would run as a
            formula get an apostrophe in front. Files that painseq reads keep every name exactly.
    """
    if spreadsheet:
        rows = ([_as_text(cell) for cell in row] for row in rows)
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=line_end).writerows(rows)
    write_atomically(path, printable(text.getvalue()).encode())


def _as_text(cell: object) -> object:
    """A cell that a spreadsheet does not run as a formula; numbers, and texts of numbers alone, are unchanged."""
    runs = isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) and not _NUMBERS.fullmatch(cell)
    return f"'{cell}" if runs else cell


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
            "(pip install '.[train]', or pip install -e '.[train]' in a clone); a bare copy of its folder lacks them."
        )
    return folder
