"""Videos that are already cropped to the face."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from painseq.faces.locator import Face, Locator
from painseq.video import open_video


class FullFrame(Locator):
    """Use the whole frame as the face. With a margin of 0, `FaceCrops` keeps the frame unchanged."""

    needs_pixels: ClassVar[bool] = False

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """Return one face per frame, with score 1."""
        if images is None:
            # Only the size is needed, which does not depend on the frame rate of a folder of images.
            with open_video(video, image_fps=1.0) as opened:
                width, height = opened.size
        else:
            height, width = images.shape[1:3]
        face = Face(np.array([0, 0, width, height], np.float32), 1.0)
        return [[face] for _ in times_s]
