"""`PainModel`: a trained model, ready to predict videos."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from operator import add
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from painseq.batch import Batch, Moments
from painseq.data.normalisation import PersonScale
from painseq.data.streams import beside_cnn, check_recorded, rows_of_video, video_streams
from painseq.errors import PainseqError
from painseq.extractors import Extractor, Pixels
from painseq.extractors.frames import batch_features
from painseq.faces import FaceCrops, Locator
from painseq.faces.track import switch_warning
from painseq.features import ClipFeatures, VideoSpan, clip_features
from painseq.heads import Head
from painseq.model.decision import NO_PREDICTION, Decision, decide
from painseq.model.record import ModelRecord
from painseq.records import MIN_FACE_SHARE, check_min_face_share
from painseq.video import SHORT_DIGEST, video_digest
from painseq.video.generated import is_generated, other_faces_warning

MAX_PREFIXES, PREFIXES_AT_ONCE, FRAMES_AT_ONCE = 300, 16, 20_000
"""Limits of a video head's running probability: prefixes of a clip in total and per batch, frames per batch."""


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


class PainModel(nn.Module):
    """A trained model, ready to predict: extractor, head, face crop and sampling.

    Args:
        record: the model's record, as in its checkpoint.
        head: the fitted head.
        extractor: None for a model fitted on features of unknown origin, which cannot read videos.
        face: how faces are cropped; None for features of unknown origin.
    """

    def __init__(self, record: ModelRecord, head: Head, extractor: Extractor | None, face: FaceCrops | None) -> None:
        super().__init__()
        self.record = record
        self.head = head
        self.extractor = extractor
        self.face = face
        self.stream_identities = {stream.name: stream.identity for stream in record.streams}
        check_recorded(self.stream_identities)
        self.class_names = record.class_names
        self.streams = tuple(stream.name for stream in record.streams)
        self.scale = record.scale
        self.objective = record.objective
        self.fps = record.fps
        self.prior: Mapping[str, float] | None = None
        """The mix of classes that `with_prior` corrected for."""
        self.threshold = None if record.threshold is None else record.threshold.value
        """Tuned threshold of the second class's probability, before a correction by `with_prior`; None if none."""
        self.same_person: Mapping[str, Moments] = {}
        """Other videos of the person to predict, from `with_same_person`."""
        self.prior_shift: Tensor | None = None
        self.eval()

    @property
    def predicts_values(self) -> bool:
        """Whether the model predicts numbers on a scale, not classes."""
        return self.objective.predicts_values

    @property
    def device(self) -> torch.device:
        """Device of the weights; the CPU for a model without any."""
        tensors = chain(self.head.parameters(), self.head.buffers(), self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    @property
    def fitted_on(self) -> frozenset[str]:
        """Subjects that head and extractor were fitted on, as "data set/subject"."""
        return frozenset(self.record.fitted_on) | self.extractor_trained_on

    @property
    def extractor_trained_on(self) -> frozenset[str]:
        """Subjects that the extractor had been trained on before this fit, as "data set/subject"."""
        return frozenset(self.record.extractor_trained_on)

    @property
    def takes_crops(self) -> bool:
        """Whether the head takes crops, not features of an extractor."""
        return len(self.head.in_shape) == 3

    def forward(self, batch: Batch) -> Tensor:
        """Return class logits of a batch, for every loss for classes; numbers on the scale for a regression model.

        Args:
            batch: crops or features, on the device of the model.

        Returns:
            (B, T, K) for a frame head, (B, K) for a video head; K is 1 for a regression model.
        """
        return self.classify(batch_features(self.extractor, batch), batch.mask)

    def classify(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return class logits, or numbers on the scale, from features (B, T, *F); see `forward`."""
        predictions = self.unadjusted(features, mask)
        return predictions if self.prior_shift is None else predictions + self.prior_shift.to(predictions.device)

    def unadjusted(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return what `classify` returns, without the correction of `with_prior`."""
        return self.objective.predictions(self.head(features, mask))

    def without_threshold(self) -> PainModel:
        """Return the model with the usual rule of decision instead of its tuned threshold."""
        plain = copy.copy(self)
        plain.record, plain.threshold = replace(self.record, threshold=None), None
        return plain

    def with_prior(self, mix: Mapping[str, float]) -> PainModel:
        """Return the model adjusted to a population with another class distribution than the training data.

        Each class's probability is multiplied by its share in `mix` over its share in training, and all are rescaled
        to sum to 1 (Saerens et al. 2002, equation 4); for a frame head, in each frame. Class weights and balanced
        sampling count as equal shares in training. Labels of a tuned threshold do not change: it marks a point on the
        scale of the uncorrected probabilities, whose sensitivity and specificity do not depend on the mix.

        Args:
            mix: class name -> share; shares are scaled to sum to 1.

        Raises:
            PainseqError: other classes than the model's, shares that are not positive, or a regression model.
        """
        if self.predicts_values:
            raise PainseqError(
                f"This model predicts numbers ({self.scale}), not classes. Leave the mix of classes out."
            )
        if set(mix) != set(self.class_names) or not all(np.isfinite(v) and v > 0 for v in mix.values()):
            raise PainseqError(
                f"mix is {dict(mix)}; it must give a positive share for each of {', '.join(self.class_names)}."
            )
        target = torch.tensor([mix[name] for name in self.class_names], dtype=torch.float64)
        fitted = torch.tensor(self.record.train_prior, dtype=torch.float64)
        adjusted = copy.copy(self)
        adjusted.prior = dict(mix)
        adjusted.prior_shift = ((target / target.sum()).log() - (fitted / fitted.sum()).log()).float()
        return adjusted

    def with_same_person(
        self, videos: Sequence[str | Path], locator: Locator | None = None, image_fps: float | None = None
    ) -> PainModel:
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

    def person_scale(self, rows: Tensor) -> PersonScale:
        """Return what one person's features are normalised by, for a model of features normalised by subject.

        Args:
            rows: (N, D) features of the person's frames with a face, to which those of `with_same_person` are added.
        """
        return PersonScale.of(reduce(add, self.same_person.values(), Moments.of(rows)))

    @torch.inference_mode()
    def decide(self, batch: Batch) -> Decision:
        """Return labels and probabilities of a batch; for a classifier."""
        batch = batch.to(self.device)
        return self._decide(batch_features(self.extractor, batch), batch.mask)

    @torch.inference_mode()
    def estimate(self, batch: Batch) -> Tensor:
        """Return (B,) numbers within the scale, for a regression model; NaN for a clip without a face."""
        batch = batch.to(self.device)
        return self.objective.answer(self.head.level, self(batch), batch.mask)

    def _decide(self, features: Tensor, mask: Tensor) -> Decision:
        level, rule = self.head.level, self.objective.rule
        decision = decide(level, self.classify(features, mask), mask, rule, self.threshold)
        if self.threshold is None or self.prior is None:
            return decision
        uncorrected = decide(level, self.unadjusted(features, mask), mask, rule, self.threshold)
        return replace(decision, label=uncorrected.label)

    def read(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        locator: Locator | None = None,
        image_fps: float | None = None,
        action_units: Path | None = None,
    ) -> ClipFeatures:
        """Read a span of a video into the features of all streams, as the head takes them.

        Args:
            start_s: seconds from the first frame, inclusive.
            end_s: seconds from the first frame, exclusive; None is the end.
            locator: finds the face instead of the model's own locator.
            image_fps: images per second, if the video is a folder of images.
            action_units: table of the video, for a model fitted with action units; None: the CSV next to
                the video.

        Raises:
            PainseqError: the file cannot be read, or the model cannot read videos; a required table is missing, or a
                table is given that the model does not use; the table cannot be read, or covers another time.
        """
        extractor, face = self._extractor_and_face(locator)
        streams = video_streams(self.stream_identities, video, action_units, face.locator)
        span = VideoSpan(video, start_s, end_s, self.fps, image_fps)
        clip = clip_features(extractor, face, span, self.device)
        if beside_cnn(streams) and not clip.present.any():
            # Without a face the number of landmarks is unknown; all frames are masked anyway.
            return replace(clip, features=torch.zeros((len(clip), *self.record.in_shape)))
        return replace(clip, features=rows_of_video(streams, clip, video, start_s, image_fps))

    def crops(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        locator: Locator | None = None,
        image_fps: float | None = None,
    ) -> ClipFeatures:
        """Return the face crops of a span of a video, (T, 3, S, S) uint8, as the extractor takes them.

        Args:
            start_s: seconds from the first frame, inclusive.
            end_s: seconds from the first frame, exclusive; None is the end.
            locator: finds the face instead of the model's own locator.
            image_fps: images per second, if the video is a folder of images.

        Raises:
            PainseqError: the file cannot be read, or the model cannot read videos.
        """
        _, face = self._extractor_and_face(locator)
        span = VideoSpan(video, start_s, end_s, self.fps, image_fps)
        return clip_features(Pixels(face.size_px), face, span, "cpu")

    def _extractor_and_face(self, locator: Locator | None) -> tuple[Extractor, FaceCrops]:
        if self.extractor is None or self.face is None:
            raise PainseqError(
                "This model was fitted on features whose extractor is not recorded, so it cannot read videos. Fit it "
                "on a store written by `painseq extract`, or evaluate it on features."
            )
        return self.extractor, self.face if locator is None else self.face.with_locator(locator)

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
        clip = self._by_person(clip, baseline, locator, image_fps)
        prediction, fitted = self.predict_features(clip, video, locator), self.record.fitted_videos
        if self.record.by_person == "subject":
            prediction = replace(prediction, normalised_by=(str(video), *self.same_person))
        if not fitted:
            return prediction
        digest = video_digest(Path(video), image_fps)[:SHORT_DIGEST]
        return replace(prediction, fitted_on_video=digest in fitted)

    def predict_features(
        self, clip: ClipFeatures, video: str | Path, locator: Locator | None = None
    ) -> VideoPrediction:
        """Predict a video that is already read; see `predict`.

        Args:
            clip: features as returned by `read`; normalised by the person's own frames, if the model needs that.
            video: path or name of the video, for the result.
            locator: the locator that found the face, if not the model's own.
        """
        x, mask = clip.features[None].to(self.device).float(), clip.present[None].to(self.device)
        label, probabilities, value = NO_PREDICTION, torch.zeros(0), None
        with torch.inference_mode():
            if not self.predicts_values:
                decision = self._decide(x, mask)
                label, probabilities = int(decision.label[0]), decision.probabilities[0]
            elif bool(mask.any()):
                value = float(self.objective.answer(self.head.level, self.classify(x, mask), mask)[0])
            frames, rows = self._over_time(x, mask)
        _, face = self._extractor_and_face(locator)
        return VideoPrediction(
            video=str(video),
            label=None if label == NO_PREDICTION else self.class_names[label],
            probabilities={}
            if label == NO_PREDICTION
            else dict(zip(self.class_names, probabilities.tolist(), strict=True)),
            value=value,
            scale=self.objective.names[0] if self.predicts_values else None,
            frame_meaning="this frame" if self.head.level == "frame" else "the clip up to this frame",
            frame_times_s=clip.times_s[frames.cpu()].numpy(),
            frame_probabilities=np.zeros((len(frames), 0)) if self.predicts_values else rows.cpu().numpy(),
            frame_values=rows[:, 0].cpu().numpy() if self.predicts_values else np.zeros(0),
            frames=len(clip.present),
            faceless_times_s=clip.times_s[~clip.present].numpy(),
            backends={"video": clip.backend, "locator": type(face.locator).__name__, "device": str(self.device)},
            switched_s=clip.switched_s,
            threshold=self.threshold,
            generated=is_generated(Path(video)) if Path(video).exists() else None,
            fitted_on_generated=self.record.generated,
        )

    def _by_person(
        self, clip: ClipFeatures, baseline: str | Path | None, locator: Locator | None, image_fps: float | None
    ) -> ClipFeatures:
        by_person = self.record.by_person
        if by_person != "baseline" and baseline is not None:
            raise PainseqError("This model was fitted without a baseline. Leave the baseline out.")
        if by_person == "none":
            return clip
        if by_person == "subject":
            scale = self.person_scale(clip.features[clip.present])
            return replace(clip, features=scale.apply(clip.features, clip.present))
        if baseline is None:
            raise PainseqError(
                "This model was fitted on features relative to each subject's pain-free baseline, so it needs a video "
                "of this person without pain: baseline (command line: --baseline VIDEO)."
            )
        baseline_clip = self.read(Path(baseline), locator=locator, image_fps=image_fps)
        if not baseline_clip.present.any():
            raise PainseqError(f"{baseline}: no frame has a face, so it cannot be the baseline. Give another video.")
        scale = PersonScale.pain_free(baseline_clip.features[baseline_clip.present])
        return replace(clip, features=scale.apply(clip.features, clip.present))

    def _over_time(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame indices, and the probabilities (or the number) at each of them."""
        frames = mask[0].nonzero()[:, 0]
        if self.head.level == "frame":
            return frames, self.objective.shown(self.classify(x, mask)[0, frames])
        if len(frames) > MAX_PREFIXES:
            chosen = torch.linspace(0, len(frames) - 1, MAX_PREFIXES, device=frames.device).round().long()
            frames = frames[chosen]
        steps = torch.arange(mask.shape[1], device=mask.device)
        rows = torch.zeros((len(frames), len(self.objective.names)))
        # All prefixes of a long video do not fit in memory together.
        batch_size = max(1, min(PREFIXES_AT_ONCE, FRAMES_AT_ONCE // max(1, len(steps))))
        for first in range(0, len(frames), batch_size):
            until = frames[first : first + batch_size, None]
            end = int(until.max()) + 1
            prefix = (steps[:end] <= until) & mask[:, :end]
            predictions = self.classify(x[:, :end].expand(len(until), end, *x.shape[2:]), prefix)
            rows[first : first + batch_size] = self.objective.shown(predictions).cpu()
        return frames, rows
