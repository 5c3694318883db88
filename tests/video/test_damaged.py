"""Files whose headers are wrong: an error or the frames, never the end of the process, nor memory that runs out."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.video import container, open_video, probe_duration_s, read_timeline, write_video
from painseq.video.sampling import frame_indices

# Box, place behind its name, format: numbers of entries, and first entries.
FIELDS = {
    "stts entries": (b"stts", 8, ">I"),
    "stts count": (b"stts", 12, ">I"),
    "stts delta": (b"stts", 16, ">I"),
    "ctts entries": (b"ctts", 8, ">I"),
    "ctts count": (b"ctts", 12, ">I"),
    "ctts offset": (b"ctts", 16, ">I"),
    "stsz size": (b"stsz", 8, ">I"),
    "stsz entries": (b"stsz", 12, ">I"),
    "stsz first": (b"stsz", 16, ">I"),
    "stsc entries": (b"stsc", 8, ">I"),
    "stsc samples": (b"stsc", 16, ">I"),
    "stco entries": (b"stco", 8, ">I"),
    "stco first": (b"stco", 12, ">I"),
    "stss entries": (b"stss", 8, ">I"),
    "elst duration": (b"elst", 12, ">I"),
    "mdhd time scale": (b"mdhd", 16, ">I"),
    "mdhd duration": (b"mdhd", 20, ">I"),
    "tkhd width": (b"tkhd", 80, ">I"),
    "tkhd height": (b"tkhd", 84, ">I"),
    "stsd width": (b"avc1", 28, ">H"),
    "stsd height": (b"avc1", 30, ">H"),
}

READ_ALL = """
import json, sys
from pathlib import Path
import numpy as np
from painseq.errors import PainseqError
from painseq.video import open_video
for path in sorted(Path(sys.argv[1]).iterdir()):
    for backend in ("auto", "pyav"):
        try:
            with open_video(path, backend) as video:
                video.frames(np.arange(len(video)))
                told = [len(video), video.duration_s, list(video.size)]
        except PainseqError as error:
            told = str(error)
        print(json.dumps([path.stem, backend, told]), flush=True)
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An H.264 video of 20 frames with B-frames: every table is there."""
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for grey in range(20):
            picture = np.full((48, 64, 3), 10 * grey, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode())
    return path.read_bytes()


def patched(content: bytes, field: str, value: int) -> bytes:
    box, place, kind = FIELDS[field]
    changed = bytearray(content)
    struct.pack_into(kind, changed, content.index(box) + place, value)
    return bytes(changed)


def test_no_wrong_table_ends_the_process_or_makes_a_day_of_video(good: bytes, tmp_path: Path):
    files = tmp_path / "files"
    files.mkdir()
    for field in FIELDS:
        for value in (0, 1, 1 << 15, 1 << 28, (1 << 31) - 1, (1 << 32) - 1):
            if value < 1 << (8 * struct.calcsize(FIELDS[field][2])):
                (files / f"{field} {value}.mp4").write_bytes(patched(good, field, value))
    done = subprocess.run([sys.executable, "-c", READ_ALL, str(files)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 2 * len(list(files.iterdir()))
    for _, _, read in told:
        assert isinstance(read, str) or (1 <= read[0] <= 20 and read[1] < 10_000 and read[2][0] * read[2][1] < 5e7)


@pytest.mark.parametrize("count", [1 << 20, 1 << 28, (1 << 31) - 1])
def test_frames_that_the_header_invents_are_not_reserved_for(good: bytes, tmp_path: Path, count: int):
    path = tmp_path / "a.mp4"
    path.write_bytes(patched(good, "stts count", count))
    with open_video(path) as video:
        assert video.backend == "pyav" and str(count) in video.backend_note and len(video) == 20
    with pytest.raises(PainseqError, match=str(count)):
        open_video(path, "decord")


@pytest.mark.parametrize(("field", "value"), [("mdhd time scale", (1 << 31) - 1), ("stts delta", 1 << 30)])
def test_times_that_no_camera_makes_are_refused(good: bytes, tmp_path: Path, field: str, value: int):
    path = tmp_path / "a.mp4"
    path.write_bytes(patched(good, field, value))
    with pytest.raises(PainseqError, match="timestamps"):
        open_video(path)


def test_a_rate_of_samples_beyond_all_reason_is_refused():
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bfps\b)(?=.*1000000000000)"):
        frame_indices(np.arange(100) / 25, fps=1e12)
    assert len(frame_indices(np.arange(100) / 25, fps=1000.0)[0]) > 3900


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "libx264"), (".webm", "libvpx"), (".avi", "mpeg4"), (".mpg", "mpeg2video")]
)
def test_a_video_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, codec: str
):
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8), "rgb24")))
        file.mux(stream.encode())
    monkeypatch.setenv("PAINSEQ_MAX_PIXELS", str(320 * 240))
    with open_video(path) as video:
        assert video.size == (320, 240)
    monkeypatch.setenv("PAINSEQ_MAX_PIXELS", str(320 * 240 // 3))
    monkeypatch.setattr(container, "read_display", lambda *args: pytest.fail("a picture was decoded"))
    for backend in ("auto", "pyav"):
        with pytest.raises(PainseqError, match=r"(?s)\ba\..*PAINSEQ_MAX_PIXELS"):
            open_video(path, backend)


def test_the_container_is_read_once_for_all_clips_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read: list[Path] = []
    packets = container._read_packets
    monkeypatch.setattr(container, "_read_packets", lambda path, *args: read.append(path) or packets(path, *args))
    path = tmp_path / "a.mp4"
    write_video(path, (np.full((48, 64, 3), grey, np.uint8) for grey in range(60)), 30)
    whole: list[np.ndarray] = []
    for start in (0, 40, 20, 59):
        with open_video(path, "pyav") as video:
            whole.append(video.frames(np.arange(start, min(start + 3, 60))))
    assert len(read) == 1
    with open_video(path, "pyav") as video:
        every = video.frames(np.arange(60))
    for start, images in zip((0, 40, 20, 59), whole, strict=True):
        np.testing.assert_array_equal(images, every[start : start + 3])
    write_video(path, (np.full((48, 64, 3), grey, np.uint8) for grey in range(30)), 30)
    assert len(read_timeline(path).pts) == 30 and len(read) == 2
    for number in range(container.REMEMBERED + 5):
        write_video(tmp_path / f"{number}.mp4", [np.zeros((16, 16, 3), np.uint8)], 30)
        read_timeline(tmp_path / f"{number}.mp4")
    assert container._timeline.cache_info().currsize <= container.REMEMBERED


def test_a_duration_that_the_header_invents_is_not_believed(good: bytes, tmp_path: Path):
    path = tmp_path / "a.mp4"
    changed = patched(patched(good, "mdhd duration", (1 << 31) - 1), "elst duration", (1 << 31) - 1)
    path.write_bytes(changed)
    assert probe_duration_s(path) == pytest.approx(2.0, abs=0.2)
