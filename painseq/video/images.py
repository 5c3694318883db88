"""Folders of images, read as videos."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from painseq.errors import PainseqError
from painseq.video.container import image_files, image_times_s
from painseq.video.limits import check_pixels, max_pixels, too_many_pixels
from painseq.video.video import Backend, Video

_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
UNREADABLE_IMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, *_TOO_LARGE)
"""What Pillow raises for files that it cannot read; its other errors are subclasses of these."""


class ImageSequence(Video):
    """The images of a folder (`IMAGE_SUFFIXES`) in the natural order of their names, equally spaced in time.

    Image k is shown at k / `image_fps` seconds; k counts from 0, independent of the numbers in the names.

    Args:
        path: the folder; hidden files and files that are not images are ignored.
        image_fps: images per second.

    Raises:
        PainseqError: no image, no `image_fps`, or a first image that cannot be read.
    """

    backend: Backend = "images"

    def __init__(self, path: Path, image_fps: float | None) -> None:
        self._files = image_files(path)
        times_s = image_times_s(path, len(self._files), image_fps)
        super().__init__(path, times_s[:-1], float(times_s[-1]))
        first = read_image(self._files[0])
        self.size = (first.shape[1], first.shape[0])
        self._last = (0, first)

    def close(self) -> None:
        """Do nothing: each image is opened and closed when it is read."""

    def _decode(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        for index in indices:
            image = read_image(self._files[index])
            height, width = image.shape[:2]
            if (width, height) != self.size:
                raise PainseqError(
                    f"{self._files[index]} is {width} x {height} pixels, but the first image of its folder is "
                    f"{self.size[0]} x {self.size[1]}. All images of a sequence must have the same size; resize them, "
                    "or move other images out of the folder."
                )
            yield image


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) RGB uint8, rotated upright by its EXIF orientation.

    Grey becomes RGB, transparency is dropped, and of 16 bits per channel the upper eight are kept.

    Raises:
        PainseqError: empty, truncated, not an image, or of more pixels than `painseq.video.limits.max_pixels`.
    """
    _raise_limit_of_pillow()
    try:
        with Image.open(path) as image:
            check_pixels(path, *image.size)
            # Phones write JPEG files with a second, smaller picture.
            if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                raise ValueError("it has several pages; save each as a file")
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "F" or (upright.mode == "I" and image.format != "PNG"):
                raise ValueError("it has 32 bits per channel; save it with 8 or 16")
            if upright.mode.startswith("I"):
                grey = (np.asarray(upright).astype(np.uint16) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(upright.convert("RGB"), dtype=np.uint8)
    except _TOO_LARGE as error:
        raise too_many_pixels(path, str(error).rstrip(".")) from error
    except UNREADABLE_IMAGE as error:
        reason: object = "it is not an image" if isinstance(error, UnidentifiedImageError) else error
        if path.is_file() and not path.stat().st_size:
            reason = "the file is empty"
        raise PainseqError(
            f"{path} cannot be read as an image: {reason}. Is the file complete? Copy or convert it again."
        ) from error


def _raise_limit_of_pillow() -> None:
    """Let Pillow open what the user allows; it has a limit of its own, of 90 million pixels."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels() > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels()
