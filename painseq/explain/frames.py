"""`Frames`, the frames of one clip to explain, from a video, a data module or a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from painseq.batch import Sample
from painseq.data.normalisation import scaled
from painseq.data.person_scale import PersonScale
from painseq.data.streams import arrays_of, beside_cnn, rows_of_video, video_streams
from painseq.errors import PainseqError
from painseq.faces import Locator
from painseq.faces.crops import CropChunk
from painseq.features import ClipFeatures
from painseq.model.pain_model import PainModel
from painseq.video.sampling import no_frames_error


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of one clip, as crops or as features.

    Args:
        x: (T, 3, S, S) crops, uint8 or float 0..255; or (T, D) features of all the model's streams.
        present: (T,) bool, false for a frame without a face.
        times_s: (T,) seconds from the clip's start.
        extra: (T, E) other streams of a clip of crops (landmarks, action units); only the crops are explained.
        scale: what the subject's features are normalised by, for crops and a model fitted on features relative to each
            subject's baseline; features in `x` are already normalised. None for a model of features normalised by
            subject: by the frames of the clip itself.
        boxes: (T, 4) area of the crop in pixels of the video's frame: left, top, right, bottom; before it is turned.
        landmarks: (T, L, 2) x and y in pixels of the crop; NaN without a face.
        backend: library that decoded the video; "" if the clip was not read from a video.
        switched_s: times in seconds from which on another person may be followed.
        angles_rad: (T,) by which the area of the crop is turned clockwise about its centre; None if it is not turned.
    """

    x: Tensor
    present: Tensor
    times_s: Tensor
    extra: Tensor | None = None
    scale: PersonScale | None = None
    boxes: Tensor | None = None
    landmarks: Tensor | None = None
    backend: str = ""
    switched_s: tuple[float, ...] = ()
    angles_rad: Tensor | None = None

    def __post_init__(self) -> None:
        if self.x.ndim not in (2, 4):
            raise ValueError(f"x must be (T, 3, S, S) crops or (T, D) features, not {tuple(self.x.shape)}.")
        optional = (self.extra, self.boxes, self.landmarks, self.angles_rad)
        tensors = (self.x, self.present, self.times_s, *optional)
        lengths = {len(tensor) for tensor in tensors if tensor is not None}
        if len(lengths) > 1:
            raise ValueError(f"The tensors of a clip have {sorted(lengths)} frames; they must have the same number.")

    def __len__(self) -> int:
        return len(self.present)

    @property
    def are_pixels(self) -> bool:
        """Whether `x` holds crops."""
        return self.x.ndim == 4


def frames_of_sample(sample: Sample) -> Frames:
    """Return a clip of a data module, in the module's view: crops with the other streams, or features."""
    return Frames(sample.x, sample.present, sample.times_s, sample.extra)


def frames_of_store(
    model: PainModel, clip: ClipFeatures, action_units: Path | None = None, start_s: float = 0.0
) -> Frames:
    """Return a clip of a store, with its streams combined as the model takes them.

    Args:
        action_units: table of the clip's video, for a model that takes action units.
        start_s: start of the clip in that video, in seconds.

    Raises:
        PainseqError: the model takes landmarks, action units or features of a second store, which are missing; or it
            was fitted on features relative to each subject's baseline.
    """
    if model.record.by_person == "baseline":
        raise PainseqError(
            "This model takes features relative to each subject's baseline, which a single clip of a store does not "
            "have. Take the clip from a data module (frames_of_sample)."
        )
    video = Path("video")  # A placeholder: only a table next to it would be searched.
    streams = video_streams(model.stream_identities, video, action_units)
    if not clip.are_crops:
        rows = torch.from_numpy(rows_of_video(streams, arrays_of(clip), video, start_s))
        if model.record.by_person == "subject":
            rows = scaled(model.person_scale(rows[clip.present].numpy()), rows, clip.present)
        return Frames(rows, clip.present, clip.times_s)
    other_streams = beside_cnn(streams)
    extra = rows_of_video(other_streams, arrays_of(clip), video, start_s) if other_streams else None
    return Frames(clip.features, clip.present, clip.times_s, None if extra is None else torch.from_numpy(extra))


@dataclass(frozen=True)
class VideoOptions:
    """How `frames_of_video` reads a video, as in `PainModel.predict`.

    Args:
        locator: detects faces instead of the model's own locator; None: the model's own.
        baseline: video of the same subject without pain, for a model that needs one.
        image_fps: images per second, if the video is a folder of images.
        action_units: table of the video, for a model that takes action units; None:
            `<video without suffix>.csv` next to the video.
    """

    locator: Locator | None = None
    baseline: Path | None = None
    image_fps: float | None = None
    action_units: Path | None = None


DEFAULT_OPTIONS = VideoOptions()


def frames_of_video(
    model: PainModel,
    video: str | Path,
    start_s: float = 0.0,
    end_s: float | None = None,
    options: VideoOptions = DEFAULT_OPTIONS,
) -> Frames:
    """Read the crops of a span of a video, cropped as for fitting, with landmarks and the other streams.

    Args:
        start_s: start of the span, in seconds from the first frame.
        end_s: end of the span, exclusive; None: the end of the video.

    Raises:
        PainseqError: the file cannot be read, no frame is in the span, a baseline is missing or not needed, or the
            model cannot read videos.
    """
    locator, image_fps = options.locator, options.image_fps
    if model.extractor is None or model.face is None:
        raise PainseqError(
            "This model was fitted on features whose extractor is not recorded, so it cannot read videos. Fit it on a "
            "store that `painseq extract` wrote, or explain features (Frames)."
        )
    video = Path(video)
    face = model.face if locator is None else model.face.with_locator(locator)
    other_streams = beside_cnn(video_streams(model.stream_identities, video, options.action_units, face.locator))
    chunks = list(face.clip(video, start_s, end_s, model.fps, image_fps=image_fps))
    if not chunks:
        raise no_frames_error(video, start_s, end_s)
    crops = torch.from_numpy(np.concatenate([chunk.crops for chunk in chunks]))
    present = torch.from_numpy(np.concatenate([chunk.present for chunk in chunks]))
    times_s = torch.from_numpy(np.concatenate([chunk.times_s for chunk in chunks]))
    boxes = torch.from_numpy(np.concatenate([chunk.boxes for chunk in chunks]))
    landmarks, angles_rad = _landmarks(chunks), _angles(chunks)
    extra = None
    if other_streams and bool(present.any()):
        given = arrays_of(ClipFeatures(crops, present, times_s, landmarks))
        extra = torch.from_numpy(rows_of_video(other_streams, given, video, start_s, image_fps))
    return Frames(
        crops,
        present,
        times_s,
        extra,
        _scale(model, options),
        boxes,
        None if landmarks is None else landmarks_in_crops(landmarks, boxes, crops.shape[-1], angles_rad),
        chunks[0].backend,
        tuple(time_s for chunk in chunks for time_s in chunk.switched_s),
        angles_rad,
    )


def landmarks_in_crops(landmarks: Tensor, boxes: Tensor, size_px: int, angles_rad: Tensor | None = None) -> Tensor:
    """Convert landmarks from pixels of the video to pixels of crops.

    Args:
        landmarks: (T, L, 2 or 3) in pixels of the video; z is left out.
        boxes: (T, 4) areas of the crops, before they are turned.
        size_px: side of the crops.
        angles_rad: (T,) by which the areas are turned clockwise about their centres.

    Returns:
        (T, L, 2) x and y.
    """
    points = landmarks[..., :2]
    corner, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
    if angles_rad is not None:
        centre = corner + size / 2
        x, y = (points - centre).unbind(dim=-1)
        cos, sin = angles_rad.cos()[:, None], angles_rad.sin()[:, None]
        points = centre + torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)
    return (points - corner) / size * size_px


def _landmarks(chunks: Sequence[CropChunk]) -> Tensor | None:
    """Return landmarks in pixels of the video's frame; chunks without a face may have none, and get NaN."""
    points = next((chunk.landmarks.shape[1:] for chunk in chunks if chunk.landmarks is not None), None)
    if points is None:
        return None
    missing = [np.full((len(chunk), *points), np.nan, np.float32) for chunk in chunks]
    parts = [
        empty if chunk.landmarks is None else chunk.landmarks for chunk, empty in zip(chunks, missing, strict=True)
    ]
    return torch.from_numpy(np.concatenate(parts))


def _angles(chunks: Sequence[CropChunk]) -> Tensor | None:
    """Return the angles of the crops; chunks without a face may have none, and get NaN."""
    if all(chunk.angles_rad is None for chunk in chunks):
        return None
    parts = [
        np.full(len(chunk), np.nan, np.float32) if chunk.angles_rad is None else chunk.angles_rad for chunk in chunks
    ]
    return torch.from_numpy(np.concatenate(parts))


def _scale(model: PainModel, options: VideoOptions) -> PersonScale | None:
    baseline = options.baseline
    if model.record.by_person != "baseline":
        if baseline is not None:
            raise PainseqError("This model does not take features relative to a baseline. Omit baseline.")
        return None
    if baseline is None:
        raise PainseqError(
            "This model was fitted on features relative to each subject's baseline. Give baseline, a video of the same "
            "subject without pain."
        )
    return model.pain_free(baseline, options.locator, options.image_fps)
