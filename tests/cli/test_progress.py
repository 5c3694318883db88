"""Progress where standard error is no terminal: lines with count, rate and time left."""

import logging

import pytest

from painseq.cli import progress


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)


def test_a_line_tells_count_rate_and_time_left(caplog):
    with caplog.at_level(logging.INFO, "painseq"), progress.progress_bar("crossval", "fits") as show:
        show(0, 4)
        show(2, 4, "fold-01")
    first, second = caplog.messages
    assert first.startswith("crossval: 0 of 4 fits")
    assert all(part in second for part in ("2 of 4 fits", "fold-01", "per second", "s left"))


def test_stages_follow_each_other(caplog):
    with caplog.at_level(logging.INFO, "painseq"), progress.progress_bars() as show:
        for note, total in (("frames", 2), ("clips", 1), ("clips", 3)):
            for done in range(1, 1 + total):
                show(done, total, note)
    counts = [message.partition(",")[0] for message in caplog.messages]
    assert counts == ["1 of 2 frames", "2 of 2 frames", "1 of 1 clips", "1 of 3 clips", "2 of 3 clips", "3 of 3 clips"]


def test_a_process_that_is_not_the_first_shows_nothing(caplog):
    with caplog.at_level(logging.INFO, "painseq"), progress.progress_bar("extract", "clips", shown=False) as show:
        show(1, 2)
    assert not caplog.messages
