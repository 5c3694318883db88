"""Frames and times of video files by both decoders, and of the same pictures as images."""

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from painseq.errors import PainseqError
from painseq.video import Video, open_video, probe_duration_s, read_chunks, read_timeline, video_digest, write_video

BACKENDS = [
    "pyav",
    pytest.param(
        "decord", marks=pytest.mark.skipif(not importlib.util.find_spec("decord"), reason="decord has no wheel here")
    ),
]


def picture(number: int) -> np.ndarray:
    """A frame that tells its number: tens by the grey of the left half, ones by that of the right."""
    frame = np.empty((48, 64, 3), np.uint8)
    frame[:, :32], frame[:, 32:] = 10 + 24 * (number // 10), 10 + 24 * (number % 10)
    return frame


def numbers(images: np.ndarray) -> list[int]:
    """The frame numbers that `picture`s tell."""
    halves = [(image[8:40, 8:24].mean(), image[8:40, 40:56].mean()) for image in images]
    return [10 * round((left - 10) / 24) + round((right - 10) / 24) for left, right in halves]


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 pictures, 64x48 at 30 fps."""
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    write_video(path, (picture(i) for i in range(90)), 30)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as images, whose numbers are not padded."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(90):
        Image.fromarray(picture(i)).save(folder / f"img{i + 1}.png")
    return folder


@pytest.fixture(params=[*BACKENDS, "images"])
def shown(request: pytest.FixtureRequest, ramp: Path, images: Path) -> Iterator[Video]:
    """The 90 pictures, by each backend."""
    with open_video(images if request.param == "images" else ramp, request.param, 30.0) as video:
        assert video.backend == request.param
        yield video


def encode(path: Path, codec: str, first: int, count: int, options: dict[str, str] | None = None, gop: int = 12):
    """Frames whose time stamps start at `first` thirtieths of a second."""
    import av

    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = gop
        if codec == "libx264":
            stream.options = {"crf": "10", "sc_threshold": "0", "bf": "2"}
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = first + i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_frames_times_and_size(shown: Video):
    assert (shown.size, len(shown)) == ((64, 48), 90)
    np.testing.assert_allclose(shown.times_s, np.arange(90) / 30)
    assert shown.duration_s == pytest.approx(3.0)
    assert numbers(shown.frames(np.arange(90))) == list(range(90))


def test_any_order_of_calls_gives_the_frames_asked_for(shown: Video):
    for call in [[5], [5, 5, 6, 80], [80, 81], [0], [], [40, 41, 41], [10, 89], [89], [0, 1]]:
        assert numbers(shown.frames(np.array(call, dtype=np.int64))) == call
    with pytest.raises(ValueError):
        shown.frames(np.array([3, 2]))
    with pytest.raises(ValueError, match=r"\b89\b"):
        shown.frames(np.array([90]))


def test_chunks_together_are_the_span(shown: Video):
    chunks = list(read_chunks(shown, 0.5, 2.5, 50, chunk_frames=7))
    assert {len(pictures) for pictures, _ in chunks[:-1]} == {7}
    times_s = np.concatenate([times for _, times in chunks])
    np.testing.assert_allclose(times_s, np.arange(100) / 50)
    expected = np.abs(shown.times_s[None] - (0.5 + times_s)[:, None]).argmin(axis=1)
    found = [number for pictures, _ in chunks for number in numbers(pictures)]
    assert found == expected.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_first_shown_frame_is_at_zero(tmp_path: Path, backend: str, suffix: str):
    path = tmp_path / f"late{suffix}"
    encode(path, "libx264", first=15, count=60)
    with open_video(path, backend) as video:
        np.testing.assert_allclose(video.times_s, np.arange(60) / 30, atol=1e-3)
        assert numbers(video.frames(np.array([0, 13, 30, 59]))) == [0, 13, 30, 59]


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path, backend: str):
    path = tmp_path / "hidden.mp4"
    encode(path, "libx264", first=-40, count=100, options={"avoid_negative_ts": "disabled"}, gop=24)
    assert read_timeline(path).hidden > 0
    with open_video(path, backend) as video:
        np.testing.assert_allclose(video.times_s, np.arange(60) / 30, atol=1e-9)
        assert numbers(video.frames(np.arange(60))) == list(range(40, 100))
        assert numbers(video.frames(np.array([7, 50]))) == [47, 90]
    with open_video(path) as video:
        assert video.backend == "pyav"
        if importlib.util.find_spec("decord"):
            assert video.backend_note


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "mpeg4"), (".ts", "libx264")])
def test_other_containers_go_through_pyav(tmp_path: Path, suffix: str, codec: str):
    path = tmp_path / f"other{suffix}"
    encode(path, codec, first=0, count=60)
    with open_video(path) as video:
        assert video.backend == "pyav" and len(video) == 60
        assert numbers(video.frames(np.arange(60))) == list(range(60))
        assert numbers(video.frames(np.array([31, 5 + 31, 59]))) == [31, 36, 59]
    if importlib.util.find_spec("decord"):
        with pytest.raises(PainseqError, match="pyav"):
            open_video(path, "decord")


def damaged(kind: str, source: Path) -> bytes | None:
    data = source.read_bytes()
    hole = len(data) // 2
    return {
        "empty": b"",
        "text": b"hello world\n" * 50,
        "no index": data[:hole],
        "missing": None,
    }[kind]


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("kind", ["empty", "text", "no index", "missing"])
def test_what_is_no_video_is_named(tmp_path: Path, ramp: Path, backend: str, kind: str):
    path = tmp_path / "broken.mp4"
    data = damaged(kind, ramp)
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(PainseqError, match=r"broken\.mp4"):
        open_video(path, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_file_cut_off_anywhere_is_an_error(tmp_path: Path, backend: str, suffix: str):
    path = tmp_path / f"cut{suffix}"
    options = {"movflags": "+faststart"} if suffix == ".mp4" else None
    encode(path, "libx264", first=0, count=60, options=options)
    whole = path.read_bytes()
    for share in (0.3, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(PainseqError, match=r"cut\."):
            open_video(path, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hole_in_the_middle_is_an_error_that_names_the_backend(tmp_path: Path, backend: str):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    path = tmp_path / "hole.mp4"
    write_video(path, (np.roll(noise, i, 0) for i in range(120)), 30)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 5] = bytes(len(data) // 5)
    path.write_bytes(data)
    named = rf"(?s)(?=.*hole\.mp4)(?=.*\b{backend}\b)"
    with pytest.raises(PainseqError, match=named), open_video(path, backend) as video:
        for _ in read_chunks(video):
            pass


def test_a_sound_file_holds_no_video(tmp_path: Path):
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(PainseqError, match=r"sound\.mp4"):
        open_video(path)


def test_an_unknown_or_absent_backend(ramp: Path, monkeypatch: pytest.MonkeyPatch):
    named = r"(?s)(?=.*\bopencv\b)(?=.*\bauto\b)(?=.*\bdecord\b)(?=.*\bpyav\b)(?=.*\bimages\b)"
    with pytest.raises(PainseqError, match=named):
        open_video(ramp, "opencv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PainseqError, match=r"\bdecord\b"):
        open_video(ramp, "decord")
    with open_video(ramp) as video:
        assert (video.backend, video.backend_note) == ("pyav", "")


def test_a_long_video_goes_through_pyav_and_decord_stays_bounded(ramp: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("decord")
    with open_video(ramp) as video:
        assert video.backend == "decord"
    monkeypatch.setattr("painseq.video.reading._AHEAD_BYTES", 1000)
    with open_video(ramp) as video:
        assert video.backend == "pyav" and video.backend_note
    with open_video(ramp, "decord") as video:
        found = [number for images, _ in read_chunks(video, chunk_frames=16) for number in numbers(images)]
    assert found == list(range(90))


def test_duration_and_digest(ramp: Path, tmp_path: Path):
    assert probe_duration_s(ramp) == pytest.approx(3.0, abs=0.05)
    same, other = tmp_path / "same.mp4", tmp_path / "other.mp4"
    data = ramp.read_bytes()
    same.write_bytes(data)
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert video_digest(same) == video_digest(ramp) != video_digest(other)
    with pytest.raises(PainseqError, match=r"absent\.mp4"):
        video_digest(tmp_path / "absent.mp4")
    with pytest.raises(PainseqError, match=r"absent\.mp4"):
        probe_duration_s(tmp_path / "absent.mp4")
