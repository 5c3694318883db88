"""`painseq data check` and `painseq data show`."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def data(heat: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    for name in ("heat", "heat_truth"):
        shutil.copytree(heat.with_name(name), tmp_path / name)
    return tmp_path / "heat"


@pytest.fixture
def options(data: Path, tiny: str) -> list[str]:
    labels = ["--data.options.labels", "five"]
    return ["--config", "configs/data/biovid.yaml", "--config", tiny, "--data.root", str(data), *labels]


def test_what_was_found_is_shown_even_if_the_file_cannot_be_written(painseq, options, tmp_path):
    result = painseq("data", "check", *options, "--json", tmp_path / "nowhere" / "check.json")
    assert result.code == 1 and "nowhere" in result.err and result.out.names("biovid", 25)


def test_a_whole_data_set_exits_with_0(painseq, options, tmp_path):
    result = painseq("data", "check", *options, "--json", tmp_path / "check.json", "--workers", "2")
    assert result.code == 0, result.err
    assert result.out.names("biovid", 25, 5, "extreme_pain", "labels", "files", "lengths", "classes")
    assert result.out.names("faces", "--tracks", "painseq faces")
    found = json.loads((tmp_path / "check.json").read_text())
    assert (found["errors"], found["warnings"], found["clips"], found["data_set"]) == (0, 1, 25, "biovid")
    assert str(tmp_path) not in result.out + (tmp_path / "check.json").read_text()


def test_errors_exit_with_1_and_are_named(painseq, options, data, tmp_path):
    broken = sorted(data.rglob("*.mp4"))
    for path in broken[:12]:
        path.write_bytes(path.read_bytes()[:-100])
    result = painseq("data", "check", *options, "--json", tmp_path / "check.json")
    assert result.code == 1
    # Of twelve, ten are listed, and where to find the two others.
    assert result.out.names("files", "error", 12, "pyav", 2, "--json")
    assert [str(path.relative_to(data)) in result.out for path in broken[:12]] == [True] * 10 + [False] * 2
    found = json.loads((tmp_path / "check.json").read_text())
    assert (found["errors"], found["warnings"]) == (1, 1)
    (finding,) = [one for one in found["findings"] if one["topic"] == "files"]
    assert len(finding["items"]) == 12 and finding["severity"] == "error"
    assert str(tmp_path) not in result.out + (tmp_path / "check.json").read_text()


def test_tracks_tell_where_faces_are_missing(painseq, options, tmp_path):
    assert painseq("faces", *options, "--out", tmp_path / "tracks").code == 0
    result = painseq("data", "check", *options, "--tracks", tmp_path / "tracks")
    assert result.code == 0 and result.out.names("faces") and "--tracks" not in result.out
    assert "0.0%" in result.out


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_it(painseq, options, monkeypatch):
    once = threading.Lock()

    def interrupted(path: Path, **settings: object) -> object:
        # Several threads read videos, and a second Ctrl-C would reach the tests after the command has ended.
        if once.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        raise OSError("gone")

    monkeypatch.setattr("painseq.data.check.videos.open_video", interrupted)
    result = painseq("data", "check", *options)
    assert result.code == 130 and result.err.names("painseq data")


def test_what_cannot_be(painseq, options, tmp_path):
    result = painseq("data")
    assert result.code == 0 and result.out.names("painseq data", "check", "show")
    picture = ["--out", tmp_path / "x.png"]
    for args, facts in (
        (["chekc"], ("chekc", "check", "show")),
        (["check", *options, "--bogus", "1"], ("--bogus", "painseq data check --help")),
        (["check"], ("required", "data")),
        (["check", *options, "--tracks", tmp_path], ("faces.csv", tmp_path)),
        (["show", *options, *picture, "--subjects", "0"], ("subjects", 0)),
    ):
        result = painseq("data", *args)
        assert result.code == 1 and result.err.names(*facts)


def test_a_contact_sheet_of_generated_faces(painseq, options, tmp_path):
    result = painseq("data", "show", *options, "--out", tmp_path / "sheet.png", "--subjects", "3")
    assert result.code == 0 and result.log.names(15, 3)


def test_a_clip_that_cannot_be_read_leaves_its_place_empty(painseq, options, data, tmp_path):
    broken = sorted(data.rglob("*.mp4"))[0]
    broken.write_bytes(b"")
    sheet = ["data", "show", *options, "--out", tmp_path / "sheet.png", "--subjects", "3"]
    assert painseq(*sheet).code == 1
    result = painseq(*sheet, "--show-faces")
    assert result.code == 0, result.err
    assert result.log.names(15, 3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height > 100


def test_faces_of_people_are_drawn_on_the_users_word_alone(painseq, options, data, tmp_path):
    (data / "painseq_synthetic.json").unlink()
    out = tmp_path / "sheet.png"
    result = painseq("data", "show", *options, "--out", out)
    assert result.code == 1 and not out.exists()
    assert result.err.names("generated", "--show-faces") and str(tmp_path) not in result.err
    assert painseq("data", "show", *options, "--out", out, "--show-faces").code == 0
    assert out.is_file()
