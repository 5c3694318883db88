"""Fake videos and a small network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.errors import PainseqError
from painseq.extractors import TimmBackbone
from painseq.faces import CropChunk
from painseq.features import FeatureStore
from painseq.records import Clip, Manifest


class FakeFaces:
    """Stands for `FaceCrops`: a video is a text file "frames [faceless ...]", its crops are drawn from its name, and so
    are its landmarks, if any `points` are asked for and there is a face."""

    backend = "auto"
    locator = None

    def __init__(self, size_px: int = 32, points: int = 0, axes: int = 2) -> None:
        self.size_px = size_px
        self.points = points
        self.axes = axes

    def spec(self) -> dict[str, object]:
        return {"kind": "fake", "size_px": self.size_px}

    def record(self) -> dict[str, object]:
        return {**self.spec(), "identity": self.identity()}

    def identity(self) -> dict[str, object]:
        return self.spec()

    def extra_files(self, video: Path) -> tuple[Path, ...]:
        return ()

    def clip(
        self,
        video: Path,
        start_s: float,
        end_s: float | None,
        fps: float | None,
        chunk_frames: int,
        image_fps: float | None = None,
    ) -> Iterator[CropChunk]:
        words = video.read_text().split()
        if not words or not words[0].isdigit():
            raise PainseqError(f"{video} is not a video: {' '.join(words)!r}.")
        frames, faceless = int(words[0]), [int(word) for word in words[1:]]
        rng = np.random.default_rng(sum(video.name.encode()))
        crops = rng.integers(0, 256, (frames, 3, self.size_px, self.size_px), dtype=np.uint8)
        present = ~np.isin(np.arange(frames), faceless)
        times_s = np.arange(frames) / (fps or 25.0)
        landmarks = None
        if self.points and present.any():
            landmarks = rng.uniform(0, 640, (frames, self.points, self.axes)).astype(np.float32)
            landmarks[~present] = np.nan
        for first in range(0, frames, chunk_frames):
            part = slice(first, first + chunk_frames)
            boxes = np.zeros((len(present[part]), 4), np.float32)
            seen = crops[part] * present[part, None, None, None]
            here = None if landmarks is None else landmarks[part]
            yield CropChunk(seen, times_s[part], present[part], boxes, "fake", here)


@pytest.fixture
def faces() -> FakeFaces:
    return FakeFaces()


@pytest.fixture
def tracked() -> FakeFaces:
    """Faces with landmarks."""
    return FakeFaces(points=5)


@pytest.fixture(params=[2, 3], ids=["landmarks", "mesh"])
def with_points(request: pytest.FixtureRequest) -> FakeFaces:
    """Faces with landmarks of x and y, or with the points of a mesh."""
    return FakeFaces(points=5, axes=request.param)


@pytest.fixture(scope="session")
def extractor() -> TimmBackbone:
    return TimmBackbone("test_resnet", input_size_px=32)


@pytest.fixture
def videos(tmp_path: Path) -> Callable[..., Manifest]:
    """Makes a manifest of fake videos, one for each text."""

    def make(*texts: str) -> Manifest:
        root = tmp_path / "videos"
        root.mkdir(exist_ok=True)
        for number, text in enumerate(texts):
            (root / f"v{number:03d}.mp4").write_text(text)
        clips = [Clip(f"s{n % 3}/clip {n}", f"s{n % 3}", f"v{n:03d}.mp4", end_s=5.0) for n in range(len(texts))]
        return Manifest("fake", root, tuple(clips))

    return make


def contents(store: Path) -> dict[str, bytes]:
    """The bytes of a finished store's files; not of the weights, whose metadata safetensors writes in any order."""
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in sorted(store.rglob("*"))
        if file.is_file() and not file.name.startswith(".lock") and file.name != "extractor.safetensors"
    }


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    return contents


def _same_features(one: Path, other: Path) -> None:
    """Both stores hold the same clips: within 1e-5 in float32, one unit in the last place in float16."""
    a, b = FeatureStore(one), FeatureStore(other)
    assert set(a) == set(b) and a.fingerprint == b.fingerprint and a.failed == b.failed
    for clip_id in a:
        left, right = a[clip_id], b[clip_id]
        if a.dtype == "float16":
            apart = (left.features.view(torch.int16).int() - right.features.view(torch.int16).int()).abs().max()
            assert int(apart) <= 1
        else:
            torch.testing.assert_close(left.features, right.features, rtol=1e-5, atol=1e-5)
        assert torch.equal(left.present, right.present) and torch.equal(left.times_s, right.times_s)
        assert (left.landmarks is None) == (right.landmarks is None)
        if left.landmarks is not None:
            torch.testing.assert_close(left.landmarks, right.landmarks, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(scope="session")
def same_features() -> Callable[[Path, Path], None]:
    return _same_features
