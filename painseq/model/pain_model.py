"""`PainModel`: a trained model, ready to predict videos."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from painseq.batch import Batch
from painseq.data.streams import beside_cnn, check_recorded, rows_of_video, video_streams
from painseq.errors import PainseqError
from painseq.extractors import Extractor, Pixels
from painseq.extractors.frames import batch_features
from painseq.faces import FaceCrops, Locator
from painseq.features import ClipFeatures, VideoSpan, clip_features
from painseq.heads import Head
from painseq.model.decision import NO_PREDICTION, Decision, decide
from painseq.model.record import ModelRecord

MOST_PREFIXES, PREFIXES_AT_ONCE, FRAMES_AT_ONCE = 300, 16, 20_000
"""At how many moments, at most, a video head's running probability is computed, and how many of them together."""


@dataclass(frozen=True)
class VideoPrediction:
    """What a model says of one video.

    Args:
        video: the file.
        label: a class name, or None where no frame has a face, and for a model of a scale.
        probabilities: class name -> probability; empty without a label.
        value: a number on the model's scale; None where no frame has a face, and for a model of classes.
        scale: what the number is, e.g. "pspi"; None for a model of classes.
        frame_times_s: (T',) moments of the rows below, seconds from the start of the span.
        frame_probabilities: (T', K). Of each frame for a frame head; of the clip up to that moment for a video head
            (`frame_meaning` says which). K is 0 for a model of a scale.
        frame_values: (T',) likewise, on the scale; empty for a model of classes.
        frames: sampled frames.
        faceless_times_s: moments of the frames without a face.
        backends: which video reader, locator and device were used.
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

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        said: dict[str, object]
        if self.scale:
            said = {
                "value": self.value,
                "scale": self.scale,
                "frame_values": [round(float(number), 6) for number in self.frame_values],
            }
        else:
            said = {
                "label": self.label,
                "probabilities": dict(self.probabilities),
                "frame_probabilities": [[round(float(p), 6) for p in row] for row in self.frame_probabilities],
            }
        return {
            "video": self.video,
            **said,
            "frames": self.frames,
            "faceless_frames": len(self.faceless_times_s),
            "faceless_times_s": [round(float(t), 4) for t in self.faceless_times_s],
            "frame_meaning": self.frame_meaning,
            "frame_times_s": [round(float(t), 4) for t in self.frame_times_s],
            "backends": dict(self.backends),
        }


class PainModel(nn.Module):
    """A trained model, ready to predict: extractor, head, and how faces and frames were taken.

    Args:
        record: what the checkpoint says of it.
        extractor: None for a model fitted on features of unknown origin; it cannot read videos.
        face: how faces are cropped; None likewise.
    """

    def __init__(self, record: ModelRecord, head: Head, extractor: Extractor | None, face: FaceCrops | None) -> None:
        super().__init__()
        self.record = record
        self.head = head
        self.extractor = extractor
        self.face = face
        check_recorded({stream.name: stream.identity for stream in record.streams})
        self.class_names = record.class_names
        self.streams = tuple(stream.name for stream in record.streams)
        self.scale = record.scale
        self.objective = record.objective
        self.fps = record.fps
        self.prior: Mapping[str, float] | None = None
        """The mix of classes that `with_prior` corrected for."""
        self.prior_shift: Tensor | None = None
        self.eval()

    @property
    def predicts_values(self) -> bool:
        """Whether it predicts numbers on its scale, not classes."""
        return self.objective.predicts_values

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(chain(self.head.parameters(), self.head.buffers())).device

    @property
    def fitted_on(self) -> frozenset[str]:
        """Whom head and extractor have seen, as "data set/subject"."""
        return frozenset(self.record.fitted_on) | self.extractor_trained_on

    @property
    def extractor_trained_on(self) -> frozenset[str]:
        """Whom the extractor had seen before this fit, as "data set/subject"."""
        return frozenset(self.record.extractor_trained_on)

    @property
    def takes_crops(self) -> bool:
        """Whether the head looks at the crops themselves, not at what an extractor makes of them."""
        return len(self.head.in_shape) == 3

    def forward(self, batch: Batch) -> Tensor:
        """Class logits of a batch, whatever loss the head was fitted with; numbers on the scale, if the model has one.

        Args:
            batch: crops, or features, on the device of the model.

        Returns:
            (B, T, K) for a frame head, (B, K) for a video head; K is 1 with a scale.
        """
        return self.classify(batch_features(self.extractor, batch), batch.mask)

    def classify(self, features: Tensor, mask: Tensor) -> Tensor:
        """Class logits, or numbers on the scale, from features, (B, T, *F); see `forward`."""
        predictions = self.objective.predictions(self.head(features, mask))
        return predictions if self.prior_shift is None else predictions + self.prior_shift.to(predictions.device)

    def with_prior(self, mix: Mapping[str, float]) -> PainModel:
        """The same model for people among whom the classes have another mix than in training.

        Each class's probability is multiplied by its share in `mix` over its share in training, and all are scaled to
        sum to 1 again (Saerens et al. 2002, equation 4); for a frame head, in each frame. Class weights and balanced
        drawing count as equal shares in training.

        Args:
            mix: class name -> share; they are scaled to sum to 1.

        Raises:
            PainseqError: not the model's classes, or shares that are not positive; a model of a scale.
        """
        if self.predicts_values:
            raise PainseqError(f"This model says numbers ({self.scale}), not classes. Leave the mix of classes out.")
        if set(mix) != set(self.class_names) or not all(np.isfinite(v) and v > 0 for v in mix.values()):
            raise PainseqError(
                f"The stated mix is {dict(mix)}; it needs a positive share for each of {', '.join(self.class_names)}."
            )
        stated = torch.tensor([mix[name] for name in self.class_names], dtype=torch.float64)
        fitted = torch.tensor(self.record.train_prior, dtype=torch.float64)
        again = copy.copy(self)
        again.prior = dict(mix)
        again.prior_shift = ((stated / stated.sum()).log() - (fitted / fitted.sum()).log()).float()
        return again

    @torch.inference_mode()
    def decide(self, batch: Batch) -> Decision:
        """Labels and probabilities of a batch; for a model of classes."""
        batch = batch.to(self.device)
        return self._decide(self(batch), batch.mask)

    @torch.inference_mode()
    def estimate(self, batch: Batch) -> Tensor:
        """(B,) numbers on the scale, held within its ends; NaN for a clip without a real frame."""
        batch = batch.to(self.device)
        return self.objective.answer(self.head.level, self(batch), batch.mask)

    def _decide(self, logits: Tensor, mask: Tensor) -> Decision:
        return decide(self.head.level, logits, mask, self.objective.rule)

    def read(
        self,
        video: Path,
        start_s: float = 0.0,
        end_s: float | None = None,
        locator: Locator | None = None,
        image_fps: float | None = None,
        action_units: Path | None = None,
    ) -> ClipFeatures:
        """What the head is given of a span of a video, as this model was fitted on: the features of all streams.

        Args:
            image_fps: images a second, where the video is a folder of them.
            action_units: OpenFace's table of the video, for a model fitted with action units; None: the CSV beside the
                video.

        Raises:
            PainseqError: the file cannot be read, or the model cannot read videos; the model needs a table and there is
                none, or needs none and is given one; the table cannot be read, or tells of another time.
        """
        extractor, face = self._eyes(locator)
        streams = video_streams(self.streams, video, action_units)
        span = VideoSpan(video, start_s, end_s, self.fps, image_fps)
        clip = clip_features(extractor, face, span, self.device)
        if beside_cnn(streams) and not clip.present.any():
            # Where no face was found, nothing tells how many landmarks there would be; all frames are masked anyway.
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
        """The face crops of a span of a video, (T, 3, S, S) uint8, as the extractor sees them.

        Args:
            image_fps: images a second, where the video is a folder of them.

        Raises:
            PainseqError: the file cannot be read, or the model cannot read videos.
        """
        _, face = self._eyes(locator)
        span = VideoSpan(video, start_s, end_s, self.fps, image_fps)
        return clip_features(Pixels(face.size_px), face, span, "cpu")

    def _eyes(self, locator: Locator | None) -> tuple[Extractor, FaceCrops]:
        if self.extractor is None or self.face is None:
            raise PainseqError(
                "This model was fitted on features whose extractor is not recorded, so it cannot read videos. Fit it "
                "on a store that `painseq extract` wrote, or score it on features."
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
        """Predict a span of a video file, or of a folder of images (default: all of it).

        Args:
            start_s: seconds from the first frame shown.
            end_s: exclusive; None is the end.
            locator: finds the face instead of the one that the model was fitted with (a model fitted on boxes
                stored beside its videos needs another for yours).
            baseline: a video of the same person without pain, all of which is used; needed by a model that was fitted
                on features relative to each subject's own.
            image_fps: images a second, where video or baseline is a folder of them.
            action_units: OpenFace's table of the video, for a model fitted with action units; None: the CSV beside the
                video. The baseline's lies beside it.

        Raises:
            PainseqError: the file cannot be read, no frame lies in the span, a baseline is missing or in vain; see
                `read` too.
        """
        clip = self.read(Path(video), start_s, end_s, locator, image_fps, action_units)
        clip = self._relative(clip, baseline, locator, image_fps)
        return self.predict_features(clip, video, locator)

    def predict_features(
        self, clip: ClipFeatures, video: str | Path, locator: Locator | None = None
    ) -> VideoPrediction:
        """What `predict` says of a video that is read already.

        Args:
            clip: what the head is given, see `read`; relative to a baseline, if the model needs one.
            video: where it comes from.
            locator: which found the face instead of the model's own.
        """
        x, mask = clip.features[None].to(self.device).float(), clip.present[None].to(self.device)
        label, probabilities, value = NO_PREDICTION, torch.zeros(0), None
        with torch.inference_mode():
            said = self.classify(x, mask)
            if not self.predicts_values:
                decision = self._decide(said, mask)
                label, probabilities = int(decision.label[0]), decision.probabilities[0]
            elif bool(mask.any()):
                value = float(self.objective.answer(self.head.level, said, mask)[0])
            moments, rows = self._over_time(x, mask)
        _, face = self._eyes(locator)
        return VideoPrediction(
            video=str(video),
            label=None if label == NO_PREDICTION else self.class_names[label],
            probabilities={}
            if label == NO_PREDICTION
            else dict(zip(self.class_names, probabilities.tolist(), strict=True)),
            value=value,
            scale=self.objective.names[0] if self.predicts_values else None,
            frame_meaning="this frame" if self.head.level == "frame" else "the clip up to this frame",
            frame_times_s=clip.times_s[moments.cpu()].numpy(),
            frame_probabilities=np.zeros((len(moments), 0)) if self.predicts_values else rows.cpu().numpy(),
            frame_values=rows[:, 0].cpu().numpy() if self.predicts_values else np.zeros(0),
            frames=len(clip.present),
            faceless_times_s=clip.times_s[~clip.present].numpy(),
            backends={"video": clip.backend, "locator": type(face.locator).__name__, "device": str(self.device)},
        )

    def _relative(
        self, clip: ClipFeatures, baseline: str | Path | None, locator: Locator | None, image_fps: float | None
    ) -> ClipFeatures:
        if not self.record.baseline_clips:
            if baseline is not None:
                raise PainseqError("This model was fitted on features as they are. Leave the baseline out.")
            return clip
        if baseline is None:
            raise PainseqError(
                "This model was fitted on features relative to each subject's own without pain, so it needs a video of "
                "this person without pain (painseq predict --baseline VIDEO)."
            )
        calm = self.read(Path(baseline), locator=locator, image_fps=image_fps)
        if not calm.present.any():
            raise PainseqError(f"{baseline}: no face found in any frame, so it is no baseline.")
        neutral = calm.features[calm.present].float().mean(dim=0)
        return replace(clip, features=torch.where(clip.present[:, None], clip.features.float() - neutral, 0.0))

    def _over_time(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Moments, and rows of probabilities (or of one number) at each of them."""
        moments = mask[0].nonzero()[:, 0]
        if self.head.level == "frame":
            return moments, self.objective.shown(self.classify(x, mask)[0, moments])
        if len(moments) > MOST_PREFIXES:
            chosen = torch.linspace(0, len(moments) - 1, MOST_PREFIXES, device=moments.device).round().long()
            moments = moments[chosen]
        steps = torch.arange(mask.shape[1], device=mask.device)
        rows = torch.zeros((len(moments), len(self.objective.names)))
        # A long video's prefixes, each with all its frames, do not fit in memory together.
        together = max(1, min(PREFIXES_AT_ONCE, FRAMES_AT_ONCE // max(1, len(steps))))
        for first in range(0, len(moments), together):
            until = moments[first : first + together, None]
            end = int(until.max()) + 1
            prefix = (steps[:end] <= until) & mask[:, :end]
            said = self.classify(x[:, :end].expand(len(until), end, *x.shape[2:]), prefix)
            rows[first : first + together] = self.objective.shown(said).cpu()
        return moments, rows
