"""Tables that users bring: CSV files as spreadsheets and other programs write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from painseq.errors import PainseqError, first_few

_DELIMITERS = (",", ";", "\t")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
"""1,000 is a thousand to some and one to others. Where semicolons or tabs separate, a comma is the decimal one."""
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)


def text_of(path: Path) -> str:
    """Read a text in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        PainseqError: another encoding; or the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PainseqError(f"{path} cannot be read: {error.strerror}.") from error
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise PainseqError(
            f'{path} is not encoded in UTF-8 or UTF-16 ({error}). Save it again as "CSV UTF-8".'
        ) from error
    if "\0" in text:
        raise PainseqError(f'{path} is not a text in UTF-8 or UTF-16: it has zero bytes. Save it again as "CSV UTF-8".')
    return text


def read_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Read a table with a header, separated by commas, semicolons or tabs: whichever the header has most of.

    Returns:
        The names of the columns without spaces around them, and line number and cells of each row. Empty rows are left
        out, and so are empty cells behind the last column; a row may have fewer or more cells than there are columns.

    Raises:
        PainseqError: see `text_of`; a line that is not CSV; between commas, a cell such as "1,000", which can be a
            thousand or one; while the rows are read, too.
    """
    text = text_of(path)
    delimiter = _delimiter(text.partition("\n")[0])
    lines = _lines(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    _, header = next(lines, (0, []))
    columns = _columns(path, header)
    return columns, _rows(path, lines, len(columns), delimiter)


def read_header(path: Path) -> list[str]:
    """Read the names of a table's columns, and nothing else of it.

    Raises:
        PainseqError: see `read_table`.
    """
    try:
        with path.open("rb") as file:
            is_utf_16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        with path.open(encoding="utf-16" if is_utf_16 else "utf-8-sig", newline="") as text:
            line = text.readline()
        return _columns(path, next(csv.reader([line], delimiter=_delimiter(line)), []))
    except (UnicodeDecodeError, OSError, csv.Error):
        return read_table(path)[0]


def _delimiter(first_line: str) -> str:
    counts = [first_line.count(delimiter) for delimiter in _DELIMITERS]
    return _DELIMITERS[counts.index(max(counts))]


def _columns(path: Path, header: Sequence[str]) -> list[str]:
    columns = [name.strip() for name in header]
    while columns and not columns[-1]:
        columns.pop()
    repeated = [name for name, count in Counter(columns).items() if count > 1 and name]
    if repeated:
        raise PainseqError(f"{path}, line 1: column {repeated[0]!r} appears more than once.")
    return columns


def _lines(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    line = 0
    try:
        for row in reader:
            line = reader.line_num  # type: ignore[attr-defined]
            yield line, row
    except csv.Error as error:
        raise PainseqError(f"{path}, line {line + 1}: {error}, so it cannot be read as CSV.") from error


def _rows(
    path: Path, lines: Iterator[tuple[int, list[str]]], width: int, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    for line, cells in lines:
        if delimiter == ",":
            _check_thousands(path, line, cells)
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        if any(cell.strip() for cell in cells):
            yield line, cells


def _check_thousands(path: Path, line: int, cells: Sequence[str]) -> None:
    for cell in cells:
        if "," in cell and _THOUSANDS.fullmatch(cell.strip()):
            raise PainseqError(
                f"{path}, line {line}: {cell!r} can be a thousand, or a number with a decimal comma. Write it with a "
                "decimal point and nothing between the thousands, or separate the cells by semicolons."
            )


def number(cell: str) -> float:
    """Parse a number with a decimal point or a decimal comma; between commas, `read_table` refuses "1,000".

    Raises:
        ValueError: it is not a number; names the cell.
    """
    text = cell.strip()
    try:
        if "_" in text:
            raise ValueError
        return float(text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        # Windows writes "-nan(ind)".
        if re.fullmatch(r"-?nan(\(\w*\))?", text, re.IGNORECASE):
            return float("nan")
        raise ValueError(f"{cell!r} is not a number" if text else "the cell is empty") from None


def whole_number(cell: str) -> int:
    """Parse a whole number; "33.0" is one.

    Raises:
        ValueError: it is not a whole number; names the cell.
    """
    value = number(cell)
    if not value.is_integer():  # Nor are infinity and NaN.
        raise ValueError(f"{cell!r} is not a whole number")
    return int(value)


def shown(names: Sequence[str]) -> str:
    """List names of columns in a message: the first of them, if there are many."""
    return first_few(names) or "none"
