"""`Predictor`: what every model that predicts videos offers, fitted or exported. Needs no torch."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from painseq.data.person_scale import PersonScale
from painseq.data.streams import ClipRows, beside_cnn, check_recorded, rows_of_video, video_streams
from painseq.errors import PainseqError
from painseq.faces import FaceCrops, Locator
from painseq.faces.crops import CropChunk
from painseq.model.prediction import NO_PREDICTION, Answer, VideoPrediction
from painseq.model.record import ModelRecord
from painseq.moments import Moments
from painseq.video import SHORT_DIGEST, video_digest
from painseq.video.generated import is_generated
from painseq.video.sampling import no_frames_error

MAX_PREFIXES, PREFIXES_AT_ONCE, FRAMES_AT_ONCE, BYTES_AT_ONCE = 300, 16, 20_000, 64 * 2**20
"""Limits of a video head's running probability: prefixes of a clip in total; prefixes, frames and bytes per batch."""
CROPS_AT_ONCE = 8
"""Frames that are read, and passed to the extractor, at a time."""

State = dict[str, NDArray[np.float32]]
"""What a head that goes frame by frame carries on: name -> (B, ...)."""


class Predictor(ABC):
    """A model that predicts videos: reading, normalising and predicting stand here; networks, in the classes below it.

    `PainModel` runs its networks with torch, `painseq.runtime.ExportedModel` with ONNX.

    Args:
        record: the model's record.
        face: how faces are cropped; None for features of unknown origin, with which no video can be read.

    Raises:
        PainseqError: a stream of the record is defined differently now.
    """

    def __init__(self, record: ModelRecord, face: FaceCrops | None) -> None:
        self.record = record
        self.face = face
        self.stream_identities = {stream.name: stream.identity for stream in record.streams}
        check_recorded(self.stream_identities)
        self.class_names = record.class_names
        self.streams = tuple(stream.name for stream in record.streams)
        self.scale = record.scale
        self.fps = record.fps
        self.prior: Mapping[str, float] | None = None
        """The mix of classes that probabilities are corrected for."""
        self.threshold = None if record.threshold is None else record.threshold.value
        """Tuned threshold of the second class's probability, before a correction for a mix of classes; None if none."""
        self.same_person: Mapping[str, Moments] = {}
        """Other videos of the person to predict, from `with_same_person`."""

    @property
    @abstractmethod
    def level(self) -> Literal["frame", "video"]:
        """Whether the head says something of each frame, or of the clip as a whole."""

    @property
    @abstractmethod
    def engines(self) -> Mapping[str, str]:
        """What runs the networks, for `VideoPrediction.backends`."""

    @abstractmethod
    def features(self, crops: NDArray[np.uint8]) -> NDArray[Any]:
        """Run the extractor alone.

        Args:
            crops: (N, 3, S, S) uint8, N >= 1.

        Returns:
            (N, *F) float32; the crops themselves if the head takes crops.

        Raises:
            PainseqError: the model has no extractor.
        """

    @abstractmethod
    def answer(self, rows: NDArray[Any], mask: NDArray[np.bool_]) -> Answer:
        """Run the head, on rows of all streams that are normalised by person already.

        Args:
            rows: (B, T, *F) float32, or uint8 crops if the head takes crops; whatever stands in masked frames does not
                matter.
            mask: (B, T) bool, true for a frame with a face.
        """

    @property
    def max_frames(self) -> int | None:
        """Largest number of frames of a clip that the head takes; None for no limit."""
        return None

    @property
    def steps(self) -> bool:
        """Whether the head can go frame by frame, see `step`."""
        return False

    def first_state(self, batch: int = 1) -> State:
        """Return the state before the first frame of `batch` clips.

        Raises:
            PainseqError: the head takes whole clips only.
        """
        raise no_steps_error(self.record)

    def step(self, rows: NDArray[np.float32], state: State) -> tuple[Answer, State]:
        """Take one more frame of each of B clips; frames without a face are not given.

        Args:
            rows: (B, *F) float32, normalised as in `answer`.
            state: as `first_state` or the last step returned it; it is not changed.

        Returns:
            The answer that the clip up to this frame would get, and the state after it.

        Raises:
            PainseqError: the head takes whole clips only.
        """
        raise no_steps_error(self.record)

    @property
    def predicts_values(self) -> bool:
        """Whether the model predicts numbers on a scale, not classes."""
        return self.scale is not None

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one frame, all streams together, as the head takes it."""
        return self.record.in_shape

    @property
    def takes_crops(self) -> bool:
        """Whether the head takes crops, not features of an extractor."""
        return len(self.in_shape) == 3

    def face_crops(self, locator: Locator | None = None) -> FaceCrops:
        """Return how faces are cropped, with another locator than the model's own if one is given.

        Raises:
            PainseqError: the model was fitted on features of unknown origin.
        """
        if self.face is None:
            raise no_videos_error()
        return self.face if locator is None else self.face.with_locator(locator)

    def as_causal(self) -> Self:
        """Return the model with crops that look at no later frame, as from a camera: `FaceCrops.as_causal`.

        Raises:
            PainseqError: the model was fitted on features of unknown origin.
        """
        causal = copy.copy(self)
        causal.face = self.face_crops().as_causal()
        return causal

    def with_same_person(
        self, videos: Sequence[str | Path], locator: Locator | None = None, image_fps: float | None = None
    ) -> Self:
        """Return the model for one person, whose features are normalised by these videos besides the predicted one.

        For a model of features normalised by subject. The more different moments of the person they show, the closer
        the features are to those of the fit; labels are not needed.

        Args:
            videos: other videos of the person, each used as a whole.
            locator: finds the face instead of the model's own locator.
            image_fps: images per second, if a video is a folder of images.

        Raises:
            PainseqError: the model does not normalise by subject; a video cannot be read, or shows no face.
        """
        if self.record.by_person != "subject":
            raise PainseqError(
                "This model was not fitted on features normalised by subject, so other videos of the same person do "
                "not matter. Leave same_person out."
            )
        same_person = {}
        for video in videos:
            clip = self.read(Path(video), locator=locator, image_fps=image_fps)
            if not clip.present.any():
                raise PainseqError(f"{video}: no frame has a face, so it says nothing of the person. Leave it out.")
            same_person[str(video)] = Moments.of(clip.features[clip.present])
        adjusted = copy.copy(self)
        adjusted.same_person = same_person
        return adjusted

    def person_scale(self, rows: NDArray[Any]) -> PersonScale:
        """Return what one person's features are normalised by, for a model of features normalised by subject.

        Args:
            rows: (N, D) features of the person's frames with a face, to which those of `with_same_person` are added.
        """
        return PersonScale.of(reduce(add, self.same_person.values(), Moments.of(rows)))

    def read(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        locator: Locator | None = None,
        image_fps: float | None = None,
        action_units: Path | None = None,
    ) -> ClipRows:
        """Read a span of a video into the features of all streams, as the head takes them but for `by_person`.

        Args:
            start_s: seconds from the first frame, inclusive.
            end_s: seconds from the first frame, exclusive; None is the end.
            locator: finds the face instead of the model's own locator.
            image_fps: images per second, if the video is a folder of images.
            action_units: table of the video, for a model fitted with action units; None: the CSV next to
                the video.

        Raises:
            PainseqError: the file cannot be read, or the model cannot read videos; a required table is missing, or a
                table is given that the model does not use; the table cannot be read, or covers another time; the
                locator finds other landmarks than the model takes.
        """
        face = self.face_crops(locator)
        streams = video_streams(self.stream_identities, video, action_units, face.locator)
        clip = self._extracted(face, video, start_s, end_s, image_fps)
        if beside_cnn(streams) and not clip.present.any():
            # Without a face the number of landmarks is unknown; all frames are masked anyway.
            return replace(clip, features=np.zeros((len(clip), *self.in_shape), np.float32))
        rows = rows_of_video(streams, clip, video, start_s, image_fps)
        if clip.present.any() and rows.shape[1:] != self.in_shape:
            raise PainseqError(
                f"{video}: with the locator {type(face.locator).__name__} a frame has features of the shape "
                f"{rows.shape[1:]}, but the model takes {self.in_shape}. Use the locator that it was fitted with, or "
                "one that finds the same landmarks."
            )
        return replace(clip, features=rows)

    def _extracted(
        self, face: FaceCrops, video: Path, start_s: float, end_s: float | None, image_fps: float | None
    ) -> ClipRows:
        """Return the extractor's features of a span, zero where there is no face; or no columns."""
        chunks: list[CropChunk] = []
        parts = []
        for chunk in face.clip(video, start_s, end_s, self.fps, CROPS_AT_ONCE, image_fps):
            if "cnn" in self.streams and chunk.present.any():
                parts.append(self.features(chunk.crops[chunk.present]))
            chunks.append(replace(chunk, crops=chunk.crops[:0]))  # They would grow with the clip.
        if not chunks:
            raise no_frames_error(video, start_s, end_s)
        present = np.concatenate([chunk.present for chunk in chunks])
        shape = parts[0].shape[1:] if parts else self.in_shape if "cnn" in self.streams else (0,)
        features = np.zeros((len(present), *shape), parts[0].dtype if parts else np.float32)
        if parts:
            features[present] = np.concatenate(parts)
        return ClipRows(
            features,
            present,
            np.concatenate([chunk.times_s for chunk in chunks]),
            _landmarks(chunks),
            chunks[0].backend,
            tuple(time_s for chunk in chunks for time_s in chunk.switched_s),
        )

    def predict(
        self,
        video: str | Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        locator: Locator | None = None,
        baseline: str | Path | None = None,
        image_fps: float | None = None,
        action_units: Path | None = None,
    ) -> VideoPrediction:
        """Predict a span of a video file or of a folder of images (default: the whole video).

        Args:
            video: the video file, or a folder of images.
            start_s: seconds from the first frame, inclusive.
            end_s: seconds from the first frame, exclusive; None is the end.
            locator: finds the face instead of the model's own locator (a model fitted on stored face boxes needs
                another one for new videos).
            baseline: a whole video of the same person without pain; required by a model fitted on features relative
                to each subject's baseline. (For features normalised by subject, see `with_same_person`.)
            image_fps: images per second, if video or baseline is a folder of images.
            action_units: table of the video, for a model fitted with action units; None: the CSV next to
                the video. The table of the baseline must be next to it.

        Raises:
            PainseqError: the file cannot be read, no frame lies in the span, or a baseline is missing or not needed;
                see also `read`.
        """
        clip = self.read(Path(video), start_s, end_s, locator, image_fps, action_units)
        clip = self.by_person(clip, baseline, locator, image_fps)
        prediction, fitted = self.predict_rows(clip, video, locator), self.record.fitted_videos
        if self.record.by_person == "subject":
            prediction = replace(prediction, normalised_by=(str(video), *self.same_person))
        if not fitted:
            return prediction
        digest = video_digest(Path(video), image_fps)[:SHORT_DIGEST]
        return replace(prediction, fitted_on_video=digest in fitted)

    def by_person(
        self,
        clip: ClipRows,
        baseline: str | Path | None = None,
        locator: Locator | None = None,
        image_fps: float | None = None,
    ) -> ClipRows:
        """Normalise what `read` returned by the person's own frames, if the model needs that; see `predict`."""
        by_person = self.record.by_person
        if by_person != "baseline" and baseline is not None:
            raise PainseqError("This model was fitted without a baseline. Leave the baseline out.")
        if by_person == "none":
            return clip
        if by_person == "subject":
            scale = self.person_scale(clip.features[clip.present])
        elif baseline is None:
            raise PainseqError(
                "This model was fitted on features relative to each subject's pain-free baseline, so it needs a video "
                "of this person without pain: baseline (command line: --baseline VIDEO)."
            )
        else:
            scale = self.pain_free(Path(baseline), locator, image_fps)
        return replace(clip, features=scale.apply(clip.features, clip.present))

    def pain_free(self, baseline: Path, locator: Locator | None = None, image_fps: float | None = None) -> PersonScale:
        """Return what the features of a person are relative to, from a video without pain.

        Raises:
            PainseqError: it cannot be read, or shows no face.
        """
        rest = self.read(baseline, locator=locator, image_fps=image_fps)
        if not rest.present.any():
            raise PainseqError(f"{baseline}: no frame has a face, so it cannot be the baseline. Give another video.")
        return PersonScale.pain_free(rest.features[rest.present])

    def predict_rows(self, clip: ClipRows, video: str | Path, locator: Locator | None = None) -> VideoPrediction:
        """Predict a video that is already read; see `predict`.

        Args:
            clip: rows as returned by `read`; normalised by the person's own frames, if the model needs that.
            video: path or name of the video, for the result.
            locator: the locator that found the face, if not the model's own.

        Raises:
            PainseqError: the clip is longer than the head takes.
        """
        if self.max_frames is not None and len(clip) > self.max_frames:
            raise too_long_error(self.max_frames, len(clip))
        rows, mask = clip.features[None], clip.present[None]
        answer = self.answer(rows, mask)
        label = NO_PREDICTION if answer.label is None else int(answer.label[0])
        found: dict[str, float] = {}
        if label != NO_PREDICTION and answer.probabilities is not None:
            found = dict(zip(self.class_names, answer.probabilities[0].tolist(), strict=True))
        frames, over_time = self._over_time(rows, mask, answer)
        classes = not self.predicts_values
        return VideoPrediction(
            video=str(video),
            label=None if label == NO_PREDICTION else self.class_names[label],
            probabilities=found,
            value=float(answer.value[0]) if answer.value is not None and mask.any() else None,
            scale=None if self.scale is None else self.scale.name,
            frame_meaning="this frame" if self.level == "frame" else "the clip up to this frame",
            frame_times_s=clip.times_s[frames],
            frame_probabilities=over_time if classes else np.zeros((len(frames), 0)),
            frame_values=np.zeros(0) if classes else over_time[:, 0],
            frames=len(clip),
            faceless_times_s=clip.times_s[~clip.present],
            backends={
                "video": clip.backend,
                "locator": type(self.face_crops(locator).locator).__name__,
                **self.engines,
            },
            switched_s=clip.switched_s,
            threshold=self.threshold,
            generated=is_generated(Path(video)) if Path(video).exists() else None,
            fitted_on_generated=self.record.generated,
        )

    def _over_time(
        self, rows: NDArray[Any], mask: NDArray[np.bool_], answer: Answer
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return frame indices, and the probabilities (or the number) at each of them."""
        frames = np.flatnonzero(mask[0])
        if self.level == "frame":
            return frames, _shown(answer, of_frames=True)[0, frames]
        if len(frames) > MAX_PREFIXES:
            frames = frames[np.linspace(0, len(frames) - 1, MAX_PREFIXES).round().astype(np.int64)]
        # All prefixes of a long video do not fit in memory together.
        length, row_bytes = mask.shape[1], max(1, rows.nbytes)
        at_once = max(1, min(PREFIXES_AT_ONCE, FRAMES_AT_ONCE // max(1, length), BYTES_AT_ONCE // row_bytes))
        shown = [np.zeros((0, max(1, len(self.class_names))), np.float32)]
        for first in range(0, len(frames), at_once):
            until = frames[first : first + at_once, None]
            end = int(until.max()) + 1
            prefix = (np.arange(end) <= until) & mask[:, :end]
            shown.append(_shown(self.answer(np.repeat(rows[:, :end], len(until), axis=0), prefix)))
        return frames, np.concatenate(shown)


def _shown(answer: Answer, of_frames: bool = False) -> NDArray[np.float32]:
    """Return (B, K) probabilities, or (B, 1) values; of frames (B, T, K) or (B, T, 1)."""
    found = answer.frame_probabilities if of_frames else answer.probabilities
    if found is not None:
        return found
    values = answer.frame_values if of_frames else answer.value
    assert values is not None
    return values[..., None]


def _landmarks(chunks: Sequence[CropChunk]) -> NDArray[np.float32] | None:
    """Return the landmarks of all frames; chunks without a face may have none, and get NaN."""
    known = next((chunk.landmarks.shape[1:] for chunk in chunks if chunk.landmarks is not None), None)
    if known is None:
        return None
    return np.concatenate(
        [
            np.full((len(chunk), *known), np.nan, np.float32) if chunk.landmarks is None else chunk.landmarks
            for chunk in chunks
        ]
    )


def no_videos_error() -> PainseqError:
    """Return the error for a model that cannot read videos."""
    return PainseqError(
        "This model was fitted on features whose extractor is not recorded, so it cannot read videos. Fit it on a "
        "store written by `painseq extract`, or evaluate it on features."
    )


def too_long_error(longest: int, frames: int) -> PainseqError:
    """Return the error for a clip of more frames than the head takes."""
    return PainseqError(
        f"The model takes clips of at most {longest} frames, but this one has {frames}. Predict a shorter span "
        "(command line: --start-s, --end-s)."
    )


def no_steps_error(record: ModelRecord) -> PainseqError:
    """Return the error for a head that cannot go frame by frame."""
    return PainseqError(
        f"The head {record.head.get('class_path')} takes whole clips and cannot go frame by frame. Predict whole "
        "clips, or fit a head that can, such as painseq.heads.LSTM."
    )
