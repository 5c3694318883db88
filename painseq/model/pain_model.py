"""`PainModel`: a trained model, ready to predict videos."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from painseq.batch import Batch
from painseq.errors import PainseqError
from painseq.extractors import Extractor, Pixels
from painseq.extractors.frames import batch_features
from painseq.faces import FaceCrops, Locator
from painseq.features import ClipFeatures, VideoSpan, clip_features
from painseq.features.network import Network
from painseq.heads import Head
from painseq.model.decision import Decision, decide
from painseq.model.prediction import Answer
from painseq.model.predictor import Predictor, State, no_steps_error, no_videos_error
from painseq.model.record import ModelRecord


class PainModel(nn.Module, Predictor):
    """A trained model, ready to predict: extractor, head, face crop and sampling.

    Args:
        record: the model's record, as in its checkpoint.
        head: the fitted head.
        extractor: None for a model fitted on features of unknown origin, which cannot read videos.
        face: how faces are cropped; None for features of unknown origin.
    """

    def __init__(self, record: ModelRecord, head: Head, extractor: Extractor | None, face: FaceCrops | None) -> None:
        nn.Module.__init__(self)
        Predictor.__init__(self, record, face)
        self.head = head
        self.extractor = extractor
        self.objective = record.objective
        self.prior: Mapping[str, float] | None = None
        """The mix of classes that `with_prior` corrected for."""
        self.prior_shift: Tensor | None = None
        self.eval()

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
    def level(self) -> Literal["frame", "video"]:
        """Level of the head."""
        return self.head.level

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one frame, as the head takes it."""
        return self.head.in_shape

    @property
    def engines(self) -> Mapping[str, str]:
        """The device, as a prediction tells of it."""
        return {"device": str(self.device)}

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
        return self.adjusted(self.unadjusted(features, mask))

    def unadjusted(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return what `classify` returns, without the correction of `with_prior`."""
        return self.objective.predictions(self.head(features, mask))

    def adjusted(self, predictions: Tensor) -> Tensor:
        """Correct class logits for the mix of classes of `with_prior`."""
        return predictions if self.prior_shift is None else predictions + self.prior_shift.to(predictions.device)

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

    @torch.inference_mode()
    def decide(self, batch: Batch) -> Decision:
        """Return labels and probabilities of a batch; for a classifier."""
        batch = batch.to(self.device)
        return self._decide(*self._predictions(batch_features(self.extractor, batch), batch.mask), batch.mask)

    @torch.inference_mode()
    def estimate(self, batch: Batch) -> Tensor:
        """Return (B,) numbers within the scale, for a regression model; NaN for a clip without a face."""
        batch = batch.to(self.device)
        return self.objective.answer(self.head.level, self(batch), batch.mask)

    def _predictions(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `classify` and `unadjusted` return; the latter only if it decides."""
        predictions = self.classify(features, mask)
        decides = self.threshold is not None and self.prior is not None
        return predictions, self.unadjusted(features, mask) if decides else predictions

    def _decide(self, predictions: Tensor, unadjusted: Tensor, mask: Tensor) -> Decision:
        level, rule = self.head.level, self.objective.rule
        decision = decide(level, predictions, mask, rule, self.threshold)
        if self.threshold is None or self.prior is None:
            return decision
        return replace(decision, label=decide(level, unadjusted, mask, rule, self.threshold).label)

    def answered(self, predictions: Tensor, unadjusted: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the tensors of an `Answer` by name, without those that this model does not give.

        Args:
            predictions: as `classify` returns them.
            unadjusted: the same without the correction of `with_prior`.
            mask: (B, T) bool.
        """
        of_frames = self.objective.shown(predictions) if self.level == "frame" else None
        if self.predicts_values:
            found = {"value": self.objective.answer(self.level, predictions, mask)}
            return found if of_frames is None else {**found, "frame_values": of_frames[..., 0]}
        decision = self._decide(predictions, unadjusted, mask)
        found = {"label": decision.label, "probabilities": decision.probabilities}
        if decision.votes is None or of_frames is None:
            return found
        return {**found, "votes": decision.votes, "frame_probabilities": of_frames}

    def features(self, crops: NDArray[np.uint8]) -> NDArray[Any]:
        """See `Predictor.features`."""
        extractor, _ = self._extractor_and_face(None)
        return Network(extractor, self.device, "fp32")(torch.from_numpy(crops)).cpu().numpy()

    @torch.inference_mode()
    def answer(self, rows: NDArray[Any], mask: NDArray[np.bool_]) -> Answer:
        """See `Predictor.answer`."""
        x, real = torch.from_numpy(rows).to(self.device).float(), torch.from_numpy(mask).to(self.device)
        return _arrays(self.answered(*self._predictions(x, real), real))

    @property
    def steps(self) -> bool:
        """See `Predictor.steps`."""
        return self.head.steps

    def first_state(self, batch: int = 1) -> State:
        """See `Predictor.first_state`."""
        if not self.steps:
            raise no_steps_error(self.record)
        return {name: value.cpu().numpy() for name, value in self.head.first_state(batch).items()}

    @torch.inference_mode()
    def step(self, rows: NDArray[np.float32], state: State) -> tuple[Answer, State]:
        """See `Predictor.step`."""
        if not self.steps:
            raise no_steps_error(self.record)
        x = torch.from_numpy(rows).to(self.device).float()
        given = {name: torch.from_numpy(value).to(self.device) for name, value in state.items()}
        outputs, following = self.head.step(x, given)
        unadjusted = self.objective.predictions(outputs)
        real = torch.ones((len(x), 1), dtype=torch.bool, device=x.device)
        answer = _arrays(self.answered(self.adjusted(unadjusted), unadjusted, real))
        return answer, {name: value.cpu().numpy() for name, value in following.items()}

    @property
    def max_frames(self) -> int | None:
        """See `Predictor.max_frames`."""
        return self.head.max_frames

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
        if self.extractor is None:
            raise no_videos_error()
        return self.extractor, self.face_crops(locator)


def _arrays(answer: Mapping[str, Tensor]) -> Answer:
    named: dict[str, Any] = {name: value.cpu().numpy() for name, value in answer.items()}
    return Answer(**named)
