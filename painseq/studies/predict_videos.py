"""Predict several videos; one that cannot be read does not stop the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from painseq.errors import PainseqError
from painseq.faces import Locator
from painseq.model.pain_model import PainModel, VideoPrediction


@dataclass(frozen=True)
class VideoOptions:
    """Which span of each video is predicted, and how it is read; see `PainModel.predict`.

    Args:
        start_s: seconds from the first frame shown.
        end_s: exclusive; None is the end.
        locator: finds faces instead of the model's own.
        baseline: a video of the same person without pain, for a model that needs one.
        image_fps: images a second, where a video is a folder of images.
        action_units: OpenFace's table of the one video, for a model that needs one; None: the CSV beside each video.
    """

    start_s: float = 0.0
    end_s: float | None = None
    locator: Locator | None = None
    baseline: Path | None = None
    image_fps: float | None = None
    action_units: Path | None = None


@dataclass(frozen=True)
class VideoResult:
    """What came of one video.

    Args:
        video: the file, or the folder of images.
        prediction: None where it could not be read.
        problem: why there is no label and no value; None where there is one.
    """

    video: Path
    prediction: VideoPrediction | None
    problem: str | None


def predict_videos(
    model: PainModel, videos: Sequence[str | Path], options: VideoOptions = VideoOptions()
) -> Iterator[VideoResult]:
    """Predict videos one by one, in their order.

    Yields:
        A result a video, as soon as it is predicted; a video that cannot be read has a problem instead.

    Raises:
        PainseqError: `action_units`, which is of one video, with several.

    Example:
        >>> for result in predict_videos(model, sorted(Path("videos").glob("*.mp4"))):
        ...     print(result.video, result.problem or result.prediction.label)
    """
    if options.action_units is not None and len(videos) > 1:
        raise PainseqError(
            f"The table of action units (--action-units) is that of one video, and {len(videos)} are given. Put each "
            "video's table beside it, under its name, or predict them one by one."
        )
    return (_predict(model, Path(video), options) for video in videos)


def _predict(model: PainModel, video: Path, options: VideoOptions) -> VideoResult:
    try:
        prediction = model.predict(
            video,
            options.start_s,
            options.end_s,
            options.locator,
            options.baseline,
            options.image_fps,
            options.action_units,
        )
    except PainseqError as error:
        return VideoResult(video, None, str(error))
    found = prediction.label is not None or prediction.value is not None
    return VideoResult(video, prediction, None if found else "no face found in any frame, so no prediction.")
