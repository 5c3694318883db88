"""How a file asks to be shown: turned, mirrored, with square pixels, high dynamic range; one of several streams."""

import importlib.util
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.video import open_video, read_timeline, write_video

BACKENDS = [
    "pyav",
    pytest.param(
        "decord", marks=pytest.mark.skipif(not importlib.util.find_spec("decord"), reason="decord has no wheel here")
    ),
]
GREYS = ((30, 90), (150, 210))


def quarters(height: int = 80, width: int = 64) -> np.ndarray:
    """A picture of four greys, which looks different however it is turned or mirrored."""
    frame = np.empty((height, width, 3), np.uint8)
    for y in (0, 1):
        for x in (0, 1):
            frame[y * height // 2 : (y + 1) * height // 2, x * width // 2 : (x + 1) * width // 2] = GREYS[y][x]
    return frame


def seen(image: np.ndarray) -> list[list[int]]:
    """The greys of a picture's quarters."""
    height, width = image.shape[:2]
    found = [[int(image[y * height // 4, x * width // 4].mean()) for x in (1, 3)] for y in (1, 3)]
    return [[min(sum(GREYS, ()), key=lambda grey: abs(grey - value)) for value in row] for row in found]


def encode(
    path: Path,
    pictures: list[np.ndarray],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    prepare: Callable[[Any], None] = lambda stream: None,
) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        prepare(stream)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def with_matrix(source: Path, target: Path, matrix: tuple[float, float, float, float]) -> None:
    """A copy with another display matrix in its track header."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version 0: flags, times and id; layer, group, volume
    a, b, c, d = (int(value * 65536) for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
        ((0, 0, 0, 0), lambda image: image),
    ],
)
def test_a_turned_or_mirrored_camera_gives_upright_pictures(tmp_path: Path, backend: str, matrix, shown):
    write_video(tmp_path / "plain.mp4", [quarters()] * 5, 30)
    with_matrix(tmp_path / "plain.mp4", tmp_path / "shown.mp4", matrix)
    expected = shown(quarters())
    with open_video(tmp_path / "shown.mp4", backend) as video:
        assert (video.backend, video.size) == (backend, expected.shape[1::-1])
        for image in video.frames(np.array([0, 3, 4])):
            assert seen(image) == seen(expected)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2)])
def test_a_turned_file_of_any_container_is_upright(tmp_path: Path, suffix: str, degrees: int, turns: int):
    from av.video.stream import VideoStream

    if not hasattr(VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV writes no rotation")
    path = tmp_path / f"turned{suffix}"
    encode(path, [quarters()] * 5, prepare=lambda stream: stream.set_display_rotation(degrees))
    expected = np.rot90(quarters(), turns)
    with open_video(path) as video:
        assert video.size == expected.shape[1::-1]
        assert seen(video.frames(np.array([4]))[0]) == seen(expected)
    if suffix == ".mkv" and importlib.util.find_spec("decord"):
        with pytest.raises(PainseqError, match="pyav"):  # decord would show it as it is stored
            open_video(path, "decord")


def test_interlaced_lines_are_told_once(tmp_path: Path, caplog):
    path = tmp_path / "camcorder.mts"

    def prepare(stream: Any) -> None:
        stream.options = {"x264-params": "tff=1"}

    encode(path, [quarters()] * 5, prepare=prepare)
    for _ in range(2):
        with open_video(path) as video:
            assert video.frames(np.arange(5)).shape == (5, 80, 64, 3)
    (message,) = caplog.messages
    assert str(path) in message and "interlaced" in message


def test_an_odd_angle_is_refused(tmp_path: Path):
    write_video(tmp_path / "plain.mp4", [quarters()] * 5, 30)
    with_matrix(tmp_path / "plain.mp4", tmp_path / "odd.mp4", (0.7, 0.7, -0.7, 0.7))
    with pytest.raises(PainseqError, match=r"(?s)(?=.*odd\.mp4)(?=.*\b45\b)"):
        open_video(tmp_path / "odd.mp4")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(16, 9), (114, 80)),
        (Fraction(1, 2), (64, 160)),
        (Fraction(1), (64, 80)),
        (Fraction(1001, 1000), (64, 80)),
    ],
)
def test_pixels_become_square(tmp_path: Path, backend: str, suffix: str, aspect: Fraction, size: tuple[int, int]):
    path = tmp_path / f"wide{suffix}"
    encode(path, [quarters()] * 5, prepare=lambda stream: setattr(stream, "sample_aspect_ratio", aspect))
    with open_video(path, backend) as video:
        assert video.size == size
        images = video.frames(np.array([0, 2, 4]))
    assert images.shape == (3, *size[::-1], 3)
    assert seen(images[-1]) == seen(quarters())
    height, width = images.shape[1:3]
    left, right = images[0, height // 4, width // 2 - 4].mean(), images[0, height // 4, width // 2 + 4].mean()
    assert left < 50 and right > 70  # the border is in the middle, and sharp


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_are_squared_before_the_picture_is_turned(tmp_path: Path, backend: str):
    encode(
        tmp_path / "wide.mp4",
        [quarters()] * 5,
        prepare=lambda stream: setattr(stream, "sample_aspect_ratio", Fraction(2)),
    )
    with_matrix(tmp_path / "wide.mp4", tmp_path / "turned.mp4", (0, 1, 1, 0))
    with open_video(tmp_path / "turned.mp4", backend) as video:
        assert video.size == (80, 128)
        assert seen(video.frames(np.array([2]))[0]) == seen(quarters().swapaxes(0, 1))


def test_absurd_pixels_are_refused(tmp_path: Path):
    path = tmp_path / "absurd.mkv"
    encode(path, [quarters()] * 2, prepare=lambda stream: setattr(stream, "sample_aspect_ratio", Fraction(60)))
    with pytest.raises(PainseqError, match=r"absurd\.mkv"):
        open_video(path)


def test_the_limit_of_pixels_holds_for_the_picture_as_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "wide.mkv"
    encode(path, [quarters()] * 2, prepare=lambda stream: setattr(stream, "sample_aspect_ratio", Fraction(4)))
    monkeypatch.setenv("PAINSEQ_MAX_PIXELS", str(64 * 80 * 3))
    with pytest.raises(PainseqError, match=r"(?s)(?=.*wide\.mkv)(?=.*256 x 80)"):
        open_video(path)


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG"), ("bt709", None)])
def test_high_dynamic_range_is_told_once(tmp_path: Path, caplog, transfer: str, name: str | None):
    path = tmp_path / "phone.mp4"

    def prepare(stream: Any) -> None:
        stream.options = {"x264-params": f"transfer={transfer}:colorprim=bt2020:colormatrix=bt2020nc"}

    encode(path, [quarters()] * 5, pix_fmt="yuv420p10le", prepare=prepare)
    for _ in range(3):
        with open_video(path) as video:
            assert video.frames(np.arange(5)).shape == (5, 80, 64, 3)
    assert [str(path) in message and str(name) in message for message in caplog.messages] == [True] * (name is not None)


def encode_side_by_side(path: Path, films: dict[str, list[np.ndarray]]) -> None:
    """Several video streams in one file; a film of one picture is its cover."""
    import av

    with av.open(str(path), "w") as container:
        codecs = {name: "libx264" if len(film) > 1 else "png" for name, film in films.items()}
        streams = {name: container.add_stream(codec, rate=30) for name, codec in codecs.items()}
        for name, stream in streams.items():
            stream.height, stream.width = films[name][0].shape[:2]
            stream.pix_fmt = "yuv420p" if codecs[name] == "libx264" else "rgb24"
            if codecs[name] == "png":
                stream.disposition = av.stream.Disposition.attached_pic.value
        for number in range(10):
            for name, stream in streams.items():
                if number < len(films[name]):
                    frame = av.VideoFrame.from_ndarray(films[name][number], format="rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, 30)
                    container.mux(stream.encode(frame))
        for stream in streams.values():
            container.mux(stream.encode())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_of_several_streams_the_first_is_read_and_told(tmp_path: Path, caplog, suffix: str):
    path = tmp_path / f"two{suffix}"
    encode_side_by_side(path, {"near": [quarters(48, 64)] * 10, "far": [np.full((96, 128, 3), 255, np.uint8)] * 10})
    for backend in ("auto", "pyav"):
        with open_video(path, backend) as video:
            assert (video.backend, video.size, len(video)) == ("pyav", (64, 48), 10)
            assert seen(video.frames(np.array([9]))[0]) == seen(quarters())
    (message,) = caplog.messages
    assert str(path) in message and " 2 " in message
    if importlib.util.find_spec("decord"):
        with pytest.raises(PainseqError, match="pyav"):
            open_video(path, "decord")


def test_a_cover_picture_is_no_video_stream(tmp_path: Path, caplog):
    path = tmp_path / "cover.mp4"
    encode_side_by_side(path, {"cover": [np.zeros((16, 16, 3), np.uint8)], "film": [quarters()] * 10})
    assert read_timeline(path).streams == 1
    with open_video(path) as video:
        assert video.size == (64, 80) and len(video) == 10
        assert seen(video.frames(np.array([5]))[0]) == seen(quarters())
    assert not caplog.messages
