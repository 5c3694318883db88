"""Prediction of several videos; an unreadable video does not stop the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from painseq.errors import CLIP_FAILURES, PainseqError, reason_of
from painseq.faces import Locator
from painseq.model.prediction import VideoPrediction
from painseq.model.predictor import Predictor
from painseq.records import MIN_FACE_SHARE, check_min_face_share


@dataclass(frozen=True)
class VideoOptions:
    """Span of each video, and how it is read; see `Predictor.predict`.

    Args:
        start_s: start of the span, in seconds from the first frame.
        end_s: end of the span, exclusive; None: the end of the video.
        locator: detects faces instead of the model's own locator; None: the model's own.
        baseline: video of the same subject without pain, for a model that needs one.
        image_fps: images per second, if a video is a folder of images.
        action_units: table of a single video's action units, for a model that needs one; None: the CSV next to each
            video.
        min_face_share: predictions are reported as doubtful if a smaller share of the frames has a face.
        same_person: further videos of the one person whom all the videos show, for a model of features normalised by
            subject; see `Predictor.with_same_person`.
        causal: crop as for a camera, without a look at later frames; see `Predictor.as_causal`.
    """

    start_s: float = 0.0
    end_s: float | None = None
    locator: Locator | None = None
    baseline: Path | None = None
    image_fps: float | None = None
    action_units: Path | None = None
    min_face_share: float = MIN_FACE_SHARE
    same_person: tuple[Path, ...] = ()
    causal: bool = False

    def __post_init__(self) -> None:
        check_min_face_share(self.min_face_share)


@dataclass(frozen=True)
class VideoResult:
    """The result of one video.

    Args:
        video: file or folder of images.
        prediction: the prediction; None if the video could not be read.
        problem: why there is no label or value; None if there is one.
    """

    video: Path
    prediction: VideoPrediction | None
    problem: str | None


@dataclass(frozen=True)
class ReadyModel:
    """A model, and the options that it uses.

    Args:
        name: name of the model, for results.
        model: the model, for one person or without look-ahead if the options say so.
        options: without what the model does not use.
    """

    name: str
    model: Predictor
    options: VideoOptions

    def predict(self, video: Path) -> VideoResult:
        """Predict a video; one that cannot be read is a result too."""
        options = self.options
        try:
            prediction = self.model.predict(
                video,
                options.start_s,
                options.end_s,
                options.locator,
                options.baseline,
                options.image_fps,
                options.action_units,
            )
        except CLIP_FAILURES as error:
            return VideoResult(video, None, reason_of(error))
        found = prediction.label is not None or prediction.value is not None
        prediction = replace(prediction, min_face_share=options.min_face_share)
        return VideoResult(video, prediction, None if found else "no face found in any frame, so no prediction.")


def ready_models(models: Mapping[str, Predictor], options: VideoOptions, videos: int) -> list[ReadyModel]:
    """Give each model the options that it uses (`action_units`, `baseline`, `same_person` are of some models only).

    Args:
        models: name -> model.
        videos: number of videos.

    Raises:
        PainseqError: `action_units` is given for several videos; `same_person` cannot be read; an option that none of
            the models uses.
    """
    if options.action_units is not None and videos > 1:
        raise PainseqError(
            f"action_units (command line: --action-units) is the table of one video, but {videos} are given. Put each "
            "table next to its video, with the same name, or predict them one by one."
        )
    tables = any("action_units" in model.streams for model in models.values())
    steps = {model.record.by_person for model in models.values()}
    ready = []
    for name, model in models.items():
        step = model.record.by_person
        # Where no model uses an option it is left in, since the model's own error says what is wrong.
        of_model = replace(
            options,
            action_units=options.action_units if "action_units" in model.streams or not tables else None,
            baseline=options.baseline if step == "baseline" or "baseline" not in steps else None,
            same_person=options.same_person if step == "subject" or "subject" not in steps else (),
        )
        own = model.as_causal() if options.causal else model
        if of_model.same_person:
            own = own.with_same_person(of_model.same_person, of_model.locator, of_model.image_fps)
        ready.append(ReadyModel(name, own, of_model))
    return ready


def predict_videos(
    model: Predictor, videos: Sequence[str | Path], options: VideoOptions = VideoOptions()
) -> Iterator[VideoResult]:
    """Predict videos one by one, in order.

    Yields:
        The result of each video, as soon as it is predicted.

    Raises:
        PainseqError: `action_units` is given for several videos; `same_person` cannot be read, or the model does not
            normalise by subject.

    Example:
        >>> for result in predict_videos(model, sorted(Path("videos").glob("*.mp4"))):
        ...     print(result.video, result.problem or result.prediction.label)
    """
    (ready,) = ready_models({"": model}, options, len(videos))
    return (ready.predict(Path(video)) for video in videos)


def predict_models(
    models: Mapping[str, Predictor], videos: Sequence[str | Path], options: VideoOptions = VideoOptions()
) -> Iterator[tuple[str, VideoResult]]:
    """Predict videos with several models, each video with all of them before the next.

    Args:
        models: name -> model.

    Yields:
        Name of the model, and the result of a video.

    Raises:
        PainseqError: see `ready_models`.
    """
    ready = ready_models(models, options, len(videos))
    return ((each.name, each.predict(Path(video))) for video in videos for each in ready)
