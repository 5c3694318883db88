import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from painseq.cli import main


@dataclass(frozen=True)
class Said:
    """What a command answered; `log` goes to stderr too, but under pytest it is kept apart."""

    code: int
    out: str
    err: str
    log: str


@pytest.fixture
def painseq(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[..., Said]:
    """Calls a command in this process; whatever is no answer for people fails the test."""

    def call(*argv: object) -> Said:
        capsys.readouterr()
        caplog.clear()
        try:
            with caplog.at_level(logging.INFO, "painseq"):
                code = main([str(arg) for arg in argv])
        except SystemExit as stop:  # argparse, for --help and wrong usage
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Said(code, captured.out, captured.err, "\n".join(caplog.messages))

    return call


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches the tests, though they may run in the background of a shell, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
