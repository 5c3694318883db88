"""Follow one face through a clip, frame by frame."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces.alignment import mean_angle
from painseq.faces.locator import Face

_TIME_TOLERANCE_S = 1e-6
# After a gap, a face of the same person lies within the longer side of the last box, and is not much larger or smaller.
_LARGEST_RATIO = 1.5
# At a cut, a face of the same person stays where it is; moving, it crosses its longer side in a second at most.
_CUT_MOTION = 0.1
_SIDES_PER_S = 1.0
# Detections nearer than this to the followed face, in its longer sides, are not other people's faces.
_SAME_PLACE = 0.5


@dataclass(frozen=True)
class FaceTrack:
    """The followed face in each of N frames; slicing gives the track of some of the frames.

    Args:
        times_s: (N,) float64.
        boxes: (N, 4) float32, left, top, right, bottom; NaN where not present.
        present: (N,) bool, false for a frame without a face.
        scores: (N,) float32, interpolated in a bridged gap; 0 where not present.
        landmarks: (N, L, 2 or 3) float32, not smoothed, NaN where not present; None if no face has landmarks.
        switched: (N,) bool, true for a frame from which on another person may be followed; see `Tracker`.
        most_faces: the most faces found in one frame; 0 where unknown, as for tracks from disk.
        angles_rad: (N,) float32, how far the line between the eyes is turned clockwise, NaN where not present; None
            where it is not asked for (`painseq.faces.alignment`).
    """

    times_s: NDArray[np.float64]
    boxes: NDArray[np.float32]
    present: NDArray[np.bool_]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32] | None
    switched: NDArray[np.bool_]
    most_faces: int = 0
    angles_rad: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.times_s)

    def __getitem__(self, frames: slice) -> FaceTrack:
        landmarks = None if self.landmarks is None else self.landmarks[frames]
        return FaceTrack(
            self.times_s[frames],
            self.boxes[frames],
            self.present[frames],
            self.scores[frames],
            landmarks,
            self.switched[frames],
            self.most_faces,
            None if self.angles_rad is None else self.angles_rad[frames],
        )

    @property
    def switched_s(self) -> tuple[float, ...]:
        """Times, in seconds, from which on another person may be followed."""
        return tuple(self.times_s[self.switched].tolist())

    def spans_without_face(self) -> list[tuple[float, float]]:
        """Return the first and last time, in seconds, of each run of frames without a face."""
        return [
            (float(self.times_s[first]), float(self.times_s[end - 1]))
            for first, end in _runs(self.present)
            if not self.present[first]
        ]


def joined(tracks: Sequence[FaceTrack]) -> FaceTrack:
    """Concatenate consecutive parts of a track; parts without landmarks get NaN if another part has them."""
    parts = [part for part in tracks if len(part)]
    if not parts:
        return _rows([], [], None)
    points = next((part.landmarks.shape[1:] for part in parts if part.landmarks is not None), None)
    landmarks, angles_rad = None, None
    if any(part.angles_rad is not None for part in parts):
        angles_rad = np.concatenate(
            [np.full(len(part), np.nan, np.float32) if part.angles_rad is None else part.angles_rad for part in parts]
        )
    if points is not None:
        landmarks = np.concatenate(
            [
                np.full((len(part), *points), np.nan, np.float32) if part.landmarks is None else part.landmarks
                for part in parts
            ]
        )
    return FaceTrack(
        np.concatenate([part.times_s for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.present for part in parts]),
        np.concatenate([part.scores for part in parts]),
        landmarks,
        np.concatenate([part.switched for part in parts]),
        max(part.most_faces for part in parts),
        angles_rad,
    )


def switch_warning(switched_s: Sequence[float]) -> str:
    """Return the warning that another person may be followed from each of these times on, in seconds."""
    times = ", ".join(f"{time_s:.2f} s" for time_s in switched_s[:3]) + (", ..." if len(switched_s) > 3 else "")
    return (
        f"another person may be followed from {times} on: after a gap or a cut, the face does not continue the one "
        "before in position and size. Look at the video there; same_person of FaceCrops leaves such faces out."
    )


class Tracker:
    """Follow one face, given all faces in each frame, in order and any number of frames at a time.

    Start with the largest face. In each frame choose the face whose centre is nearest to that of the last box, if it is
    no further away than the longer side of that box; otherwise the frame has no face. After a gap of more than
    `max_gap_s`, choose the largest face again. In gaps of at most `max_gap_s`, box and landmarks are interpolated;
    longer gaps, and the time before the first and after the last detection, have no face: nothing is extrapolated.

    A face that may be another person's is followed, but marked as `switched` in the track:

    - it lies where another face was when the followed one was last seen;
    - after a gap of more than `max_gap_s`, it is further away than the longer side of the last box, or more than 1.5
      times larger or smaller;
    - after a cut of the video, an edge of its box or a landmark has moved by more than a tenth of that side, and a side
      per second between the last face and the cut.

    Args:
        max_gap_s: longest gap that is bridged, in seconds; 0 bridges none.
        video: name of the video, for error messages.
        same_person: never follow a face that may be another person's; until the last one is back, there is no face.
        causal: every frame is final at once; for `max_gap_s` after its last detection, but not beyond a cut, the face
            is held where it was.
    """

    def __init__(
        self, max_gap_s: float, video: str = "The video", same_person: bool = False, causal: bool = False
    ) -> None:
        self.max_gap_s = max_gap_s
        self.video = video
        self.same_person = same_person
        self.causal = causal
        self._others: list[Face] = []
        self._cut_s: float | None = None
        self._last: Face | None = None
        self._last_s = 0.0
        self._in_sight = False
        self._gap_s: list[float] = []
        self._points: tuple[int, ...] | None = None

    def add(
        self, times_s: NDArray[np.float64], detections: Sequence[Sequence[Face]], cuts: Container[int] = ()
    ) -> FaceTrack:
        """Add the next frames, at non-decreasing times; return the track of the frames that are now final, in order.

        A frame with the face is final at once, a frame without it after `max_gap_s` at the latest.

        Args:
            times_s: (n,) their times, in seconds.
            detections: the faces in each of them.
            cuts: those of them, counted from 0, that come after a cut of the video.

        Raises:
            PainseqError: faces with different numbers of landmarks.
        """
        times: list[float] = []
        faces: list[Face | None] = []
        switched: list[bool] = []
        for frame, (time_s, found) in enumerate(zip(times_s.tolist(), detections, strict=True)):
            if frame in cuts:
                self._cut_s = time_s
            bridged = self._last is not None and time_s - self._last_s <= self.max_gap_s + _TIME_TOLERANCE_S
            face, fits = self._choose(found, bridged)
            if face is None and bridged and self.causal:
                times.append(time_s)
                faces.append(self._last if self._cut_s is None else None)
                switched.append(False)
                continue
            if face is None and bridged:
                self._gap_s.append(time_s)
                continue
            if face is not None:
                self._check_landmarks(face, time_s)
            for missed_s in self._gap_s:
                share = (missed_s - self._last_s) / max(time_s - self._last_s, _TIME_TOLERANCE_S)
                between = self._last.towards(face, share) if face and self._last and bridged else None
                times.append(missed_s)
                faces.append(between)
                switched.append(False)
            self._gap_s = []
            times.append(time_s)
            faces.append(face)
            switched.append(not fits)
            if face is not None:
                self._last, self._last_s, self._cut_s = face, time_s, None
                self._others = [other for other in found if _distance(other, face) > _SAME_PLACE * _side(face)]
        most_faces = max(map(len, detections), default=0)
        return replace(_rows(times, faces, self._points, switched), most_faces=most_faces)

    def interrupt(self) -> None:
        """Tell that frames are missing before the next one, so that a face there is not in sight without a break."""
        self._in_sight = False

    def finish(self) -> FaceTrack:
        """Return the remaining frames at the end of the clip: they have no face."""
        gap_s, self._gap_s = self._gap_s, []
        return _rows(gap_s, [None] * len(gap_s), self._points)

    def _choose(self, found: Sequence[Face], bridged: bool) -> tuple[Face | None, bool]:
        """Return the face to follow, and whether it can be that of the person before."""
        followed, self._in_sight = self._in_sight, False
        last, regained = self._last, not (bridged or followed)
        if last is not None and self.same_person:
            found = [face for face in found if self._fits(face, last, regained)]
        if not found:
            return None, True
        if last is None or regained:
            chosen = max(found, key=_area)
        else:
            chosen = min(found, key=lambda face: _distance(face, last))
            if _distance(chosen, last) > _side(last):
                return None, True
        self._in_sight = True
        return chosen, last is None or self._fits(chosen, last, regained)

    def _fits(self, face: Face, last: Face, regained: bool) -> bool:
        if any(_distance(face, other) < _distance(face, last) for other in self._others):
            return False
        if self._cut_s is not None:
            sides = min(1.0, _CUT_MOTION + _SIDES_PER_S * (self._cut_s - self._last_s))
            if motion_px(last, face) > sides * _side(last):
                return False
        return not regained or _continues(last, face)

    def _check_landmarks(self, face: Face, time_s: float) -> None:
        points = None if face.landmarks is None else face.landmarks.shape
        if self._last is not None and points != self._points:
            before, current = (shape[0] if shape else "no" for shape in (self._points, points))
            raise PainseqError(
                f"{self.video}: the face {time_s:.3f} s into the clip has {current} landmarks, earlier "
                f"ones have {before}. A locator must give all faces of a video the same number of landmarks, or none; "
                "fix the locator, or the files that it reads."
            )
        self._points = points


class Smoother:
    """Smooth boxes and angles of a track by a centred moving average; frames are added in order, any number at a time.

    The window of `smooth_s` stays within each run of frames with the face, and shrinks symmetrically towards the ends
    of the run, so that steady motion is unchanged.

    Args:
        smooth_s: width of the window, in seconds; 0 does not smooth.
        causal: only the earlier half of the window, of `smooth_s` / 2, which begins anew where another person may be
            followed; every frame is final at once.
    """

    def __init__(self, smooth_s: float, causal: bool = False) -> None:
        self.smooth_s = smooth_s
        self.causal = causal
        # The current run, as far back as its next average reaches; its first `_num_final` frames were returned already.
        self._run = _rows([], [], None)
        self._num_final = 0
        self._start_s = 0.0

    def add(self, track: FaceTrack) -> FaceTrack:
        """Add the next frames; return those that are now final: all but those of the last `smooth_s` / 2."""
        settled = []
        for first, end in _runs(track.present, track.switched if self.causal else None):
            part = track[first:end]
            if not part.present[0]:
                settled += [self.finish(), part]
                continue
            if self.causal and part.switched[0]:
                settled.append(self.finish())
            if not len(self._run):
                self._start_s = float(part.times_s[0])
            self._run = joined([self._run, part])
            settled.append(self._settle(ended=False))
        return joined(settled)

    def finish(self) -> FaceTrack:
        """Return the remaining frames at the end of the clip."""
        settled = self._settle(ended=True)
        self._run, self._num_final = _rows([], [], None), 0
        return settled

    def _settle(self, ended: bool) -> FaceTrack:
        run, times = self._run, self._run.times_s
        if not len(run):
            return run
        if self.causal:
            return self._settle_at_once()
        reach_s = self.smooth_s / 2 + _TIME_TOLERANCE_S
        end = len(run) if ended else int(np.searchsorted(times + reach_s, times[-1]))
        final_s = times[self._num_final : end]
        half = (
            np.minimum(self.smooth_s / 2, np.minimum(final_s - self._start_s, times[-1] - final_s)) + _TIME_TOLERANCE_S
        )
        low = np.searchsorted(times, final_s - half)
        high = np.searchsorted(times, final_s + half, side="right")
        settled = _averaged(run, self._num_final, low, high)
        keep = int(np.searchsorted(times, times[end] - reach_s)) if end < len(run) else len(run)
        self._run, self._num_final = run[keep:], end - keep
        return settled

    def _settle_at_once(self) -> FaceTrack:
        run, reach_s = self._run, self.smooth_s / 2 + _TIME_TOLERANCE_S
        low = np.searchsorted(run.times_s, run.times_s[self._num_final :] - reach_s)
        settled = _averaged(run, self._num_final, low, np.arange(self._num_final, len(run)) + 1)
        keep = int(np.searchsorted(run.times_s, run.times_s[-1] - reach_s))
        self._run, self._num_final = run[keep:], len(run) - keep
        return settled


def _averaged(run: FaceTrack, first: int, low: NDArray[np.int64], high: NDArray[np.int64]) -> FaceTrack:
    """Return the frames from `first` on, box and angle each the mean over the frames `low` to `high` (exclusive)."""
    # No running sums: they would make boxes depend on how the frames were split into calls.
    windows = list(zip(low.tolist(), high.tolist(), strict=True))
    boxes = [run.boxes[a:b].astype(np.float64).mean(axis=0) for a, b in windows]
    part = run[first : first + len(windows)]
    averaged = replace(part, boxes=np.asarray(boxes, np.float32).reshape(-1, 4))
    if run.angles_rad is None:
        return averaged
    return replace(averaged, angles_rad=np.asarray([mean_angle(run.angles_rad[a:b]) for a, b in windows], np.float32))


def track(
    detections: Sequence[Sequence[Face]], times_s: NDArray[np.float64], smooth_s: float, max_gap_s: float
) -> FaceTrack:
    """Follow one face through a whole clip with `Tracker` and `Smoother`.

    Args:
        detections: the faces in each of N frames.
        times_s: (N,) times of the frames, in seconds, non-decreasing.
        smooth_s: width of the moving average over the boxes, in seconds; 0 does not smooth.
        max_gap_s: longest gap that is bridged, in seconds; 0 bridges none.

    Raises:
        PainseqError: faces with different numbers of landmarks.
    """
    tracker = Tracker(max_gap_s)
    whole = joined([tracker.add(np.asarray(times_s, np.float64), detections), tracker.finish()])
    return smoothed(whole, smooth_s)


def smoothed(track: FaceTrack, smooth_s: float, causal: bool = False) -> FaceTrack:
    """Return a whole track with smoothed boxes; see `Smoother`."""
    smoother = Smoother(smooth_s, causal)
    return joined([smoother.add(track), smoother.finish()])


def switched_in(boxes: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `FaceTrack.switched`, as far as the boxes before and after each gap tell it."""
    switched = np.zeros(len(present), np.bool_)
    runs = [first_and_end for first_and_end in _runs(present) if present[first_and_end[0]]]
    for (_, end), (first, _) in itertools.pairwise(runs):
        switched[first] = not _continues(Face(boxes[end - 1], 1.0), Face(boxes[first], 1.0))
    return switched


def motion_px(a: Face, b: Face) -> float:
    """Return the largest motion of a box edge or landmark, in pixels; infinite if the landmarks do not match."""
    distance = float(np.abs(a.box - b.box).max())
    if a.landmarks is None and b.landmarks is None:
        return distance
    if a.landmarks is None or b.landmarks is None or a.landmarks.shape != b.landmarks.shape:
        return float("inf")
    return max(distance, float(np.abs(a.landmarks - b.landmarks).max()))


def _continues(last: Face, face: Face) -> bool:
    sides = _side(last), _side(face)
    return _distance(face, last) <= sides[0] and max(sides) <= _LARGEST_RATIO * min(sides)


def _rows(
    times_s: Sequence[float],
    faces: Sequence[Face | None],
    points: tuple[int, ...] | None,
    switched: Sequence[bool] | None = None,
) -> FaceTrack:
    count = len(times_s)
    track = FaceTrack(
        times_s=np.asarray(times_s, np.float64),
        boxes=np.full((count, 4), np.nan, np.float32),
        present=np.zeros(count, np.bool_),
        scores=np.zeros(count, np.float32),
        landmarks=None if points is None else np.full((count, *points), np.nan, np.float32),
        switched=np.zeros(count, np.bool_) if switched is None else np.asarray(switched, np.bool_),
    )
    for frame, face in enumerate(faces):
        if face is not None:
            track.present[frame], track.boxes[frame], track.scores[frame] = True, face.box, face.score
            if track.landmarks is not None:
                track.landmarks[frame] = face.landmarks
    return track


def _runs(present: NDArray[np.bool_], begins: NDArray[np.bool_] | None = None) -> list[tuple[int, int]]:
    """Return start and end (exclusive) of each run of frames that are all present or all absent.

    A frame of `begins` begins another run.
    """
    if not len(present):
        return []
    is_edge = np.diff(present) if begins is None else np.diff(present) | begins[1:]
    edges = [0, *(np.flatnonzero(is_edge) + 1).tolist(), len(present)]
    return list(itertools.pairwise(edges))


def _area(face: Face) -> float:
    return float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))


def _side(face: Face) -> float:
    return float(max(face.box[2] - face.box[0], face.box[3] - face.box[1]))


def _distance(a: Face, b: Face) -> float:
    dx, dy = (a.box[:2] + a.box[2:] - b.box[:2] - b.box[2:]) / 2
    return float(np.hypot(dx, dy))
