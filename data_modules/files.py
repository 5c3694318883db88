"""Finding a data set's files: hidden ones are left alone, and suffixes count in any case."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from painseq.errors import PainseqError
from painseq.video.container import image_files

log = logging.getLogger("painseq")


def mp4_files(folder: Path, pattern: str) -> list[Path]:
    """Videos below a folder that fit a pattern of `Path.glob`, in order; "**/*" is any depth."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() == ".mp4" and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    )


def tell_of_16_bits(name: str, folder: Path) -> None:
    """Warn where the first image of a folder has 16 bits, of which the upper eight are kept, and what is left of it."""
    try:
        path = image_files(folder)[0]
        with Image.open(path) as image:
            levels = len(np.unique(np.asarray(image) >> 8)) if image.mode.startswith("I") else 0
    except (PainseqError, UnidentifiedImageError, OSError):
        # Said where it is read, with the clip.
        return
    if levels:
        log.warning(
            "%s: images have 16 bits, of which the upper eight are kept. That leaves %d grey levels of %s. If these "
            "are few, scale the images to 8 bits first, all in the same way.",
            name,
            levels,
            path.name,
        )


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in order; none where it is not there."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
