"""Data sets with files that cannot be read: each is one failed clip with its reason, and the others are read."""

import csv
import json
import os
import shutil
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from painseq.errors import CLIP_FAILURES, LocatorUnavailable, PainseqError, printable, reason_of
from painseq.features import FeatureStore
from painseq.video import write_video

FULL_FRAME = """
model:
  extractor:
    class_path: painseq.extractors.TimmBackbone
    init_args: {model: test_resnet, weights: null, input_size_px: 32}
data:
  init_args:
    options:
      fps: 5
      face:
        class_path: painseq.faces.FaceCrops
        init_args: {locator: {class_path: painseq.faces.FullFrame}, size_px: 32, margin: 0}
"""


def patched(source: Path, out: Path, old: bytes, new: bytes) -> None:
    content = source.read_bytes()
    assert old in content and len(old) == len(new)
    out.write_bytes(content.replace(old, new))


def titled_avi(out: Path, title: bytes) -> None:
    """An AVI whose title need not be UTF-8."""
    with av.open(str(out), "w") as container:
        container.metadata["title"] = "X" * len(title)
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for grey in range(10):
            picture = np.full((48, 64, 3), 20 * grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    patched(out, out, b"X" * len(title), title)


def not_utf8(folder: Path) -> Path:
    return Path(os.fsdecode(os.fsencode(folder / "S02_m") + b"\xfcller.mp4"))


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, Path]:
    """Kind of fault -> file, in a folder of two classes with a good video each."""
    good = tmp_path / "bad" / "no_pain" / "S01_good.mp4"
    folder = tmp_path / "bad" / "pain"
    good.parent.mkdir(parents=True)
    folder.mkdir()
    write_video(good, (np.full((48, 64, 3), 20 * grey, np.uint8) for grey in range(10)), 10)
    shutil.copy(good, folder / "S02_good.mp4")
    names = ("codec", "zero", "text", "cut", "zeros", "table", "picture")
    files = {name: folder / f"S02_{name}.mp4" for name in names} | {"title": folder / "S02_title.avi"}
    patched(good, files["codec"], b"avc1\0\0\0\0", b"zzzz\0\0\0\0")
    files["zero"].write_bytes(b"")
    files["text"].write_text("not a video\n" * 100)
    files["cut"].write_bytes(good.read_bytes()[:-400])
    files["zeros"].write_bytes(bytes(5000))
    content = bytearray(good.read_bytes())
    struct.pack_into(">I", content, content.index(b"stsz") + 12, 1 << 28)
    files["table"].write_bytes(content)
    files["picture"].write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    titled_avi(files["title"], b"M\xfcller")
    shutil.copy(good, not_utf8(folder))
    return files


@pytest.fixture
def options(bad: dict[str, Path], tmp_path: Path) -> list[str]:
    config = tmp_path / "full_frame.yaml"
    config.write_text(FULL_FRAME)
    given = ["--config", "configs/data/folder.yaml", "--config", str(config), "--data.root", str(tmp_path / "bad")]
    return [*given, "--data.classes", "[no_pain, pain]", "--data.options.labels", "native"]


FAILED = {f"pain/S02_{name}" for name in ("codec", "zero", "text", "cut", "zeros", "table", "picture")}
READ = {"no_pain/S01_good", "pain/S02_good", "pain/S02_title", r"pain/S02_m\udcfcller"}


def test_extract_reads_the_others(painseq, options, tmp_path):
    result = painseq("extract", *options, "--out", tmp_path / "store", "--json")
    assert result.code == 0, result.err
    store = FeatureStore(tmp_path / "store")
    assert set(store.failed) == FAILED and set(store) == READ
    assert all(store.failed.values()) and str(tmp_path) not in json.dumps(dict(store.failed))
    assert set(json.loads(result.out)["failed"]) == FAILED
    # The names are read again by those who use the store.
    again = painseq("extract", *options, "--out", tmp_path / "store")
    assert again.code == 0 and set(FeatureStore(tmp_path / "store")) == READ


def test_faces_reads_the_others(painseq, options, tmp_path):
    result = painseq("faces", *options, "--out", tmp_path / "tracks")
    assert result.code == 0, result.err
    with (tmp_path / "tracks" / "faces.csv").open(newline="", encoding="utf-8") as file:
        reasons = {row["clip_id"]: row["reason"] for row in csv.DictReader(file)}
    assert {clip_id for clip_id, reason in reasons.items() if reason} == FAILED and set(reasons) == FAILED | READ
    assert not any(str(tmp_path) in reason for reason in reasons.values())


def test_data_check_lists_them(painseq, options, tmp_path):
    result = painseq("data", "check", *options, "--json", tmp_path / "check.json")
    assert result.code == 1
    findings = json.loads((tmp_path / "check.json").read_text())["findings"]
    (unreadable,) = [one for one in findings if one["items"] and "S02_cut" in str(one["items"])]
    assert {item.split(".mp4")[0] for item in unreadable["items"]} == FAILED


def test_a_contact_sheet_draws_the_others(painseq, options, bad, tmp_path):
    for name in ("S02_good.mp4", "S02_title.avi"):
        (bad["zero"].parent / name).unlink()
    result = painseq("data", "show", *options, "--out", tmp_path / "sheet.png", "--show-faces")
    assert result.code == 0 and (tmp_path / "sheet.png").is_file()
    assert result.log.names("pain/S02_codec")


def test_predict_predicts_the_others(painseq, lstm, bad, options, tmp_path):
    folder = bad["zero"].parent
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "fifo.mp4")
    good = [folder / "S02_good.mp4", bad["title"], not_utf8(folder)]
    failing = [*(path for name, path in bad.items() if name != "title"), tmp_path / "folder.mp4", tmp_path / "fifo.mp4"]
    result = painseq("predict", *failing, *good, "--checkpoint", lstm, "--locator", "full_frame", "--json")
    assert result.code == 1
    assert [row["video"] for row in json.loads(result.out)] == [str(path) for path in good]
    assert all(path.name in result.err for path in failing)
    table = painseq("predict", *good, "--checkpoint", lstm, "--locator", "full_frame")
    assert table.code == 0, table.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_a_failed_clip(painseq, options, bad, tmp_path):
    (bad["zero"].parent / "S02_good.mp4").chmod(0)
    assert painseq("extract", *options, "--out", tmp_path / "store").code == 0
    assert "pain/S02_good" in FeatureStore(tmp_path / "store").failed


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), UnicodeDecodeError("utf-8", b"\xfc", 0, 1, "x")]
)
def test_whatever_fails_a_clip_has_a_reason(painseq, options, tmp_path, monkeypatch, error):
    def fails(path: Path, *args: object) -> object:
        if path.name == "S02_good.mp4":
            raise error
        return opened(path, *args)

    from painseq.faces import crops

    opened = crops.open_video
    monkeypatch.setattr(crops, "open_video", fails)
    assert painseq("extract", *options, "--out", tmp_path / "store").code == 0
    assert FeatureStore(tmp_path / "store").failed["pain/S02_good"] == reason_of(error) != ""


def test_a_reason_can_be_written_anywhere():
    assert isinstance(MemoryError(), CLIP_FAILURES) and reason_of(MemoryError())
    assert reason_of(PainseqError("x/m\udcfcller.mp4")) == printable("x/m\udcfcller.mp4") == r"x/m\udcfcller.mp4"
    with pytest.raises(LocatorUnavailable):
        reason_of(LocatorUnavailable("no model"))


def test_evaluate_on_videos_counts_a_broken_one_as_unread(painseq, electrical, on_electrical, lstm, tmp_path):
    shutil.copytree(electrical, tmp_path / "copy")
    videos = sorted((tmp_path / "copy" / "Test").rglob("*.mp4"))
    videos[0].write_bytes(b"")
    given = [*on_electrical, "--data.root", tmp_path / "copy", "--data.options.view", "pixels", "--part", "test"]
    out = tmp_path / "scores"
    result = painseq("evaluate", *given, "--checkpoint", lstm, "--out", out)
    assert result.code == 0, result.err
    with (out / "predictions.csv").open(newline="") as file:
        rows = {row["clip_id"]: row for row in csv.DictReader(file)}
    broken = rows.pop(f"Test/{videos[0].parent.name}/{videos[0].stem}")
    assert (broken["frames"], broken["label"]) == ("0", "")
    assert rows and all(int(row["frames"]) > 0 and row["label"] for row in rows.values())


def test_evaluate_on_videos_of_which_none_can_be_read_ends(
    painseq, electrical, on_electrical, lstm, tmp_path, monkeypatch
):
    monkeypatch.setattr("painseq.data.datasets.VideoClips._most_failures", 2)
    shutil.copytree(electrical, tmp_path / "copy")
    for path in (tmp_path / "copy" / "Test").rglob("*.mp4"):
        path.write_bytes(b"")
    given = [*on_electrical, "--data.root", tmp_path / "copy", "--data.options.view", "pixels", "--part", "test"]
    result = painseq("evaluate", *given, "--checkpoint", lstm, "--out", tmp_path / "scores")
    assert result.code == 1 and result.err.names("empty")
