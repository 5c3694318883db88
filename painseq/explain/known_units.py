"""Action units that are known beside the video: the truth of a generated one, or OpenFace's table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.data.streams.action_units import PRESENCES, read_action_units, table_of
from painseq.errors import PainseqError
from painseq.faces.openface import nearest_rows
from painseq.video.generated import truth_of

log = logging.getLogger("painseq")

HIGHEST_PSPI = 16
LONGEST_BLINK_S = 0.4
"""Blinks last 0.1 s to 0.4 s; eyes closed for longer are rest, or pain (AU43)."""
_CLOSED = 2.5
"""Intensity of a blink's AU45 from which the eyes count as closed: the middle of its range, as PSPI has it for AU43."""


@dataclass(frozen=True, eq=False)
class KnownUnits:
    """What the face does in each frame of a clip, from elsewhere than the model.

    Args:
        source: "truth" of a generated video, or "OpenFace".
        pspi: (T,) pain intensity by Prkachin and Solomon, 0 to 16; NaN where it is not known.
        blinks: (T,) whether the eyes are closed in a blink (AU45); false where it is not known. OpenFace calls closed
            eyes AU45 however long they are; here those that are closed for longer than `LONGEST_BLINK_S` are no blink.
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
        image_fps: images a second, where the video is a folder of them; of no matter otherwise.
        action_units: OpenFace's table; None: `<video without suffix>.csv` beside it, if it is there.

    Raises:
        PainseqError: the table that is named cannot be read, or tells of another time.
    """
    moments = start_s + times_s
    truth = truth_of(video)
    if truth is not None:
        return _of_truth(truth, moments)
    table = table_of(video) if action_units is None else action_units
    if action_units is None and not table.is_file():
        return None
    try:
        whole = read_action_units(table, image_fps if video.is_dir() else None)
        units = whole.at(moments)
    except PainseqError as error:
        if action_units is not None:
            raise
        log.warning("Not used as a table of action units: %s", error)
        return None
    rows, near = nearest_rows(whole.times_s, moments, whole.interval_s)
    # Of the whole table, whose frames lie closer together than the model's may.
    blinks = brief(whole.presence[:, PRESENCES.index(45)] == 1, whole.times_s)
    return KnownUnits("OpenFace", units.pspi(), near & blinks[rows])


def brief(closed: NDArray[np.bool_], times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(T,) the frames in which eyes are closed, but not for longer than `LONGEST_BLINK_S` together.

    How long is counted in frames; at less than 2.5 a second a single one is too long.

    Args:
        closed: (T,).
        times_s: (T,) increasing.
    """
    out = np.zeros(len(closed), np.bool_)
    interval_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], closed, [False]]).astype(np.int8)))
    for first, end in edges.reshape(-1, 2):
        out[first:end] = times_s[end - 1] - times_s[first] + interval_s <= LONGEST_BLINK_S + 1e-6
    return out


def _of_truth(path: Path, moments_s: NDArray[np.float64]) -> KnownUnits:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        names = file.metadata()["au"].split(",")
        known_s, au, pspi = (file.get_tensor(name) for name in ("times_s", "au", "pspi"))
    rows, near = nearest_rows(known_s, moments_s)
    blinks = near & (au[rows, names.index("AU45")] >= _CLOSED)
    return KnownUnits("truth", np.where(near, pspi[rows], np.nan).astype(np.float64), blinks)
