"""Action units known independently of the model: the truth of a generated video, or a table of action units."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.data.streams.action_units import table_of, units_of_video
from painseq.errors import PainseqError
from painseq.faces.openface import nearest_rows
from painseq.video.generated import truth_of

log = logging.getLogger("painseq")

HIGHEST_PSPI = 16
LONGEST_BLINK_S = 0.4
"""Blinks last 0.1 s to 0.4 s; eyes closed for longer mean rest, or pain (AU43)."""
_CLOSED = 2.5
"""AU45 intensity from which eyes count as closed: the middle of its range, as in PSPI for AU43."""


@dataclass(frozen=True, eq=False)
class KnownUnits:
    """Pain intensity and blinks in each frame of a clip, known independently of the model.

    Args:
        source: "truth" of a generated video, or the tool that wrote the table.
        pspi: (T,) Prkachin and Solomon pain intensity, 0 to 16; NaN if unknown.
        blinks: (T,) whether the eyes are closed in a blink (AU45); False if unknown. OpenFace codes all closed eyes as
            AU45; here eyes closed for longer than `LONGEST_BLINK_S` are not a blink.
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
    """Return the action units at some times of a video; None if they are unknown.

    If `action_units` is None, and the table next to the video cannot be read, a warning is logged and it is ignored.

    Args:
        times_s: (T,) seconds since `start_s`.
        image_fps: images per second, if the video is a folder of images; otherwise ignored.
        action_units: table of action units; None: `<video without suffix>.csv` next to the video, if it exists.

    Raises:
        PainseqError: `action_units` cannot be read, or does not cover these times.
    """
    video_times_s = start_s + times_s
    truth = truth_of(video)
    if truth is not None:
        return _of_truth(truth, video_times_s)
    table = table_of(video) if action_units is None else action_units
    if action_units is None and not table.is_file():
        return None
    try:
        whole = units_of_video(table, video, image_fps)
        units = whole.at(video_times_s)
    except PainseqError as error:
        if action_units is not None:
            raise
        log.warning("Ignored as a table of action units: %s", error)
        return None
    try:
        score = units.pspi()
    except PainseqError as error:
        log.warning("No PSPI: %s", error)
        score = np.full(len(times_s), np.nan)
    rows, near = nearest_rows(whole.times_s, video_times_s, whole.interval_s)
    # From the whole table, since its frames may be closer together than the model's.
    closed = whole.of(45, "presence")
    blinks = np.zeros(len(whole.times_s), np.bool_) if closed is None else brief(closed == 1, whole.times_s)
    return KnownUnits(units.tool, score, near & blinks[rows])


def brief(closed: NDArray[np.bool_], times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the frames, (T,), in which eyes are closed for at most `LONGEST_BLINK_S` without a break.

    Below 2.5 frames per second, a single frame is too long.

    Args:
        closed: (T,) bool, whether the eyes are closed.
        times_s: (T,) increasing, in seconds.
    """
    out = np.zeros(len(closed), np.bool_)
    interval_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], closed, [False]]).astype(np.int8)))
    for first, end in edges.reshape(-1, 2):
        out[first:end] = times_s[end - 1] - times_s[first] + interval_s <= LONGEST_BLINK_S + 1e-6
    return out


def _of_truth(path: Path, video_times_s: NDArray[np.float64]) -> KnownUnits:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        names = file.metadata()["au"].split(",")
        known_s, au, pspi = (file.get_tensor(name) for name in ("times_s", "au", "pspi"))
    rows, near = nearest_rows(known_s, video_times_s)
    blinks = near & (au[rows, names.index("AU45")] >= _CLOSED)
    return KnownUnits("truth", np.where(near, pspi[rows], np.nan).astype(np.float64), blinks)
