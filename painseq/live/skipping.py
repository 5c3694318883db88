"""Skip the extractor while little moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces import FollowedFace

THRESHOLDS = {"paper": 0.05, "face": 0.01}
CROP_THRESHOLD = 0.02
_TIME_TOLERANCE_S = 1e-6
_SMALL_PX = 32


@dataclass(frozen=True)
class Skipping:
    """When a frame is skipped: its features are those of the last frame that was not.

    Args:
        rule: "none" skips nothing. "face" skips a frame whose landmarks moved by less than `threshold` sides of the
            face on average, until `most_s` have passed. "paper" is the rule of El-Ghaish et al. (2025): landmarks that
            moved by less than `threshold` of the picture's width and height on average, but for every `interval`-th
            frame. Movement counts from the last frame that was not skipped.
        threshold: see `rule`; None: 0.01 for "face", 0.05 for "paper".
        most_s: longest time between two frames that are not skipped, in seconds, for "face".
        interval: for "paper".
        crop_threshold: where the locator finds no landmarks, as YuNet, "face" compares the crops, made small: their
            mean difference, as a share of the range from black to white, replaces `threshold`.
        drop: leave skipped frames out, as the paper does, instead of holding the last features. Predictions agree less
            with those of all frames.

    Raises:
        PainseqError: a number out of range.
    """

    rule: Literal["none", "face", "paper"] = "face"
    threshold: float | None = None
    most_s: float = 0.33
    interval: int = 10
    crop_threshold: float = CROP_THRESHOLD
    drop: bool = False

    def __post_init__(self) -> None:
        if self.rule not in ("none", *THRESHOLDS):
            raise PainseqError(f"Skipping: rule is {self.rule!r}; use none, face or paper.")
        for name in ("threshold", "most_s", "interval", "crop_threshold"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise PainseqError(f"Skipping: {name} is {value}; it must be more than 0.")


class Skipper:
    """Decides of one frame after the other whether it is skipped."""

    def __init__(self, settings: Skipping) -> None:
        self.settings = settings
        self._threshold = settings.threshold or THRESHOLDS.get(settings.rule, 0.0)
        self._count = 0
        self._before: NDArray[np.float32] | None = None
        self._taken_s = self._last_s = -np.inf

    def skips(self, face: FollowedFace, frame_px: tuple[int, int]) -> bool:
        """Return whether the next frame is skipped; one without a face is not.

        Args:
            face: the face in the frame.
            frame_px: (width, height) of the frame.

        Raises:
            PainseqError: the rule "paper", and a face without landmarks.
        """
        self._count += 1
        step_s, self._last_s = face.time_s - self._last_s, face.time_s
        if self.settings.rule == "none" or not face.present:
            return False
        shape, threshold = self._compared(face, frame_px)
        before = self._before
        if before is not None and before.shape == shape.shape and not self._is_due(face.time_s, step_s):
            moved = float(np.abs(shape - before).mean())
            if moved < threshold:  # Not where it is NaN.
                return True
        self._before, self._taken_s = shape, face.time_s
        return False

    def forget(self) -> None:
        """Take the next frame in any case."""
        self._before = None

    def _is_due(self, time_s: float, step_s: float) -> bool:
        if self.settings.rule == "paper":
            return self._count % self.settings.interval == 0
        return time_s + step_s - self._taken_s > self.settings.most_s + _TIME_TOLERANCE_S

    def _compared(self, face: FollowedFace, frame_px: tuple[int, int]) -> tuple[NDArray[np.float32], float]:
        """Return what is compared, in units of the threshold, and the threshold."""
        if face.landmarks is None:
            if self.settings.rule == "paper":
                raise PainseqError(
                    "The rule of skipping 'paper' compares landmarks, which this locator does not find. Use the rule "
                    "face (command line: --skip face), or the locator FaceMesh."
                )
            step = max(1, face.crop.shape[-1] // _SMALL_PX)
            size = face.crop.shape[-1] // step
            grey = face.crop[:, : size * step, : size * step].mean(axis=0, dtype=np.float32)
            small = grey.reshape(size, step, size, step).mean(axis=(1, 3)) / 255
            return small, self.settings.crop_threshold
        points = face.landmarks[:, :2]
        if self.settings.rule == "paper":
            scaled = (points / np.array(frame_px, np.float32)).astype(np.float32)
            return scaled, self._threshold
        side = float((points.max(axis=0) - points.min(axis=0)).max())
        return points, self._threshold * side
