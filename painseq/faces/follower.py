"""Follow one face in pictures that come one after the other, as from a camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces.cropping import crop_of
from painseq.faces.crops import FaceCrops
from painseq.faces.full_frame import FullFrame
from painseq.faces.locator import Face
from painseq.faces.sightings import LiveSightings
from painseq.faces.track import Smoother


@dataclass(frozen=True, eq=False)
class FollowedFace:
    """The followed face in one picture.

    Args:
        time_s: time of the picture, in seconds.
        present: whether the face is there.
        crop: (3, S, S) uint8 RGB, channels-last in memory; zero where not present.
        box: (4,) float32, the cropped area in pixels of the picture, before it is turned; NaN where not present.
        score: the locator's confidence, 0 to 1; 0 where not present.
        landmarks: (L, 2 or 3) float32 in pixels of the picture; NaN where not present. None where none are known.
        angle_rad: by which the area is turned clockwise; None for crops that are not turned, or where not present.
        switched: whether another person may be followed from here on (`painseq.faces.track.Tracker`).
        is_cut: whether the picture changed at once, as after a cut.
        faces: number of faces that the locator saw when it last looked.
    """

    time_s: float
    present: bool
    crop: NDArray[np.uint8]
    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32] | None
    angle_rad: float | None
    switched: bool
    is_cut: bool
    faces: int


class FaceFollower:
    """Follow one face, picture by picture: the same crops, bit for bit, as `FaceCrops(causal=True)` cuts from a file.

    Memory does not grow with the number of pictures. Use it in one thread.

    Args:
        face: how faces are located, followed and cropped, as a model records it; it is made causal.
        source: name of the camera or file, for error messages.

    Raises:
        PainseqError: a locator that reads faces from a file beside the video, which a live source does not have.

    Example:
        >>> follower = FaceFollower(FaceCrops(FullFrame(), size_px=8, margin=0.0))
        >>> follower.push(np.zeros((8, 8, 3), np.uint8), 0.0).present
        True
    """

    def __init__(self, face: FaceCrops, source: str = "The source") -> None:
        locator = face.locator
        if not (locator.needs_pixels or isinstance(locator, FullFrame)):
            raise PainseqError(
                f"{type(locator).__name__} reads faces that were found before, which a live source does not have. Use "
                "a locator that looks at pictures: YuNet or FaceMesh (command line: --locator yunet)."
            )
        self.face = face.as_causal()
        self.source = source
        self._sightings = LiveSightings(locator, Path(source), self.face.every_s) if locator.needs_pixels else None
        self._tracker = self.face.tracker(source)
        self._smoother = Smoother(self.face.smooth_s, causal=True)
        self._last_s = -np.inf

    @property
    def located(self) -> int:
        """Number of pictures on which the locator ran."""
        return 0 if self._sightings is None else self._sightings.located

    def push(self, image: NDArray[np.uint8], time_s: float) -> FollowedFace:
        """Follow the face into the next picture.

        Args:
            image: (H, W, 3) RGB uint8.
            time_s: its time in seconds, not before that of the last one.

        Raises:
            PainseqError: the time goes back; or as for `FaceCrops.clip`.
        """
        if not time_s >= self._last_s:
            raise PainseqError(f"{self.source}: a picture at {time_s:.3f} s comes after one at {self._last_s:.3f} s.")
        self._last_s = time_s
        found, is_cut = self._look(image, time_s)
        track = self._tracker.add(np.array([time_s]), [found], {0} if is_cut else ())
        smooth = self._smoother.add(self.face.with_angles(track))
        part = self.face.with_crop_areas(smooth, (image.shape[1], image.shape[0]), self.source)
        present, size_px = bool(part.present[0]), self.face.size_px
        crop = crop_of(image, part, 0, size_px) if present else np.zeros((size_px, size_px, 3), np.uint8)
        return FollowedFace(
            time_s=time_s,
            present=present,
            crop=crop.transpose(2, 0, 1),
            box=part.boxes[0],
            score=float(part.scores[0]) if present else 0.0,
            landmarks=None if part.landmarks is None else part.landmarks[0],
            angle_rad=None if part.angles_rad is None or not present else float(part.angles_rad[0]),
            switched=bool(part.switched[0]),
            is_cut=is_cut,
            faces=len(found),
        )

    def interrupt(self) -> None:
        """Tell that pictures were lost before the next one: it is searched, and its face may be another person's.

        The face is not then taken for the last one because it is near, but as after a gap of that length.
        """
        self._tracker.interrupt()
        if self._sightings is not None:
            self._sightings.interrupt()

    def _look(self, image: NDArray[np.uint8], time_s: float) -> tuple[list[Face], bool]:
        if self._sightings is not None:
            return self._sightings.look(image, time_s)
        (found,) = self.face.locator.locate(image[None], np.array([time_s]), Path(self.source))
        return found, False
