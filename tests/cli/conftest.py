import logging
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from painseq.cli import main


class Text(str):
    """Printed text: tests assert what it names, not how it is worded."""

    __slots__ = ()

    def names(self, *facts: object) -> bool:
        """Whether each of these flags, values, paths, numbers ... is in it, as a whole word, wherever lines break."""
        text = " ".join(self.split())
        patterns = (rf"(?<![\w-])(?<!\d\.){re.escape(str(fact))}(?![\w-]|\.\d)" for fact in facts)
        return all(re.search(pattern, text) for pattern in patterns)


@dataclass(frozen=True)
class Result:
    """The exit code and output of a command; `log` goes to stderr too, but under pytest it is kept apart."""

    code: int
    out: Text
    err: Text
    log: Text


@pytest.fixture
def painseq(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[..., Result]:
    """Calls a command in this process; whatever is no answer for people fails the test."""

    def call(*argv: object) -> Result:
        capsys.readouterr()
        caplog.clear()
        try:
            with caplog.at_level(logging.INFO, "painseq"):
                code = main([str(arg) for arg in argv])
        except SystemExit as stop:  # argparse, for --help and wrong usage
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, Text(captured.out), Text(captured.err), Text("\n".join(caplog.messages)))

    return call


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches the tests, though they may run in the background of a shell, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
