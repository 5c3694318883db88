"""The command `painseq live`."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from painseq.errors import PainseqError
from painseq.live import LivePredictor, log_lines


@pytest.fixture
def live(painseq, lstm, video):
    """Runs the command on a generated video, as fast as it goes."""

    def run(*options, source=video):
        return painseq("live", source, "--checkpoint", lstm, "--locator", "full_frame", "--unpaced", *options)

    return run


def test_a_file_to_json_equals_predict(painseq, live, lstm, video):
    options = ["--json", "--skip", "none", "--warm-up-s", "0", "--window-s", "60"]
    result = live(*options)
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0 and [lines[0]["line"], lines[-1]["line"]] == ["start", "end"]
    readings = [line for line in lines if line["line"] == "reading"]
    whole = painseq("predict", video, "--checkpoint", lstm, "--locator", "full_frame", "--causal", "--json")
    (predicted,) = json.loads(whole.out)
    assert [reading["time_s"] for reading in readings] == pytest.approx(predicted["frame_times_s"], abs=1e-4)
    for reading, probabilities in zip(readings, predicted["frame_probabilities"], strict=True):
        assert [*reading["probabilities"].values()] == pytest.approx(probabilities, abs=1e-5)
    assert readings[-1]["label"] == predicted["label"]
    assert lines[0]["settings"]["live"]["window_s"] == 60 and lines[-1]["processed"] == len(readings)


def test_a_log_its_replay_and_its_table(painseq, live, tmp_path):
    log, table = tmp_path / "live.jsonl", tmp_path / "live.csv"
    on = ["--notify-on", "0.01", "--notify-off", "0.005", "--on-s", "1"]
    result = live("--log", log, "--notify", *on, "--record", tmp_path / "numbers")
    assert result.code == 0 and result.log.names("--window-s", "10")
    kinds = [line["line"] for line in log_lines(log)]
    assert kinds.count("notification") == 1 and [*(tmp_path / "numbers").iterdir()]
    replayed = painseq("live", "replay", log, *on)
    assert replayed.code == 0 and replayed.out.names("1 notifications")
    assert painseq("live", "replay", log, "--notify-on", "1", "--notify-classes", "high_pain").out.names(
        "0 notifications"
    )
    assert painseq("live", "csv", log, table).code == 0
    assert len(table.read_text().splitlines()) == 1 + kinds.count("reading")


@pytest.mark.skipif(sys.platform == "win32", reason="systems without SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_signal_are_clean_ends(live, tmp_path, monkeypatch, number):
    push, calls = LivePredictor.push, []

    def interrupted(self, picture, time_s):
        calls.append(time_s)
        if len(calls) == 5:
            os.kill(os.getpid(), number)
        return push(self, picture, time_s)

    monkeypatch.setattr(LivePredictor, "push", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    result = live("--log", tmp_path / "live.jsonl", "--record", tmp_path / "numbers")
    assert result.code == 0 and result.log.names("Ctrl-C")
    assert [*(tmp_path / "numbers").iterdir()] and signal.getsignal(signal.SIGTERM) == before
    assert [*log_lines(tmp_path / "live.jsonl")][-1]["line"] == "end"


def test_a_log_says_which_error_ended_a_run(live, tmp_path, monkeypatch):
    def failing(self, picture, time_s):
        raise PainseqError("The picture is upside down.")

    monkeypatch.setattr(LivePredictor, "push", failing)
    result = live("--log", tmp_path / "live.jsonl")
    assert result.code == 1 and result.err.names("upside down")
    last = [*log_lines(tmp_path / "live.jsonl")][-1]
    assert last["line"] == "end" and last["reason"] == "The picture is upside down." and last["processed"] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_told_in_a_sentence(live, tmp_path):
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    result = live("--log", tmp_path / "full.jsonl")
    assert result.code == 1 and result.err.names("full.jsonl", "space")


@pytest.mark.parametrize(
    ("source", "options", "facts"),
    [
        ("none.mp4", [], ("none.mp4",)),
        ("/dev/video99", [], ("/dev/video99",)),
        (None, ["--locator", "sidecar"], ("Sidecar", "--locator")),
        (None, ["--reference-s", "3"], ("--reference-s",)),
        (None, ["--baseline", "x.mp4"], ("--baseline",)),
        (None, ["--notify", "--notify-classes", "joy"], ("joy", "high_pain")),
        (None, ["--notify", "--notify-at-threshold"], ("--notify-at-threshold",)),
        (None, ["--window-s", "0"], ("window_s", "0")),
        (None, ["--gap-s", "inf"], ("gap_s", "inf")),
        (None, ["--skip", "paper"], ("--skip",)),
    ],
)
def test_what_cannot_be(live, video, source, options, facts):
    result = live(*options, source=source or video)
    assert result.code == 1 and result.err.names(*facts)
