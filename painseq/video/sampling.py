"""Sample frames by time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.records import MAX_FPS

_TIME_TOLERANCE_S = 1e-6
_MOST_SAMPLES = 100_000_000


def frame_indices(
    times_s: NDArray[np.float64], start_s: float = 0.0, end_s: float | None = None, fps: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Select frames of [start_s, end_s) by their timestamps.

    Without `fps`: every frame in the span. With `fps`: one sample at each start_s + i / fps in the span, taken from the
    nearest frame in time, the earlier one of two equally near; a slow video therefore repeats frames. There is no
    sample more than half a frame after the last frame. Times closer than a microsecond count as equal.

    Args:
        times_s: (N,) timestamps, increasing.
        start_s: start of the span, in seconds on the same clock as `times_s`.
        end_s: end of the span, exclusive; None is the end of the video.
        fps: samples per second, or None.

    Returns:
        (n,) int64 indices into `times_s`, non-decreasing, and (n,) float64 sample times in seconds since `start_s`.

    Raises:
        PainseqError: `start_s` is negative, `end_s` is not after it, or `fps` is out of range.
    """
    if not (math.isfinite(start_s) and start_s >= 0):
        raise PainseqError(f"start_s is {start_s}; it must be 0 or more.")
    if end_s is not None and not end_s > start_s:
        raise PainseqError(f"end_s {end_s} is not after start_s {start_s}.")
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise PainseqError(f"fps is {fps}; it must be more than 0 and at most {MAX_FPS}, or None for every frame.")
    times = np.asarray(times_s, dtype=np.float64)
    if len(times) == 0:
        return np.zeros(0, np.int64), np.zeros(0)
    end = math.inf if end_s is None else end_s
    if fps is None:
        first, last = np.searchsorted(times, [start_s - _TIME_TOLERANCE_S, end - _TIME_TOLERANCE_S])
        indices = np.arange(first, last, dtype=np.int64)
        return indices, times[indices] - start_s
    half_frame_s = float(np.median(np.diff(times))) / 2 if len(times) > 1 else 0.0
    last_sample_s = times[-1] + half_frame_s
    count = max(0, math.floor((min(end, last_sample_s + 1 / fps) - start_s) * fps) + 2)
    if count > _MOST_SAMPLES:
        raise PainseqError(f"fps is {fps:.15g}, which takes {count:.3g} samples of one clip; choose a smaller rate.")
    offsets = np.arange(count) / fps
    samples = start_s + offsets
    keep = (samples < end - _TIME_TOLERANCE_S) & (samples <= last_sample_s + _TIME_TOLERANCE_S)
    offsets, samples = offsets[keep], samples[keep]
    after = np.clip(np.searchsorted(times, samples), 1, max(1, len(times) - 1))
    before = after - 1
    if len(times) == 1:
        return np.zeros(len(samples), np.int64), offsets
    nearer_after = times[after] - samples < samples - times[before] - _TIME_TOLERANCE_S
    return np.where(nearer_after, after, before).astype(np.int64), offsets


def no_frames_error(video: Path, start_s: float, end_s: float | None) -> PainseqError:
    """Return the error for a span without frames."""
    return PainseqError(
        f"{video} has no frames between {start_s} s and {'its end' if end_s is None else f'{end_s} s'}."
    )
