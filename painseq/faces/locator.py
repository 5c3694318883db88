"""The common interface of all face locators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
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
        score: the locator's confidence, 0 to 1.
        landmarks: (L, 2) float32, x and y in pixels, or (L, 3), with z in the same unit; None if the locator does not
            provide them.
    """

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32] | None = None

    def towards(self, other: Face, share: float) -> Face:
        """Interpolate linearly between this face (share 0) and `other` (share 1)."""
        weight = np.float32(share)
        landmarks = None
        if self.landmarks is not None and other.landmarks is not None:
            landmarks = (1 - weight) * self.landmarks + weight * other.landmarks
        box = (1 - weight) * self.box + weight * other.box
        return Face(box, (1 - share) * self.score + share * other.score, landmarks)


Follow = Callable[[NDArray[np.uint8], NDArray[np.float64]], list[list[Face]]]
"""Finds the faces in the next frames of one clip: (N, H, W, 3) RGB uint8 and (N,) times in, N lists of faces out."""


class Locator(ABC):
    """Base class of face locators, which find the faces in each frame of a video.

    Every face has the same number of landmarks, or none has any. Keep each argument of `__init__` as an attribute of
    the same name, so that a checkpoint can record it. A locator must be thread-safe: several threads share it.
    """

    needs_pixels: ClassVar[bool]
    """Whether `locate` needs the images; otherwise it is called once, for all frames of a clip."""
    every_frame: ClassVar[bool] = False
    """Whether a clip's faces can only be found by looking at each of its frames, in order."""
    needs_torch: ClassVar[bool] = False
    """Whether its networks run in torch, so that an exported model cannot use it."""

    @abstractmethod
    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """Find all faces in each of N frames, in any order; the frames need not be consecutive.

        Args:
            images: (N, H, W, 3) RGB uint8, or None if `needs_pixels` is false.
            times_s: (N,) times of these frames, in seconds since the video's first frame.
            video: path of the video.
        """

    def follow(self, video: Path) -> Follow:
        """Return what finds the faces of one clip, whose frames are given in order; by default each frame by itself."""
        return lambda images, times_s: self.locate(images, times_s, video)

    def extra_files(self, video: Path) -> tuple[Path, ...]:
        """Return the files, other than the video, that locating depends on; if their content changes, so do crops."""
        return ()

    def model_files(self) -> dict[str, Path]:
        """Return the files of the locator's networks: argument of `__init__` -> path; downloaded first if needed.

        Raises:
            PainseqError: a file is missing, or cannot be downloaded.
        """
        return {}

    def identity(self) -> Spec:
        """Return the settings that decide which faces are found: `spec_of` without paths and devices."""
        return spec_of(self)
