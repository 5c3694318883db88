"""`explain`: one function for every head, method and kind of input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from painseq.data.normalisation import scaled
from painseq.errors import PainseqError
from painseq.explain.attribution import Attribution
from painseq.explain.by_input import (
    MOST_STEPS,
    Progress,
    baseline_of,
    gradient_x_input,
    integrated_gradients,
    occlusion,
    saliency,
)
from painseq.explain.frames import Frames
from painseq.explain.gradcam import grad_cam, list_layers
from painseq.explain.over_time import attention, frame_occlusion, votes
from painseq.explain.rollout import is_vit, rollout
from painseq.explain.score import Scorer, has_gradients, heads_of
from painseq.model.pain_model import PainModel

Method = Literal[
    "gradcam",
    "rollout",
    "integrated_gradients",
    "gradient_x_input",
    "saliency",
    "occlusion",
    "frame_occlusion",
    "attention",
    "votes",
]
METHODS: tuple[Method, ...] = get_args(Method)
MAPS: tuple[Method, ...] = ("gradcam", "rollout", "occlusion")
"""Methods for crops only."""
WITH_GRADIENTS: tuple[Method, ...] = ("gradcam", "rollout", "integrated_gradients", "gradient_x_input", "saliency")
"""Methods that trees do not have. Rollout needs no gradients, but follows attention, which ends where trees begin."""


@dataclass(frozen=True, eq=False)
class MethodOptions:
    """Settings of the methods; None selects the default of a method.

    Args:
        layer: for gradcam, see `list_layers`; None: `default_layer`.
        baseline: for integrated_gradients, gradient_x_input and occlusion, in the clip's shape or one that expands to
            it. None: the mean colour of the clip's crops; zeros for features.
        patch_px: for occlusion, side of the patches; None: an eighth of the crop.
        frames_together: for occlusion and frame_occlusion, number of consecutive frames that are hidden together;
            None: an eighth of the clip for occlusion, one for frame_occlusion.
        most_steps: for integrated_gradients, the most gradients; fewer are computed if they suffice.

    Raises:
        PainseqError: a number below 1.
    """

    layer: str | None = None
    baseline: Tensor | None = None
    patch_px: int | None = None
    frames_together: int | None = None
    most_steps: int = MOST_STEPS

    def __post_init__(self) -> None:
        for name in ("patch_px", "frames_together", "most_steps"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise PainseqError(f"{name} is {count}; it must be 1 or more.")


DEFAULT_OPTIONS = MethodOptions()


# Gradients are enabled even if the caller disabled them. TensorFloat-32, cuDNN's default on GPUs, is off: its rounding
# would blur the small differences between scores that are explained.
@torch.inference_mode(False)
@torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
def explain(
    model: PainModel,
    clip: Frames,
    method: Method | None = None,
    target: int | str | None = None,
    options: MethodOptions = DEFAULT_OPTIONS,
    on_progress: Progress | None = None,
) -> Attribution:
    """Explain how much each part of a clip contributes to the model's score (`painseq.explain.score.score_of`).

    | method | crops (T, 3, S, S) | features (T, D) |
    |---|---|---|
    | gradcam | (T, S, S), CNN extractors | - |
    | rollout | (T, S, S), ViViT, ViT extractors; the same for all classes | - |
    | occlusion | (T, 3, S, S) | - |
    | integrated_gradients, gradient_x_input, saliency | (T, 3, S, S) | (T, D) |
    | frame_occlusion, attention, votes | (T,) | (T,) |

    Args:
        clip: see `frames_of_video`, `frames_of_sample` and `frames_of_store`; crops are explained in space, features
            (`features_of`) in time.
        method: name of the method; None: `default_method`.
        target: class, by number or name; None: the predicted class. A model of a scale has only 0.
        on_progress: called with the finished share.

    Raises:
        PainseqError: no frame has a face, the method does not fit the model or the input, or there is no such class or
            layer.

    Example:
        >>> clip = frames_of_video(model, "video.mp4")
        >>> explain(model, clip, "integrated_gradients", "high_pain", MethodOptions(most_steps=64)).maps
    """
    method = default_method(model, clip) if method is None else method
    if method not in METHODS:
        raise PainseqError(f"Unknown method {method!r}; methods: {', '.join(METHODS)}.")
    if method in MAPS and not clip.are_pixels:
        raise PainseqError(f"{method} makes maps of the face, so it needs crops, not features.")
    check_gradients(model, method)
    if options.layer is not None and method != "gradcam":
        raise PainseqError(f"layer {options.layer!r} applies to gradcam only, not to {method}.")
    scorer = Scorer(model, clip, target)
    layer, error, steps = None, None, None
    if method == "gradcam":
        values, layer = grad_cam(scorer, options.layer, on_progress)
    elif method == "integrated_gradients":
        baseline = _baseline(scorer, options)
        values, error, steps = integrated_gradients(scorer, baseline, options.most_steps, on_progress)
    else:
        values = _values(scorer, method, options, on_progress)
    present = clip.present.reshape(-1, *[1] * (values.ndim - 1))
    values = torch.where(present, values.detach().float().cpu(), 0.0)
    return Attribution(values, clip, method, scorer.target, scorer.class_name, scorer.score, layer, error, steps)


def _values(scorer: Scorer, method: Method, options: MethodOptions, on_progress: Progress | None) -> Tensor:
    """Return the values of a method that has no other result."""
    if method == "rollout":
        return rollout(scorer)
    if method == "gradient_x_input":
        return gradient_x_input(scorer, _baseline(scorer, options))
    if method == "saliency":
        return saliency(scorer)
    if method == "occlusion":
        baseline = _baseline(scorer, options)
        return occlusion(scorer, baseline, options.patch_px, options.frames_together, on_progress)
    if method == "frame_occlusion":
        return frame_occlusion(scorer, options.frames_together, on_progress)
    return attention(scorer) if method == "attention" else votes(scorer)


def _baseline(scorer: Scorer, options: MethodOptions) -> Tensor:
    if options.baseline is None:
        return baseline_of(scorer)
    return options.baseline.to(scorer.x).expand_as(scorer.x)


def features_of(model: PainModel, clip: Frames) -> Frames:
    """Return the clip as features of all streams, to explain time; crops are kept if the head takes crops."""
    if not clip.are_pixels:
        return clip
    if "cnn" not in model.streams and clip.extra is not None:
        rows, scale = clip.extra, clip.scale
        if model.record.by_person == "subject":
            scale = model.person_scale(rows[clip.present].numpy())
        return replace(clip, x=rows if scale is None else scaled(scale, rows, clip.present), extra=None, scale=None)
    scorer = Scorer(model, clip)
    if not scorer.pixels_through:
        return clip
    with torch.no_grad():
        features = scorer.head_input(scorer.known_features)[0].cpu()
    return replace(clip, x=features, extra=None, scale=None)


def check_gradients(model: PainModel, method: str | None) -> None:
    """Check that a method does not need gradients that the model does not have.

    Raises:
        PainseqError: it does; says what to use.
    """
    if method in WITH_GRADIENTS and not has_gradients(model):
        raise PainseqError(
            f"{method} follows gradients or attention through the model, but {model.head.name} is not fitted "
            "by gradients and passes none on. Use occlusion for maps, frame_occlusion for the curve over time, and "
            "`painseq explain columns` (Python: occlude_columns, permute_columns) for the columns of its input."
        )


def space_methods(model: PainModel) -> tuple[Method, ...]:
    """Return the methods that make maps for this model, the most suitable first; none if it takes no crops."""
    if "cnn" not in model.streams or model.extractor is None:
        return ()
    if not has_gradients(model):
        return ("occlusion",)
    general: tuple[Method, ...] = ("integrated_gradients", "gradient_x_input", "saliency", "occlusion")
    if is_vit(model.extractor) or "pixels" in model.head.attends_to:
        return ("rollout", *general)
    return ("gradcam", *general) if _has_maps(model) else general


def time_methods(model: PainModel) -> tuple[Method, ...]:
    """Return the methods that rate frames (`Attribution.over_time`), the most suitable first."""
    methods: list[Method] = ["integrated_gradients", "gradient_x_input", "saliency"] if has_gradients(model) else []
    methods.append("frame_occlusion")
    if all("frames" in head.attends_to for head in heads_of(model)):
        methods.append("attention")
    if model.head.level == "frame" and not model.predicts_values and model.threshold is None:
        methods.append("votes")
    return tuple(methods)


def default_method(model: PainModel, clip: Frames) -> Method:
    """Return the first of `space_methods` for crops, or of `time_methods` for features."""
    if clip.are_pixels and space_methods(model):
        return space_methods(model)[0]
    return time_methods(model)[0]


def _has_maps(model: PainModel) -> bool:
    """Whether Grad-CAM has a layer; determined by running the network, since timm's names do not tell."""
    try:
        list_layers(model.extractor)
    except PainseqError:
        return False
    return True
