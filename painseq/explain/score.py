"""The explained score: one number per clip, as a differentiable function of its frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from painseq.batch import masked_mean
from painseq.data.normalisation import scaled
from painseq.errors import PainseqError
from painseq.explain.frames import Frames
from painseq.heads import Head
from painseq.model.averaging import AveragedModel
from painseq.model.pain_model import PainModel

FRAMES_AT_ONCE = 32
"""Number of crops per batch of a network, which bounds the memory for activations."""
FEATURE_ROWS_AT_ONCE = 8192
"""Number of feature frames per batch of a head, over all copies of the clip."""


def score_of(model: PainModel, outputs: Tensor, mask: Tensor, target: int) -> Tensor:
    """Return the explained score.

    For a model of a scale: its value; for a frame head, the mean over frames with a face. For classes: the logit of a
    video head, of trees its log-probability, since boosting gives only differences of logits; for a frame head, whose
    label is a vote, the mean log-probability over frames with a face. For CORN and averaged models, logits are
    log-probabilities.

    Args:
        outputs: outputs of `PainModel.classify`: (B, T, K) for a frame head, (B, K) for a video head.
        mask: (B, T) bool, frames with a face.
        target: class index; 0 for a model of a scale.

    Returns:
        (B,).
    """
    outputs = outputs.float()
    if model.head.level == "video":
        return (outputs if has_gradients(model) else model.objective.log_scores(outputs))[:, target]
    frames = model.objective.log_scores(outputs)
    return masked_mean(frames[..., target : target + 1], mask)[:, 0]


def class_number(model: PainModel, name: str) -> int:
    """Return the index of a class.

    Raises:
        PainseqError: the model has no class of this name.
    """
    if model.predicts_values:
        raise PainseqError(f"This model predicts values ({model.scale}), not classes. Omit the class {name!r}.")
    if name not in model.class_names:
        raise PainseqError(f"No class {name!r}; this model's classes: {', '.join(model.class_names)}.")
    return model.class_names.index(name)


def heads_of(model: PainModel) -> list[Head]:
    """Return the model's head; for averaged models, the heads of all members."""
    if not isinstance(model, AveragedModel):
        return [model.head]
    return [member.head for member in model.members if isinstance(member, PainModel)]


def has_gradients(model: PainModel) -> bool:
    """Whether the score has gradients; that of trees has none."""
    return all(head.fitted_by_gradients for head in heads_of(model))


class Scorer:
    """The explained score of a clip, as a function of its frames. All methods call it.

    Crops pass the extractor in batches whose activations are recomputed in the backward pass
    (`torch.utils.checkpoint`), so that memory does not grow with the clip. Without gradients, features of unchanged
    frames are reused.

    Args:
        model: in eval mode.
        clip: its frames.
        target: class, by number or name; None: the predicted class. A model of a scale has only 0.

    Raises:
        PainseqError: no frame has a face; crops for a model that takes none; features of another width than the head
            takes; an unknown class.
    """

    def __init__(self, model: PainModel, clip: Frames, target: int | str | None = None) -> None:
        self.model = model
        self.clip = clip
        self.pixels_through = clip.are_pixels and not model.takes_crops
        if clip.are_pixels and "cnn" not in model.streams:
            raise PainseqError(
                f"This model does not take crops of the face (its streams: {', '.join(model.streams)}), so it has no "
                "maps. Explain its features."
            )
        if self.pixels_through and model.extractor is None:
            raise PainseqError("This model was fitted on features whose extractor is not recorded. Explain features.")
        if model.record.by_person == "baseline" and clip.are_pixels and clip.scale is None:
            raise PainseqError(
                "This model takes features relative to each subject's baseline. To explain crops, give a video of the "
                "same subject without pain (baseline)."
            )
        if not self.pixels_through and tuple(clip.x.shape[1:]) != tuple(model.head.in_shape):
            raise PainseqError(
                f"This clip has {' x '.join(map(str, clip.x.shape[1:]))} values per frame; this model takes "
                f"{' x '.join(map(str, model.head.in_shape))} (its streams: {', '.join(model.streams)})."
            )
        self.mask = clip.present[None].to(model.device)
        self.real = clip.present.nonzero()[:, 0].to(model.device)
        if not len(self.real):
            raise PainseqError("No face found in any frame, so there is nothing to explain.")
        present = clip.present.reshape(-1, *[1] * (clip.x.ndim - 1))
        # Not by multiplication, since masked frames may hold NaN.
        self.x = torch.where(present, clip.x.float(), 0.0).to(model.device)
        self._known: Tensor | None = None
        self.scale = clip.scale
        with torch.no_grad():
            self._known = self.features(self.x[None])
            if model.record.by_person == "subject" and clip.are_pixels and self.scale is None:
                # That of the unchanged clip, also for changed copies of it.
                self.scale = model.person_scale(self.head_input(self._known)[self.mask].cpu().numpy())
            outputs = self.outputs(self._known, self.mask)
            if isinstance(target, str):
                target = class_number(model, target)
            self.target = self._predicted(outputs) if target is None else target
            classes = outputs.shape[-1]
            if not 0 <= self.target < classes:
                raise PainseqError(f"target is {self.target}; this model has {classes} classes, numbered from 0.")
            self.score = float(score_of(model, outputs, self.mask, self.target))

    @property
    def known_features(self) -> Tensor:
        """(1, T, *F) features of the unchanged clip, without a graph."""
        assert self._known is not None
        return self._known

    @property
    def class_name(self) -> str:
        """Name of the explained class, or of the scale."""
        return self.model.objective.names[self.target]

    def __call__(self, x: Tensor) -> Tensor:
        """Score N changed copies of the clip, (N, T, *F) -> (N,)."""
        return self.of_features(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Extract features, (N, T, 3, S, S) -> (N, T, D), zero in masked frames; without an extractor, return `x`."""
        if not self.pixels_through:
            return x
        assert self.model.extractor is not None
        changed = self.mask.expand(len(x), -1)
        if self._known is not None and not torch.is_grad_enabled():
            changed = changed & (x != self.x).flatten(2).any(dim=2)
        crops = x[changed]
        if torch.is_grad_enabled() and x.requires_grad:
            parts = [
                checkpoint(self.model.extractor, batch, use_reentrant=False)
                for batch in torch.split(crops, FRAMES_AT_ONCE)
            ]
        else:
            parts = [self.model.extractor(batch) for batch in torch.split(crops, FRAMES_AT_ONCE) if len(batch)]
        if self._known is not None and not torch.is_grad_enabled():
            out = self._known.expand(len(x), *self._known.shape[1:]).clone()
        else:
            out = parts[0].new_zeros((*x.shape[:2], *parts[0].shape[1:]))
        # Not in place, since a leaf that is written to has no gradient.
        return out.index_put((changed,), torch.cat(parts)) if parts else out

    def of_features(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score features, (N, T, D) -> (N,).

        Args:
            features: output of the extractor, or features of all streams if the clip has features.
            mask: (N, T) bool, frames to use; None: those of the clip.
        """
        mask = self.mask.expand(len(features), -1) if mask is None else mask
        return score_of(self.model, self.outputs(features, mask), mask, self.target)

    def copies_at_once(self) -> int:
        """Number of copies of the clip per batch, to bound memory."""
        rows = FRAMES_AT_ONCE if self.clip.are_pixels else FEATURE_ROWS_AT_ONCE
        return max(1, rows // len(self.clip))

    def head_input(self, features: Tensor) -> Tensor:
        """Append the other streams to features of the extractor (N, T, D), and normalise by the subject's frames."""
        clip = self.clip
        if clip.extra is not None:
            extra = torch.where(clip.present[:, None], clip.extra, 0.0).to(features)
            features = torch.cat([features, extra.expand(len(features), -1, -1)], dim=-1)
        return features if self.scale is None else scaled(self.scale, features, self.mask)

    def outputs(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return the outputs of `PainModel.classify` for features (N, T, D) and a mask (N, T)."""
        x = self.head_input(features)
        if not torch.is_grad_enabled():
            return self.model.classify(x, mask)
        # cuDNN's recurrent kernels have no backward pass in eval mode.
        with torch.backends.cudnn.flags(enabled=False):
            return self.model.classify(x, mask)

    def _predicted(self, outputs: Tensor) -> int:
        objective = self.model.objective
        return 0 if objective.predicts_values else int(objective.answer(self.model.head.level, outputs, self.mask))
