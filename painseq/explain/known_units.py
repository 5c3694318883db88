"""Action units that are known beside the video: the truth of a generated one, or OpenFace's table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.action_units import PRESENCES, read_action_units, table_of
from painseq.errors import PainseqError
from painseq.faces.openface import nearest_rows
from painseq.synthetic import truth_folder
from painseq.synthetic.writing import MARKER
from painseq.video import bare_name

log = logging.getLogger("painseq")

HIGHEST_PSPI = 16
_CLOSED = 2.5
"""Intensity of a blink's AU45 from which the eyes count as closed: the middle of its range, as PSPI has it for AU43."""


@dataclass(frozen=True, eq=False)
class KnownUnits:
    """What the face does in each frame of a clip, from elsewhere than the model.

    Args:
        source: "truth" of a generated video, or "OpenFace".
        pspi: (T,) pain intensity by Prkachin and Solomon, 0 to 16; NaN where it is not known.
        blinks: (T,) whether the eyes are closed in a blink (AU45); false where it is not known.
    """

    source: str
    pspi: NDArray[np.float64]
    blinks: NDArray[np.bool_]


def known_units(
    video: Path,
    times_s: NDArray[np.float64],
    start_s: float = 0.0,
    image_fps: float | None = None,
    action_units: Path | None = None,
) -> KnownUnits | None:
    """Action units at some moments of a video; None where nothing is known.

    A table that nobody named and that cannot be read is told in the log, and counts as none.

    Args:
        times_s: (T,) seconds since `start_s`.
        image_fps: images a second, where the video is a folder of them.
        action_units: OpenFace's table; None: `<video without suffix>.csv` beside it, if it is there.

    Raises:
        PainseqError: the table that is named cannot be read, or tells of another time.
    """
    moments = start_s + times_s
    truth = _truth_of(video)
    if truth is not None:
        return _of_truth(truth, moments)
    table = table_of(video) if action_units is None else action_units
    if action_units is None and not table.is_file():
        return None
    try:
        units = read_action_units(table, image_fps).at(moments)
    except PainseqError as error:
        if action_units is not None:
            raise
        log.warning("Not used as a table of action units: %s", error)
        return None
    return KnownUnits("OpenFace", units.pspi(), units.presence[:, PRESENCES.index(45)] == 1)


def _truth_of(video: Path) -> Path | None:
    """Where the truth of a generated video lies."""
    video = video.resolve()
    root = next((folder for folder in video.parents if (folder / MARKER).is_file()), None)
    if root is None:
        return None
    path = truth_folder(root) / video.relative_to(root).parent / f"{bare_name(video)}.safetensors"
    return path if path.is_file() else None


def _of_truth(path: Path, moments_s: NDArray[np.float64]) -> KnownUnits:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        names = file.metadata()["au"].split(",")
        known_s, au, pspi = (file.get_tensor(name) for name in ("times_s", "au", "pspi"))
    rows, near = nearest_rows(known_s, moments_s)
    blinks = near & (au[rows, names.index("AU45")] >= _CLOSED)
    return KnownUnits("truth", np.where(near, pspi[rows], np.nan).astype(np.float64), blinks)
