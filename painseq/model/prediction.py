"""What a model says of clips and of a video. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from painseq.faces.track import switch_warning
from painseq.records import MIN_FACE_SHARE, check_min_face_share
from painseq.video.generated import other_faces_warning

NO_PREDICTION = -1
"""Label of a clip without any valid frame (a frame with a face)."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a head says of B clips; of a classifier the label and probabilities, of a regression model the value.

    Args:
        label: (B,) int64, `NO_PREDICTION` for a clip without a valid frame.
        probabilities: (B, K) float32; NaN without a valid frame.
        votes: (B, K) share of the frames that vote for each class; of frame heads only.
        frame_probabilities: (B, T, K), of frame heads only; whatever stands in masked frames means nothing.
        value: (B,) float32 within the scale; NaN without a valid frame.
        frame_values: (B, T), of frame heads only; see `frame_probabilities`.
    """

    label: NDArray[np.int64] | None = None
    probabilities: NDArray[np.float32] | None = None
    votes: NDArray[np.float32] | None = None
    frame_probabilities: NDArray[np.float32] | None = None
    value: NDArray[np.float32] | None = None
    frame_values: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class VideoPrediction:
    """Prediction of a model for one video.

    Args:
        video: the video file.
        label: a class name; None if no frame has a face, and for a regression model.
        probabilities: class name -> probability; empty without a label.
        value: a number on the model's scale; None if no frame has a face, and for a classifier.
        scale: name of the scale, e.g. "pspi"; None for a classifier.
        frame_meaning: what a row below covers: "this frame" (frame head), or "the clip up to this frame" (video head).
        frame_times_s: (T',) times of the rows below, seconds from the start of the span.
        frame_probabilities: (T', K), see `frame_meaning`; K is 0 for a regression model.
        frame_values: (T',) on the scale, see `frame_meaning`; empty for a classifier.
        frames: number of sampled frames.
        faceless_times_s: times of the frames without a face, seconds from the start of the span.
        backends: video reader, locator and device that were used.
        min_face_share: `warning` says so if a smaller share of the frames has a face.
        switched_s: times from which on another person may be followed, seconds from the start of the span.
        fitted_on_video: whether the model was fitted on this very video, by its content; None if it is not known.
        threshold: tuned threshold of the second class's probability, which the label follows (before a stated mix of
            classes); None if the model has none.
        generated: whether painseq generated the video; None if it is not known.
        fitted_on_generated: whether the model was fitted on generated faces alone; None if it is not known.
        normalised_by: videos whose frames give the mean and standard deviation of the features, for a model of features
            normalised by subject; empty for other models.
    """

    video: str
    label: str | None
    probabilities: Mapping[str, float]
    value: float | None
    scale: str | None
    frame_meaning: str
    frame_times_s: np.ndarray
    frame_probabilities: np.ndarray
    frame_values: np.ndarray
    frames: int
    faceless_times_s: np.ndarray
    backends: Mapping[str, str]
    min_face_share: float = MIN_FACE_SHARE
    switched_s: tuple[float, ...] = ()
    fitted_on_video: bool | None = None
    threshold: float | None = None
    generated: bool | None = None
    fitted_on_generated: bool | None = None
    normalised_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_min_face_share(self.min_face_share)

    @property
    def face_share(self) -> float:
        """Share of the frames that have a face."""
        return (self.frames - len(self.faceless_times_s)) / self.frames if self.frames else 0.0

    @property
    def warning(self) -> str | None:
        """Why the prediction is doubtful; None if it is not, or if there is none."""
        if self.label is None and self.value is None:
            return None
        reasons = []
        if self.face_share < self.min_face_share:
            seen = self.frames - len(self.faceless_times_s)
            share = f"{seen} of {self.frames} frames have a face ({self.face_share:.0%})"
            reasons.append(f"only {share}: the prediction is doubtful.")
        if self.switched_s:
            reasons.append(switch_warning(self.switched_s))
        if self.fitted_on_video:
            reasons.append("the model was fitted on this video, so the prediction says nothing about new videos.")
        other = other_faces_warning(self.fitted_on_generated, self.generated)
        return " ".join([*reasons, *([other] if other else [])]) or None

    @property
    def note(self) -> str | None:
        """What the features are normalised by, if by this person's own frames."""
        if not self.normalised_by:
            return None
        others = len(self.normalised_by) - 1
        own = f"this video and {others} of the same person" if others else "this video alone"
        return f"features are normalised by the frames of {own}, not by more of the person's clips as in fitting."

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        predicted: dict[str, object]
        if self.scale:
            predicted = {
                "value": self.value,
                "scale": self.scale,
                "frame_values": [round(float(number), 6) for number in self.frame_values],
            }
        else:
            predicted = {
                "label": self.label,
                "threshold": self.threshold,
                "probabilities": dict(self.probabilities),
                "frame_probabilities": [[round(float(p), 6) for p in row] for row in self.frame_probabilities],
            }
        return {
            "video": self.video,
            **predicted,
            "frames": self.frames,
            "faceless_frames": len(self.faceless_times_s),
            "face_share": round(self.face_share, 6),
            "warning": self.warning,
            "switched_s": [round(time_s, 4) for time_s in self.switched_s],
            "fitted_on_video": self.fitted_on_video,
            "generated": self.generated,
            "fitted_on_generated": self.fitted_on_generated,
            "normalised_by": list(self.normalised_by),
            "faceless_times_s": [round(float(t), 4) for t in self.faceless_times_s],
            "frame_meaning": self.frame_meaning,
            "frame_times_s": [round(float(t), 4) for t in self.frame_times_s],
            "backends": dict(self.backends),
        }
