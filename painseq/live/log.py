"""The log of a live run: one line of JSON for each decision, which outlives a killed process."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from painseq import __version__
from painseq.errors import PainseqError
from painseq.files import parse_json, write_csv
from painseq.live.notify import Notification
from painseq.live.reading import Reading

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """What a log says of a run at its start.

    Args:
        model: path of the checkpoint or exported folder.
        source: name of the source, without passwords.
        class_names: in order of pain; empty for a regression model.
        scale: name of a regression model's scale; None for a classifier.
        settings: all settings, by name.
    """

    model: str
    source: str
    class_names: tuple[str, ...]
    scale: str | None
    settings: Mapping[str, object]


class LiveLog:
    """Writes a log: a line of the run, then one for each reading and each notification, and one for the end.

    Each line is handed to the system at once. A log that exists is continued, with a model of the same classes.

    Args:
        file: the path, or an open text file.

    Raises:
        PainseqError: the file is no log, or `start` names a model of other classes or another scale.
        OSError: it cannot be written, or the disk is full; the lines before are there.

    Example:
        >>> with LiveLog(Path("live.jsonl")) as log:
        ...     log.start(Run("best.ckpt", "camera", model.class_names, None, {}))
        ...     log.reading(reading, at_s=time.time())
    """

    def __init__(self, file: Path | IO[str]) -> None:
        self._name = str(file) if isinstance(file, Path) else "the output"
        has_lines = isinstance(file, Path) and file.is_file() and file.stat().st_size > 0
        self._before = run_of(file) if has_lines and isinstance(file, Path) else None
        self._file: io.FileIO | IO[str] = _opened(file) if isinstance(file, Path) else file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._file, io.FileIO):
            self._file.close()

    def start(self, run: Run) -> None:
        """Write the line of the run."""
        before = self._before
        if before is not None and (before.class_names, before.scale) != (tuple(run.class_names), run.scale):
            gives = f"classes {', '.join(before.class_names)}" if before.class_names else f"the scale {before.scale}"
            raise PainseqError(f"{self._name} is the log of a model with {gives}, unlike this one. Name a new log.")
        named = {"model": run.model, "source": run.source, "class_names": list(run.class_names), "scale": run.scale}
        self._write("start", time.time(), {"format": FORMAT, "painseq": __version__, **named, "settings": run.settings})

    def reading(
        self, reading: Reading, at_s: float, reason: str | None = None, received_at_s: float | None = None
    ) -> None:
        """Write a reading.

        Args:
            at_s: Unix time at which its picture was taken.
            reason: why the signal was lost.
            received_at_s: Unix time at which the picture that it was made at was received.
        """
        received = {} if received_at_s is None else {"received_at_s": round(received_at_s, 6)}
        self._write(
            "reading", at_s, {**received, **reading.to_dict(), **({} if reason is None else {"reason": reason})}
        )

    def notification(self, notification: Notification, at_s: float) -> None:
        """Write an event of a notification."""
        self._write("notification", at_s, {"event": notification.kind, **notification.to_dict()})

    def end(self, reason: str, counts: Mapping[str, int]) -> None:
        """Write why the run ended, and what it counted."""
        self._write("end", time.time(), {"reason": reason, **counts})

    def _write(self, line: str, at_s: float, content: Mapping[str, object]) -> None:
        text = json.dumps({"line": line, "at_s": round(at_s, 6), **_finite(content)}, allow_nan=False)
        try:
            if isinstance(self._file, io.FileIO):
                rest = memoryview(f"{text}\n".encode())
                while rest:
                    rest = rest[self._file.write(rest) :]
            else:
                self._file.write(f"{text}\n")
                self._file.flush()
        except OSError as error:
            # Errors of a full disk name no file.
            raise OSError(error.errno, error.strerror, self._name) from error


def _opened(path: Path) -> io.FileIO:
    """Open a log to go on with it; a last line that was not finished is ended."""
    # Without a buffer: what a full disk does not take is not tried once more when the file is closed.
    file = path.open("a+b", buffering=0)
    if file.seek(0, 2) and (file.seek(-1, 2), file.read(1))[1] != b"\n":
        file.write(b"\n")
    return file


def log_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log as they are needed, without those that were not finished.

    Raises:
        PainseqError: it is no log of `painseq live`.
    """
    with path.open("rb") as file:
        for number, text in enumerate(file):
            try:
                line = parse_json(text)
            except ValueError:
                line = None
            is_line = isinstance(line, dict) and isinstance(line.get("line"), str)
            if number == 0 and not (is_line and line["line"] == "start" and line.get("format") == FORMAT):
                raise PainseqError(f"{path} is no log that this version of `painseq live` wrote. Name another file.")
            if is_line:
                yield line


def run_of(path: Path) -> Run:
    """Return what a log says of its first run.

    Raises:
        PainseqError: see `log_lines`.
    """
    line = next(log_lines(path), None)
    if line is None:
        raise PainseqError(f"{path} is empty.")
    names = tuple(map(str, line.get("class_names") or ()))
    settings = line.get("settings")
    return Run(str(line.get("model")), str(line.get("source")), names, line.get("scale"), settings if settings else {})


def read_log(path: Path) -> Iterator[Reading]:
    """Yield the readings of a log, in order; see `log_lines`."""
    return (Reading.from_dict(line) for line in log_lines(path) if line["line"] == "reading")


def write_table(log: Path, table: Path) -> int:
    """Write the readings of a log as CSV, and return their number.

    Raises:
        PainseqError: see `log_lines`.
    """
    count = 0

    def rows(names: Sequence[str]) -> Iterator[list[object]]:
        nonlocal count
        box = ("left", "top", "right", "bottom")
        yield [
            *("at_s", "time_s", "state", "label", *names, "value", *(f"box_{side}" for side in box)),
            *("faces", "skipped", "held", "window_s", "lag_s"),
        ]
        for line in log_lines(log):
            if line["line"] != "reading":
                continue
            count += 1
            reading = Reading.from_dict(line)
            yield [
                *(line["at_s"], reading.time_s, reading.state, reading.label),
                *(reading.probabilities.get(name) for name in names),
                *(reading.value, *(reading.box or [None] * 4), reading.faces, int(reading.skipped), int(reading.held)),
                *(reading.window_s, reading.lag_s),
            ]

    write_csv(table, rows(run_of(log).class_names))
    return count


def _finite(value: Any) -> Any:
    """Return plain values for JSON, None for numbers that it cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
