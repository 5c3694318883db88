"""Find the files of a data set, ignoring hidden files and the case of suffixes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from painseq.errors import PainseqError
from painseq.video import VIDEO_SUFFIXES
from painseq.video.container import image_files
from painseq.video.images import UNREADABLE_IMAGE
from painseq.video.limits import check_pixels

log = logging.getLogger("painseq")


def video_files(folder: Path, pattern: str) -> list[Path]:
    """List videos below a folder that match a pattern of `Path.glob`, sorted; "**/*" is any depth."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    )


def warn_of_16_bits(name: str, folder: Path) -> None:
    """Warn if the first image of a folder has 16 bits, of which only the upper eight are used."""
    try:
        path = image_files(folder)[0]
        with Image.open(path) as image:
            check_pixels(path, *image.size)
            levels = len(np.unique(np.asarray(image) >> 8)) if image.mode.startswith("I") else 0
    except (PainseqError, *UNREADABLE_IMAGE):
        # Reported when the clip is read.
        return
    if levels:
        log.warning(
            "%s: images have 16 bits, of which only the upper eight are used. This leaves %d grey levels of %s. If "
            "these are few, convert all images to 8 bits first, with the same scaling.",
            name,
            levels,
            path.name,
        )


def subfolders(folder: Path) -> list[Path]:
    """List the subfolders of a folder, sorted; empty if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
