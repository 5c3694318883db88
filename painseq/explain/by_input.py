"""Methods that speak of each number of the input, crops or features, through Captum."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from captum import attr
from torch import Tensor

from painseq.explain.score import Scorer

Progress = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""

TOLERANCE = 0.01
"""Completeness of Integrated Gradients: share of the difference between the scores of clip and baseline."""
STEPS, MOST_STEPS = 8, 1024
"""Gradients in each stretch of the path, and altogether at most unless more are asked for."""
SHARE_OF_A_STRETCH = 1 / 8
"""Of the error that is left, the part that any stretch may use."""
SMALLEST = 1e-6
"""Share of the scores that float32 cannot tell apart."""
PATCHES_A_SIDE, WINDOWS_A_CLIP = 8, 8


def baseline_of(scorer: Scorer) -> Tensor:
    """What stands for nothing, of the clip's shape: the mean colour of its real crops; zeros for features.

    Black would hide what is dark (brows, nostrils, the open mouth) from methods that multiply by the difference to it.
    """
    if not scorer.clip.are_pixels:
        return torch.zeros_like(scorer.x)
    return scorer.x[scorer.real].mean(dim=(0, 2, 3))[:, None, None].expand_as(scorer.x)


def integrated_gradients(
    scorer: Scorer, baseline: Tensor, most_steps: int = MOST_STEPS, on_progress: Progress | None = None
) -> tuple[Tensor, float, int]:
    """Integrated Gradients (Sundararajan et al. 2017), complete to `TOLERANCE` if `most_steps` gradients are enough.

    Gauss-Legendre steps on stretches of the straight path from the baseline. The values of a stretch must sum to the
    difference of the scores at its ends; where they do not, it is halved. So steps are spent where the score bends.

    Args:
        baseline: (T, *F).

    Returns:
        (T, *F), the completeness error (see `Attribution`), and the number of gradients.
    """
    captum = attr.IntegratedGradients(scorer)
    start, end = baseline[None], scorer.x[None]
    with torch.no_grad():
        first, last = float(scorer(start)), float(scorer(end))
    difference = last - first
    smallest = SMALLEST * max(abs(first), abs(last))
    total = torch.zeros_like(end)
    error, done, steps = 0.0, 0.0, 0
    stretches = [(0.0, 1.0)]
    while stretches:
        a, b = stretches.pop()
        values, delta = captum.attribute(
            start + b * (end - start),
            baselines=start + a * (end - start),
            n_steps=STEPS,
            internal_batch_size=scorer.copies_at_once(),
            return_convergence_delta=True,
        )
        steps += STEPS
        # A kink's error falls only as fast as its stretch: with its length's share of what is left it would never do.
        left = TOLERANCE * abs(difference) - abs(error)
        allowed = max(left * max((b - a) / (1 - done), SHARE_OF_A_STRETCH), smallest)
        # Those that wait are computed once more each, whatever their error.
        if abs(float(delta)) <= allowed or steps + STEPS * (len(stretches) + 2) > most_steps:
            total += values
            error += float(delta)
            done += b - a
            if on_progress is not None:
                on_progress(done)
        else:
            middle = (a + b) / 2
            stretches += [(middle, b), (a, middle)]
    missing = abs(float(total.double().sum()) - difference)
    # float32 cannot tell scores apart that are this close: no error where nothing is missing, else without bounds.
    relative = missing / abs(difference) if abs(difference) > smallest else (0.0 if missing <= smallest else math.inf)
    return total[0].detach(), relative, steps


def saliency(scorer: Scorer) -> Tensor:
    """The gradient's size (Simonyan et al. 2014), (T, *F)."""
    values: Tensor = attr.Saliency(scorer).attribute(scorer.x[None].clone().requires_grad_())
    return values[0].detach()


def gradient_x_input(scorer: Scorer, baseline: Tensor) -> Tensor:
    """Gradient times difference to the baseline (Shrikumar et al. 2016), (T, *F); for features, times the features."""
    (gradient,) = attr.Saliency(scorer).attribute(scorer.x[None].clone().requires_grad_(), abs=False)
    product: Tensor = gradient.detach() * (scorer.x - baseline)
    return product


def occlusion(
    scorer: Scorer,
    baseline: Tensor,
    patch_px: int | None = None,
    frames_together: int | None = None,
    on_progress: Progress | None = None,
) -> Tensor:
    """How the score falls where a patch of consecutive frames is covered by the baseline (Zeiler and Fergus 2014).

    Args:
        patch_px: side of the patches, which lie side by side; None: eight of them along the crop.
        frames_together: None: an eighth of the clip.

    Returns:
        (T, 3, S, S), the same in all colours and pixels of a patch.
    """
    frames, channels, side, _ = scorer.x.shape
    patch = min(patch_px or math.ceil(side / PATCHES_A_SIDE), side)
    window = min(frames_together or math.ceil(frames / WINDOWS_A_CLIP), frames)
    windows = math.ceil(side / patch) ** 2 * math.ceil(frames / window)
    done = 0

    def score(x: Tensor) -> Tensor:
        nonlocal done
        if on_progress is not None:
            on_progress(min(1.0, done / windows))
        done += len(x)
        return scorer(x)

    with torch.no_grad():
        values: Tensor = attr.Occlusion(score).attribute(
            scorer.x[None],
            sliding_window_shapes=(window, channels, patch, patch),
            strides=(window, channels, patch, patch),
            baselines=baseline[None].contiguous(),
            perturbations_per_eval=scorer.copies_at_once(),
        )
    if on_progress is not None:
        on_progress(1.0)
    return values[0] / channels
