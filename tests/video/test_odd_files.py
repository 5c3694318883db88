"""Files that players show although something about them is odd: the codec, the container, the size, the name."""

import importlib.util
import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.video import open_video, probe_duration_s, write_video

BACKENDS = [
    "auto",
    "pyav",
    pytest.param(
        "decord", marks=pytest.mark.skipif(not importlib.util.find_spec("decord"), reason="decord has no wheel here")
    ),
]
FAST = {
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12"},
    "libx264": {"crf": "10"},
}


def picture(number: int, width: int = 64, height: int = 64) -> np.ndarray:
    """A frame that tells its number: tens by the grey of the left half, ones by that of the right."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:, : width // 2], frame[:, width // 2 :] = 10 + 24 * (number // 10 % 10), 10 + 24 * (number % 10)
    return frame


def numbers(images: np.ndarray) -> list[int]:
    """The frame numbers that `picture`s tell, modulo 100."""
    height, width = images.shape[1:3]
    rows, left, right = (
        slice(a * size // 8, b * size // 8) for a, b, size in ((2, 6, height), (1, 3, width), (5, 7, width))
    )
    halves = [(image[rows, left].mean(), image[rows, right].mean()) for image in images]
    return [10 * round((a - 10) / 24) + round((b - 10) / 24) for a, b in halves]


def encode(
    path: Path, codec: str, count: int, sizes: tuple[tuple[int, int], ...] = ((64, 64),), **settings: Any
) -> None:
    """`count` pictures of each of the sizes, one after the other in one stream."""
    import av

    options = FAST.get(codec, {}) | settings.pop("codec_options", {})
    number = 0
    with av.open(str(path), "w", **settings) as container:
        stream = container.add_stream(codec, rate=30, options=options)
        encoders = [stream.codec_context, *(av.CodecContext.create(codec, "w") for _ in sizes[1:])]
        for encoder, (width, height) in zip(encoders, sizes, strict=True):
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            if encoder is not stream.codec_context:
                encoder.time_base, encoder.framerate, encoder.options = Fraction(1, 30), Fraction(30), options
            packets: list[Any] = []
            for _ in range(count):
                frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 30)
                packets += encoder.encode(frame)
                number += 1
            for packet in packets + encoder.encode(None):
                packet.stream = stream
                container.mux(packet)


def check(path: Path, count: int, backend: str = "auto") -> None:
    """All frames, in order and at random."""
    with open_video(path, backend) as video:
        np.testing.assert_allclose(video.times_s, np.arange(count) / 30, atol=2e-3)
        assert numbers(video.frames(np.arange(count))) == [number % 100 for number in range(count)]
        for call in [[count - 1], [3, 3, 4, 20], [0, count // 2], [count // 2 + 1]]:
            assert numbers(video.frames(np.array(call))) == [number % 100 for number in call]
        if importlib.util.find_spec("decord") and backend == "auto":
            assert video.backend == "decord" or video.backend_note


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize(
    ("name", "codec", "settings"),
    [
        ("a.mp4", "libsvtav1", {}),
        ("live.webm", "libvpx", {"options": {"live": "1"}}),
        ("live9.mkv", "libvpx-vp9", {"options": {"live": "1"}}),
        ("b.avi", "libx264", {"codec_options": {"x264-params": "bframes=3:b-adapt=0"}}),
        ("b.mkv", "libx264", {"codec_options": {"x264-params": "bframes=3:b-adapt=0"}}),
        ("a.m4v", "libx264", {}),
        ("a.mts", "libx264", {}),
        ("a.m2ts", "libx264", {}),
        ("a.mpg", "mpeg2video", {}),
        ("a.mpeg", "mpeg2video", {}),
        ("a.wmv", "wmv2", {}),
        ("a.ogv", "libvpx", {}),
        ("a.flv", "flv", {}),
        ("a.3gp", "libx264", {}),
    ],
)
def test_every_kind_of_file_is_read(tmp_path: Path, backend: str, name: str, codec: str, settings: dict):
    encode(tmp_path / name, codec, 60, **settings)
    check(tmp_path / name, 60, backend)
    assert probe_duration_s(tmp_path / name) == pytest.approx(2.0, abs=0.06)


def test_what_decord_cannot_open_goes_through_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    decord = pytest.importorskip("decord")

    def refuse(*args: object, **kwargs: object) -> None:
        raise decord.DECORDError("no such luck")

    encode(tmp_path / "a.mp4", "libx264", 30)
    monkeypatch.setattr(decord, "VideoReader", refuse)
    check(tmp_path / "a.mp4", 30)
    with open_video(tmp_path / "a.mp4") as video:
        assert video.backend == "pyav" and "no such luck" in video.backend_note
    with pytest.raises(PainseqError, match="no such luck"):
        open_video(tmp_path / "a.mp4", "decord")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "tail", [b"\xfe\x01\x02\x03" + bytes(range(256)), b"SEFT trailer of a telephone" * 9, bytes(50)]
)
def test_what_is_appended_behind_a_video_does_not_count(tmp_path: Path, backend: str, tail: bytes):
    path = tmp_path / "a.mp4"
    encode(path, "libx264", 30)
    path.write_bytes(path.read_bytes() + tail)
    check(path, 30, backend)
    if backend != "decord":
        encode(tmp_path / "a.avi", "mpeg4", 30)
        (tmp_path / "a.avi").write_bytes((tmp_path / "a.avi").read_bytes() + tail)
        check(tmp_path / "a.avi", 30, backend)


@pytest.mark.parametrize("wrong", [0, 1000, 1 << 31])
def test_a_wrong_size_in_an_avi_header_is_no_matter_but_a_cut_is(tmp_path: Path, wrong: int):
    path = tmp_path / "a.avi"
    encode(path, "mpeg4", 60)
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", wrong and len(data) + wrong)
    path.write_bytes(data)
    check(path, 60)
    for share in (0.4, 0.7, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(PainseqError, match=r"a\.avi"):
            open_video(path)


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("count", [36, 150])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.webm", "libvpx"), ("a9.webm", "libvpx-vp9"), ("a.mkv", "libx264"), ("a.mp4", "libx264")]
)
def test_a_picture_that_changes_its_size_is_scaled_at_any_length(tmp_path, backend, count, name, codec):
    repeat = {"codec_options": {"x264-params": "repeat-headers=1"}} if codec == "libx264" else {}
    encode(tmp_path / name, codec, count, ((320, 180), (160, 90)), **repeat)
    check(tmp_path / name, 2 * count, backend)
    encode(tmp_path / f"shape_{name}", codec, count, ((320, 180), (180, 320)), **repeat)
    with open_video(tmp_path / f"shape_{name}", backend) as video:
        assert video.size == (320, 180)
        assert numbers(video.frames(np.arange(count))) == [number % 100 for number in range(count)]
        with pytest.raises(PainseqError, match=rf"(?s)(?=.*shape_{name})(?=.*180 x 320)(?=.*\b{count / 30:.3f} s)"):
            video.frames(np.arange(count, count + 1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name",
    [
        "12:30.mp4",
        "http:x.mp4",
        "a%d.mp4",
        "a%04d.mp4",
        "a#b.mp4",
        "a?b.mp4",
        "-i.mp4",
        "a b.mp4",
        "\N{GRINNING FACE}.mp4",
        "[1].mp4",
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows does not allow these names")
def test_any_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, name: str):
    monkeypatch.chdir(tmp_path)
    write_video(Path("plain.mp4"), (picture(number) for number in range(30)), 30)
    Path("plain.mp4").rename(name)
    check(Path(name), 30, backend)
    assert probe_duration_s(Path(name)) == pytest.approx(1.0, abs=0.05)


def test_a_name_that_is_not_utf_8(tmp_path: Path):
    path = tmp_path / os.fsdecode(b"n\xff.mp4")
    encode(tmp_path / "plain.mp4", "libx264", 30)
    try:
        (tmp_path / "plain.mp4").rename(path)
    except OSError:
        pytest.skip("the file system allows UTF-8 only")
    check(path, 30)


def test_titles_in_any_encoding(tmp_path: Path):
    import av

    path = tmp_path / "titled.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Mxxxller"
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert b"Mxxxller" in data
    path.write_bytes(data.replace(b"Mxxxller", b"M\xfcller\0\0"))
    check(path, 30)
    assert probe_duration_s(path) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unknown_codec_is_an_error(tmp_path: Path, backend: str):
    path = tmp_path / "strange.mp4"
    encode(path, "libx264", 30)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz0"))
    for read in (lambda path: open_video(path, backend), probe_duration_s):
        with pytest.raises(PainseqError, match=r"strange\.mp4"):
            read(path)


def test_a_text_that_names_other_videos_is_no_video(tmp_path, assets):
    (tmp_path / "other.mp4").write_bytes((assets / "videos" / "single_face.mp4").read_bytes())
    listed = tmp_path / "list.mp4"
    listed.write_text("ffconcat version 1.0\nfile other.mp4\n")
    for backend in ("auto", "pyav"):
        with pytest.raises(PainseqError, match=r"list\.mp4"), open_video(listed, backend):
            pass


def test_images_whose_values_would_be_lost_are_refused(tmp_path):
    from PIL import Image

    from painseq.video.images import read_image

    picture = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    pages = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (1, 2)]
    Image.fromarray(picture).save(tmp_path / "float.tif")
    Image.fromarray((picture * 200).astype(np.int32)).save(tmp_path / "whole.tif")
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for file in tmp_path.iterdir():
        with pytest.raises(PainseqError, match=file.name):
            read_image(file)
