"""One face followed through a clip."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from painseq.faces.locator import Face

_SAME_MOMENT_S = 1e-6


@dataclass(frozen=True)
class FaceTrack:
    """Where the followed face is in each of N frames.

    Args:
        times_s: (N,) float64.
        boxes: (N, 4) float32, left, top, right, bottom, smoothed over time; NaN where not present.
        present: (N,) bool, false where the frame counts as faceless.
        scores: (N,) float32, interpolated in a bridged gap; 0 where not present.
        landmarks: (N, L, 2) float32, not smoothed, NaN where not present; None unless every face found has them.
    """

    times_s: NDArray[np.float64]
    boxes: NDArray[np.float32]
    present: NDArray[np.bool_]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32] | None


def track(
    detections: Sequence[Sequence[Face]], times_s: NDArray[np.float64], smooth_s: float, max_gap_s: float
) -> FaceTrack:
    """Follow one face.

    It is the largest one at first, then in each frame the one whose centre is nearest to the last box's, if it lies
    within one longer side of that box; else the face is out of sight in that frame. Once it has been so for more
    than `max_gap_s`, the largest face is taken anew. Between two sightings at most `max_gap_s` apart, box and
    landmarks are interpolated; in a longer gap, before the first sighting and after the last, the frames are
    faceless: nothing is extrapolated. Boxes are then smoothed within each unbroken run by a centred moving average
    over `smooth_s`, which shrinks symmetrically towards the ends of the run, so that steady motion stays as it is.

    Args:
        detections: the faces in each of N frames.
        times_s: (N,) not decreasing.
        smooth_s: width of the average; 0 does not smooth.
        max_gap_s: longest gap that is bridged; 0 bridges none.
    """
    times = np.asarray(times_s, dtype=np.float64)
    seen = _follow(detections, times, max_gap_s)
    count = len(times)
    present = np.zeros(count, np.bool_)
    boxes = np.full((count, 4), np.nan, np.float32)
    scores = np.zeros(count, np.float32)
    shapes = {None if face.landmarks is None else face.landmarks.shape for face in seen.values()}
    shape = shapes.pop() if len(shapes) == 1 else None
    landmarks = None if shape is None else np.full((count, *shape), np.nan, np.float32)

    order = list(seen)
    for frame, face in seen.items():
        present[frame], boxes[frame], scores[frame] = True, face.box, face.score
        if landmarks is not None:
            landmarks[frame] = face.landmarks
    tracks = [boxes, scores] if landmarks is None else [boxes, scores, landmarks]
    for a, b in itertools.pairwise(order):
        if b - a > 1 and times[b] - times[a] <= max_gap_s + _SAME_MOMENT_S:
            present[a + 1 : b] = True
            share = (times[a + 1 : b] - times[a]) / max(times[b] - times[a], _SAME_MOMENT_S)
            for values in tracks:
                weight = share.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
                values[a + 1 : b] = (1 - weight) * values[a] + weight * values[b]
    return FaceTrack(times, _smooth(boxes, times, present, smooth_s), present, scores, landmarks)


def _follow(detections: Sequence[Sequence[Face]], times: NDArray[np.float64], max_gap_s: float) -> dict[int, Face]:
    seen: dict[int, Face] = {}
    last: Face | None = None
    last_s = 0.0
    for frame, faces in enumerate(detections):
        if not faces:
            continue
        if last is None or (times[frame] - last_s > max_gap_s + _SAME_MOMENT_S and frame - 1 not in seen):
            face = max(faces, key=_area)
        else:
            left, top, right, bottom = last.box
            distances = [_distance(face.box, last.box) for face in faces]
            if min(distances) > max(right - left, bottom - top):
                continue
            face = faces[distances.index(min(distances))]
        seen[frame] = last = face
        last_s = float(times[frame])
    return seen


def _area(face: Face) -> float:
    return float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    dx, dy = (a[:2] + a[2:] - b[:2] - b[2:]) / 2
    return float(np.hypot(dx, dy))


def _smooth(
    boxes: NDArray[np.float32], times: NDArray[np.float64], present: NDArray[np.bool_], smooth_s: float
) -> NDArray[np.float32]:
    smooth = boxes.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    for first, end in edges.reshape(-1, 2):
        moments = times[first:end]
        half = np.minimum(smooth_s / 2, np.minimum(moments - moments[0], moments[-1] - moments)) + _SAME_MOMENT_S
        low = np.searchsorted(moments, moments - half)
        high = np.searchsorted(moments, moments + half, side="right")
        total = np.concatenate([np.zeros((1, 4)), np.cumsum(boxes[first:end], axis=0, dtype=np.float64)])
        smooth[first:end] = (total[high] - total[low]) / (high - low)[:, None]
    return smooth
