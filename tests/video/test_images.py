"""Folders of images as videos."""

import contextlib
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from painseq.errors import PainseqError
from painseq.faces import FaceCrops, FullFrame
from painseq.video import bare_name, open_video, probe_duration_s, read_chunks, video_digest, write_video
from painseq.video.container import image_files
from painseq.video.images import read_image

RNG = np.random.default_rng(0)


def save(path: Path, level: int, size: tuple[int, int] = (12, 8), **options: object) -> None:
    Image.new("RGB", size, (level, level, level)).save(path, **options)


def levels(folder: Path) -> list[int]:
    with open_video(folder, image_fps=10.0) as video:
        return video.frames(np.arange(len(video)))[:, 0, 0, 0].tolist()


def test_the_images_of_a_video_show_what_the_video_shows(tmp_path: Path):
    write_video(tmp_path / "a.mp4", RNG.integers(0, 255, (20, 48, 64, 3), dtype=np.uint8), 25)
    folder = tmp_path / "a"
    folder.mkdir()
    with open_video(tmp_path / "a.mp4") as video:
        for number, image in enumerate(video.frames(np.arange(20)), start=1):
            Image.fromarray(image).save(folder / f"img_{number:05d}.png")
        expected = list(read_chunks(video, 0.1, 0.7, 10))
        with open_video(folder, image_fps=25.0) as images:
            found = list(read_chunks(images, 0.1, 0.7, 10))
            assert (images.size, images.duration_s) == (video.size, pytest.approx(video.duration_s))
            np.testing.assert_allclose(images.times_s, video.times_s)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[1], other[1])
    (crops,), (again,) = (
        list(FaceCrops(FullFrame(), size_px=32).clip(path, 0.1, 0.7, 10, image_fps=25.0))
        for path in (tmp_path / "a.mp4", folder)
    )
    np.testing.assert_array_equal(crops.crops, again.crops)
    assert again.backend == "images"


def test_names_are_in_natural_order_and_other_files_do_not_count(tmp_path: Path):
    names = ["Img2.PNG", "img9.jpg", "IMG10.JPEG", "img010b.bmp", "img100.png"]
    for level, name in enumerate(names):
        save(tmp_path / name, 50 * level)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._img1.png", "img12.csv"):
        (tmp_path / name).write_bytes(b"nothing to see")
    (tmp_path / "img3.png").mkdir()
    assert [file.name for file in image_files(tmp_path)] == names
    assert levels(tmp_path) == [0, 50, 100, 150, 200]


def test_formats_may_be_mixed_and_keep_the_order_of_the_names(tmp_path: Path):
    for number in range(1, 13):
        suffix = (".png", ".webp", ".tif", ".bmp")[number % 4]
        save(tmp_path / f"img{number}{suffix}", 20 * number, **({"lossless": True} if suffix == ".webp" else {}))
    assert levels(tmp_path) == [20 * number for number in range(1, 13)]


@pytest.mark.parametrize("other", ["img2.heic", "img2.GIF", "img1.webp"])
def test_images_that_would_be_left_out_or_shown_twice_are_refused(tmp_path: Path, other: str):
    save(tmp_path / "img1.png", 0)
    (tmp_path / other).write_bytes(b"an image of another format")
    with pytest.raises(PainseqError, match=re.escape(other)):
        image_files(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("limit", [20, 60, 95])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, limit: int
):
    path = tmp_path / f"1.{suffix}"
    save(path, 50)
    # Pillow's own limit warns above it and refuses above twice of it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setenv("PAINSEQ_MAX_PIXELS", "96")
    assert read_image(path).shape == (8, 12, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setenv("PAINSEQ_MAX_PIXELS", str(limit))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the image was decoded"))
    for kind in ("error", "ignore"):
        with warnings.catch_warnings(), pytest.raises(PainseqError, match=rf"(?s)(?=.*1\.{suffix})(?=.*\b{limit}\b)"):
            warnings.simplefilter(kind)
            read_image(path)


@pytest.mark.parametrize("text", ["", "0", "-5", "1e9", "9" * 30, "many"])
def test_a_limit_that_is_no_number_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    save(tmp_path / "1.png", 0)
    monkeypatch.setenv("PAINSEQ_MAX_PIXELS", text)
    with pytest.raises(PainseqError, match="PAINSEQ_MAX_PIXELS"):
        read_image(tmp_path / "1.png")


@given(
    st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=30), st.sampled_from(["{}", "{:08d}", "f{}_x"])
)
def test_numbers_in_names_order_them(tmp_path_factory: pytest.TempPathFactory, numbers: list[int], pattern: str):
    folder = tmp_path_factory.mktemp("order")
    for number in numbers:
        (folder / f"{pattern.format(number)}.png").touch()
    assert [int(re.sub(r"\D", "", file.stem)) for file in image_files(folder)] == sorted(numbers)


def test_only_the_frames_asked_for_are_read(tmp_path: Path):
    for number in range(6):
        save(tmp_path / f"{number}.png", 10 * number)
    (tmp_path / "3.png").write_bytes(b"")
    with open_video(tmp_path, image_fps=10.0) as video:
        assert video.frames(np.array([1, 2, 4, 5]))[:, 0, 0, 0].tolist() == [10, 20, 40, 50]
        with pytest.raises(PainseqError, match=r"\b3\.png"):
            video.frames(np.array([3]))
        assert video.frames(np.array([4]))[0, 0, 0, 0] == 40


def test_a_frame_is_found_by_its_moment(tmp_path: Path):
    for number in range(60):
        save(tmp_path / f"{number}.png", 4 * number)
    for fps in (25.0, 30.0, 29.97, 1000 / 33):
        with open_video(tmp_path, image_fps=fps) as video:
            for frame in range(60):
                ((images, times_s),) = read_chunks(video, frame / fps, (frame + 1) / fps)
                assert images[:, 0, 0, 0].tolist() == [4 * frame] and abs(times_s[0]) < 1e-6


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16"])
def test_every_kind_of_png_becomes_rgb_of_8_bits(tmp_path: Path, mode: str):
    grey = np.full((8, 12), 200, np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 256 + 255)
    elif mode == "1":
        image = Image.fromarray(grey > 0)
    else:
        picture = Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
        image = picture.quantize() if mode == "P" else picture.convert(mode)
    image.save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.shape == (8, 12, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - (255 if mode == "1" else 200)).max() <= (4 if mode == "P" else 0)


def test_an_image_held_sideways_is_turned_upright(tmp_path: Path):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with open_video(tmp_path, image_fps=1.0) as video:
        assert video.size == (32, 48)
        (image,) = video.frames(np.array([0]))
    assert image[4, -4, 0] > 200 and image[4, 4, 0] < 50


def test_a_folder_that_cannot_be_shown(tmp_path: Path):
    folder = tmp_path / "clip"
    folder.mkdir()
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bclip\b)(?=.*\.png)(?=.*\.jpg)(?=.*\.jpeg)(?=.*\.bmp)"):
        open_video(folder, image_fps=25.0)
    save(folder / "1.png", 0)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bclip\b)(?=.*\bfps\b)"):
        open_video(folder)
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(PainseqError, match=rf"(?<!\w){fps}\b"):
            open_video(folder, image_fps=fps)
    for backend in ("decord", "pyav"):
        with pytest.raises(PainseqError, match=rf"\b{backend}\b"):
            open_video(folder, backend, 25.0)
    with pytest.raises(PainseqError, match=r"\b1\.png"):
        open_video(folder / "1.png", "images", 25.0)
    with pytest.raises(PainseqError, match=r"\babsent\b"):
        open_video(tmp_path / "absent", "images", 25.0)


def test_images_of_two_sizes_are_an_error_that_names_the_one(tmp_path: Path):
    save(tmp_path / "1.png", 0)
    save(tmp_path / "2.png", 0, (10, 8))
    named = r"(?s)(?=.*\b2\.png)(?=.*\b10 x 8\b)(?=.*\b12 x 8\b)"
    with open_video(tmp_path, image_fps=25.0) as video, pytest.raises(PainseqError, match=named):
        video.frames(np.array([0, 1]))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
@pytest.mark.parametrize("kind", ["text", "cut"])
def test_a_damaged_image_is_named(tmp_path: Path, suffix: str, kind: str):
    path = tmp_path / f"1.{suffix}"
    Image.fromarray(RNG.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(b"hello world\n" * 20 if kind == "text" else path.read_bytes()[:-1000])
    with pytest.raises(PainseqError, match=rf"\b1\.{suffix}"):
        open_video(tmp_path, image_fps=25.0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_damage_is_worse_than_an_error(tmp_path: Path, suffix: str, data: st.DataObject):
    path = tmp_path / f"1.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (6, 5, 3), dtype=np.uint8))
    image.save(path, **({} if suffix == "bmp" else {"exif": exif}))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with contextlib.suppress(PainseqError):
        assert read_image(path).dtype == np.uint8


def test_duration_and_digest_of_a_folder(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        for number in range(5):
            save(folder / f"{number}.png", number)
    assert probe_duration_s(one, 10.0) == pytest.approx(0.5)
    assert video_digest(one, 25.0) == video_digest(other, 25.0) == video_digest(one, 25)
    assert len({video_digest(one, fps) for fps in (None, 25.0, 30.0)}) == 3
    (other / ".DS_Store").touch()
    assert video_digest(one) == video_digest(other)
    for change in ("4.png", "0.png"):
        kept = (other / change).read_bytes()
        save(other / change, 99)
        assert video_digest(one) != video_digest(other)
        (other / change).write_bytes(kept)
    assert video_digest(one) == video_digest(other)
    (other / "2.png").rename(other / "2b.png")
    assert video_digest(one) != video_digest(other)
    with pytest.raises(PainseqError, match=re.escape(str(one))):
        probe_duration_s(one)


def test_a_folder_keeps_the_dots_of_its_name(tmp_path):
    (tmp_path / "p01.a").mkdir()
    assert bare_name(tmp_path / "p01.a") == "p01.a" and bare_name(tmp_path / "p01_1.5") == "p01_1.5"
    assert bare_name(tmp_path / "p01.MP4") == "p01" and bare_name(Path("a.b.mov")) == "a.b"
