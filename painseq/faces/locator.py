"""What every locator is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from painseq.spec import Spec, spec_of


@dataclass(frozen=True, eq=False)
class Face:
    """A face in one frame.

    Args:
        box: (4,) float32, left, top, right, bottom in pixels.
        score: the locator's certainty, 0 to 1.
        landmarks: (L, 2) float32, x and y in pixels; None where the locator finds none.
    """

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32] | None = None

    def towards(self, other: Face, share: float) -> Face:
        """Where the face is after a share, 0 to 1, of a straight way to `other`."""
        weight = np.float32(share)
        landmarks = None
        if self.landmarks is not None and other.landmarks is not None:
            landmarks = (1 - weight) * self.landmarks + weight * other.landmarks
        box = (1 - weight) * self.box + weight * other.box
        return Face(box, (1 - share) * self.score + share * other.score, landmarks)


class Locator(ABC):
    """Finds the faces in each frame of a video.

    Landmarks come with every face that it finds, always the same number, or with none. Each argument of `__init__` is
    kept as an attribute of that name, so that a checkpoint can record it. Clips may be worked on in several threads,
    which then share one locator.
    """

    needs_pixels: ClassVar[bool]
    """Whether `locate` looks at the images; without, it is asked once, for all frames of a clip."""

    @abstractmethod
    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """All faces in each of N frames, in any order; the frames need not be consecutive.

        Args:
            images: (N, H, W, 3) RGB, or None where `needs_pixels` is false.
            times_s: (N,) seconds of these frames since the video's first one.
            video: the file they come from.
        """

    def beside(self, video: Path) -> tuple[Path, ...]:
        """Files other than the video that tell where its faces are: with other contents, the crops are others."""
        return ()

    def identity(self) -> Spec:
        """What decides which faces are found: `spec_of` without what only says where or on what it runs."""
        return spec_of(self)
