"""Writing video files."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.video import open_video, write_video


@pytest.mark.parametrize("fps", [25, 30, 29.97, 8.5])
def test_what_is_written_is_read_again(tmp_path: Path, fps: float):
    yy, xx = np.mgrid[:48, :64]
    frames = [np.stack([xx * 3, yy * 4, np.full_like(xx, 10 * i)], axis=-1).astype(np.uint8) for i in range(20)]
    path = tmp_path / "new" / "clip.mp4"
    assert write_video(path, iter(frames), fps, crf=10) == 20
    with open_video(path) as video:
        np.testing.assert_allclose(video.times_s, np.arange(20) / fps, atol=1e-3)
        images = video.frames(np.arange(20))
    assert np.abs(images.astype(int) - np.stack(frames)).mean() < 4
    assert [file.name for file in path.parent.iterdir()] == ["clip.mp4"]


def test_the_same_frames_give_the_same_file(tmp_path: Path):
    rows, columns = np.mgrid[0:96, 0:96]
    frames = [np.stack([rows + 3 * t, columns - 2 * t, rows ^ columns], -1).astype(np.uint8) for t in range(30)]
    written = set()
    for number in range(8):
        write_video(tmp_path / f"{number}.mp4", iter(frames), 25.0)
        written.add((tmp_path / f"{number}.mp4").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(
    ("frames", "fps", "word"),
    [
        ([], 30, r"clip\.mp4"),
        ([np.zeros((33, 32, 3), np.uint8)], 30, r"\b33\b"),
        ([np.zeros((32, 32), np.uint8)], 30, r"\(32, 32\)"),
        ([np.zeros((32, 32, 3), np.uint8), np.zeros((32, 34, 3), np.uint8)], 30, r"\b1\b"),
        ([np.zeros((32, 32, 3), np.float32)], 30, "float32"),
        ([np.zeros((32, 32, 3), np.uint8)], 0, "fps"),
    ],
)
def test_what_cannot_be_encoded_leaves_no_file(tmp_path: Path, frames: list[np.ndarray], fps: float, word: str):
    with pytest.raises(PainseqError, match=word):
        write_video(tmp_path / "clip.mp4", frames, fps)
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_frames_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")

    def frames() -> Iterator[np.ndarray]:
        yield np.zeros((32, 32, 3), np.uint8)
        raise RuntimeError("the generator failed")

    with pytest.raises(RuntimeError, match="the generator failed"):
        write_video(path, frames(), 30)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files")
@pytest.mark.parametrize("limit_bytes", [2000, 30_000])
def test_a_full_disk_is_told_and_leaves_no_file(tmp_path: Path, limit_bytes: int):
    script = f"""
import resource
import numpy as np
from pathlib import Path
from painseq.errors import PainseqError
from painseq.video import write_video
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))
rng = np.random.default_rng(0)
frames = (rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(30))
try:
    write_video(Path({str(tmp_path / "clip.mp4")!r}), frames, 30)
except PainseqError as error:
    assert "clip.mp4" in str(error), error
    raise SystemExit(7)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 7, done.stderr
    assert not list(tmp_path.iterdir())
