"""What is explained: one number for a clip, as a differentiable function of its frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from painseq.batch import masked_mean
from painseq.errors import PainseqError
from painseq.explain.frames import Frames
from painseq.heads import Head
from painseq.model.averaging import AveragedModel
from painseq.model.pain_model import PainModel

FRAMES_AT_ONCE = 32
"""Crops that go through a network together: memory holds the activations of no more."""
FEATURE_ROWS_AT_ONCE = 8192
"""Frames of features that go through a head together, over all copies of the clip."""


def score_of(model: PainModel, outputs: Tensor, mask: Tensor, target: int) -> Tensor:
    """The number that explanations are about.

    A model of a scale: its number; for a frame head the mean over the real frames. Classes: for a video head the
    class's logit; for a frame head, whose label is a vote, the mean over the real frames of the class's
    log-probability. Under CORN, and for averaged models, logits are log-probabilities.

    Args:
        outputs: of `PainModel.classify`: (B, T, K) for a frame head, (B, K) for a video head.
        mask: (B, T) bool.
        target: class index; 0 for a model of a scale.

    Returns:
        (B,).
    """
    outputs = outputs.float()
    if model.head.level == "video":
        return outputs[:, target]
    frames = model.objective.log_scores(outputs)
    return masked_mean(frames[..., target : target + 1], mask)[:, 0]


def class_number(model: PainModel, name: str) -> int:
    """The number of a class.

    Raises:
        PainseqError: the model has no class of this name; says which it has.
    """
    if model.predicts_values:
        raise PainseqError(f"This model says numbers ({model.scale}), not classes. Leave the class {name!r} out.")
    if name not in model.class_names:
        raise PainseqError(f"No class {name!r}; this model's classes: {', '.join(model.class_names)}.")
    return model.class_names.index(name)


def heads_of(model: PainModel) -> list[Head]:
    """The model's head; of averaged models, the head of each."""
    if not isinstance(model, AveragedModel):
        return [model.head]
    return [member.head for member in model.members if isinstance(member, PainModel)]


class Scorer:
    """The explained score of a clip, as a function of its frames; whatever explains calls this.

    Crops go through the extractor in portions whose activations are computed again in the backward pass
    (`torch.utils.checkpoint`), so that memory does not grow with the clip. Where no gradient is asked for, a frame that
    is as in the clip costs nothing: its features are known.

    Args:
        model: in eval mode.
        clip: its frames.
        target: class, by number or name; None: the one that the model predicts. A model of a scale has only 0.

    Raises:
        PainseqError: no frame has a face; pixels of a model that is not given any; features of another width than the
            head takes; an unknown class.
    """

    def __init__(self, model: PainModel, clip: Frames, target: int | str | None = None) -> None:
        self.model = model
        self.clip = clip
        self.pixels_through = clip.are_pixels and not model.takes_crops
        if clip.are_pixels and "cnn" not in model.streams:
            raise PainseqError(
                f"This model is not given the face's picture (its streams: {', '.join(model.streams)}), so there is no "
                "map of it to draw. Explain its features."
            )
        if self.pixels_through and model.extractor is None:
            raise PainseqError("This model was fitted on features whose extractor is not recorded: explain features.")
        if model.record.baseline_clips and clip.are_pixels and clip.neutral is None:
            raise PainseqError(
                "This model takes features relative to each subject's own, so explaining crops needs those of the same "
                "person without pain (`baseline`)."
            )
        if not self.pixels_through and tuple(clip.x.shape[1:]) != tuple(model.head.in_shape):
            raise PainseqError(
                f"This clip has {' x '.join(map(str, clip.x.shape[1:]))} values a frame; this model takes "
                f"{' x '.join(map(str, model.head.in_shape))} (its streams: {', '.join(model.streams)})."
            )
        self.mask = clip.present[None].to(model.device)
        self.real = clip.present.nonzero()[:, 0].to(model.device)
        if not len(self.real):
            raise PainseqError("No face found in any frame, so there is nothing to explain.")
        there = clip.present.reshape(-1, *[1] * (clip.x.ndim - 1))
        # By choice, not by a product: masked frames may hold NaN.
        self.x = torch.where(there, clip.x.float(), 0.0).to(model.device)
        self._known: Tensor | None = None
        with torch.no_grad():
            self._known = self.features(self.x[None])
            outputs = self.outputs(self._known, self.mask)
            if isinstance(target, str):
                target = class_number(model, target)
            self.target = self._predicted(outputs) if target is None else target
            classes = outputs.shape[-1]
            if not 0 <= self.target < classes:
                raise PainseqError(f"Class number {self.target}; this model has {classes}, counted from 0.")
            self.score = float(score_of(model, outputs, self.mask, self.target))

    @property
    def known_features(self) -> Tensor:
        """(1, T, *F) what the extractor makes of the clip as it is, without a graph."""
        assert self._known is not None
        return self._known

    @property
    def class_name(self) -> str:
        """Of the explained class, or of the scale."""
        return self.model.objective.names[self.target]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, T, *F) copies of the clip, changed, to (N,) scores."""
        return self.of_features(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(N, T, 3, S, S) to (N, T, D), zero in masked frames; what the head takes as it is stays as it is."""
        if not self.pixels_through:
            return x
        assert self.model.extractor is not None
        wanted = self.mask.expand(len(x), -1)
        if self._known is not None and not torch.is_grad_enabled():
            wanted = wanted & (x != self.x).flatten(2).any(dim=2)
        crops = x[wanted]
        if torch.is_grad_enabled() and x.requires_grad:
            parts = [
                checkpoint(self.model.extractor, some, use_reentrant=False)
                for some in torch.split(crops, FRAMES_AT_ONCE)
            ]
        else:
            parts = [self.model.extractor(some) for some in torch.split(crops, FRAMES_AT_ONCE) if len(some)]
        if self._known is not None and not torch.is_grad_enabled():
            out = self._known.expand(len(x), *self._known.shape[1:]).clone()
        else:
            out = parts[0].new_zeros((*x.shape[:2], *parts[0].shape[1:]))
        # Not in place: a leaf that is filled in has no gradient.
        return out.index_put((wanted,), torch.cat(parts)) if parts else out

    def of_features(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, T, D) to (N,) scores.

        Args:
            features: of the extractor, or of all streams where the clip is one of features.
            mask: (N, T) bool, frames to count; None: those of the clip.
        """
        mask = self.mask.expand(len(features), -1) if mask is None else mask
        return score_of(self.model, self.outputs(features, mask), mask, self.target)

    def copies_at_once(self) -> int:
        """How many copies of the clip to hand over together, so that memory holds."""
        rows = FRAMES_AT_ONCE if self.clip.are_pixels else FEATURE_ROWS_AT_ONCE
        return max(1, rows // len(self.clip))

    def head_input(self, features: Tensor) -> Tensor:
        """(N, T, D) of the extractor to what the head takes: relative to the person's own, other streams behind."""
        clip = self.clip
        if clip.extra is not None:
            extra = torch.where(clip.present[:, None], clip.extra, 0.0).to(features)
            features = torch.cat([features, extra.expand(len(features), -1, -1)], dim=-1)
        if clip.neutral is not None:
            features = torch.where(self.mask[..., None], features - clip.neutral.to(features), 0.0)
        return features

    def outputs(self, features: Tensor, mask: Tensor) -> Tensor:
        """(N, T, D) and (N, T) to what `PainModel.classify` says."""
        x = self.head_input(features)
        if not torch.is_grad_enabled():
            return self.model.classify(x, mask)
        # cuDNN's recurrent kernels have no backward pass in eval mode.
        with torch.backends.cudnn.flags(enabled=False):
            return self.model.classify(x, mask)

    def _predicted(self, outputs: Tensor) -> int:
        objective = self.model.objective
        return 0 if objective.predicts_values else int(objective.answer(self.model.head.level, outputs, self.mask))
