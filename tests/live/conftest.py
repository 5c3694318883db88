"""A face that needs no detector, models that need no fit, and a video of both."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from painseq.extractors import TimmBackbone
from painseq.faces import Face, FaceCrops, Locator
from painseq.heads import LSTM, FrameANN, Head, StackedLSTM
from painseq.heads.standardised import Standardised
from painseq.model.pain_model import PainModel
from painseq.model.record import StreamRecord
from painseq.video import write_video

WIDTH = 128
"""Features of the smallest network."""


class Square(Locator):
    """Finds the bright square; with 68 points on its outline if asked for."""

    needs_pixels: ClassVar[bool] = True

    def __init__(self, points: bool = False) -> None:
        self.points = points

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        assert images is not None
        return [self.faces(image) for image in images]

    def faces(self, image: NDArray[np.uint8]) -> list[Face]:
        y, x = np.nonzero(image.max(axis=2) > 160)
        if not len(x):
            return []
        box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)
        angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
        outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (box[2:] - box[:2]) / 2
        return [Face(box, 0.9, ((box[:2] + box[2:]) / 2 + outline).astype(np.float32) if self.points else None)]


def drawn(x: int, side: int = 20, shade: int = 0) -> NDArray[np.uint8]:
    """A square whose lower half has another shade; none if its side is 0."""
    image = np.full((64, 96, 3), 30, np.uint8)
    image[20 : 20 + side, x : x + side] = 220
    image[20 + side // 2 : 20 + side, x : x + side, 1] = 100 + shade
    return image


@pytest.fixture(scope="session")
def make_model(make_record) -> Callable[..., PainModel]:
    """Makes a model of random weights."""
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    (width,) = extractor.out_shape

    def head_of(kind: str, width: int, classes: int) -> Head:
        torch.manual_seed(1)
        made: Head
        if kind == "ann":
            made = FrameANN((width,), classes, hidden=(8,))
        elif kind == "lstm":
            made = Standardised(LSTM((width,), classes))
            made.mean.fill_(0.2)
        else:
            made = StackedLSTM((width,), classes, units=8, bidirectional=kind == "bilstm")
        return made.eval()

    def make(kind: str, fps: float | None = None, points: bool = False, **fields) -> PainModel:
        streams = ("cnn", "landmarks") if points else ("cnn",)
        columns = width + (136 if points else 0)
        record = make_record(
            **{
                "fps": fps,
                "in_shape": (columns,),
                "streams": tuple(StreamRecord(name, {}) for name in streams),
                "class_names": ("none", "low", "high"),
                "train_prior": (0.2, 0.3, 0.5),
                **fields,
            }
        )
        classes = len(record.class_names) or 1
        face = FaceCrops(Square(points), size_px=32, max_gap_s=0.3)
        return PainModel(record, head_of(kind, columns, classes), extractor, face)

    return make


@pytest.fixture(scope="session")
def creeping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square that creeps, changes its shade and is away for 0.5 s, in 2 s at 30 frames a second."""
    path = tmp_path_factory.mktemp("live") / "creeping.mp4"
    write_video(path, np.stack([drawn(10 + i // 6, 0 if 30 <= i < 45 else 20, i % 50) for i in range(60)]), 30, crf=5)
    return path


@pytest.fixture(scope="session")
def picture() -> Callable[..., NDArray[np.uint8]]:
    """See `drawn`."""
    return drawn
