"""Methods that attribute to each input value, of crops or features, with Captum."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from captum import attr
from torch import Tensor

from painseq.explain.score import Scorer

Progress = Callable[[float], None]
"""Called with the finished share, 0 to 1."""

TOLERANCE = 0.01
"""Allowed completeness error of Integrated Gradients, as a share of the difference between clip and baseline."""
STEPS, MOST_STEPS = 8, 1024
"""Gradients per segment of the path, and the default for the most gradients in total."""
SEGMENT_SHARE = 1 / 8
"""Share of the remaining error that any segment may use."""
SMALLEST = 1e-6
"""Relative difference of scores that float32 cannot resolve."""
PATCHES_A_SIDE, WINDOWS_A_CLIP = 8, 8


def baseline_of(scorer: Scorer) -> Tensor:
    """Return the baseline of a clip, in its shape: the mean colour of its crops with a face, or zeros for features.

    A black baseline would hide dark places (brows, nostrils, the open mouth) from methods that multiply by the
    difference to the baseline.
    """
    if not scorer.clip.are_pixels:
        return torch.zeros_like(scorer.x)
    return scorer.x[scorer.real].mean(dim=(0, 2, 3))[:, None, None].expand_as(scorer.x)


def integrated_gradients(
    scorer: Scorer, baseline: Tensor, most_steps: int = MOST_STEPS, on_progress: Progress | None = None
) -> tuple[Tensor, float, int]:
    """Integrated Gradients (Sundararajan et al. 2017), complete to `TOLERANCE` if `most_steps` gradients suffice.

    Uses Gauss-Legendre steps on segments of the straight path from the baseline. The values of a segment must sum to
    the difference of the scores at its ends; otherwise it is halved, so that steps go where the score is nonlinear.

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
    segments = [(0.0, 1.0)]
    while segments:
        a, b = segments.pop()
        values, delta = captum.attribute(
            start + b * (end - start),
            baselines=start + a * (end - start),
            n_steps=STEPS,
            internal_batch_size=scorer.copies_at_once(),
            return_convergence_delta=True,
        )
        steps += STEPS
        # The error at a kink shrinks only as fast as its segment, so a share by length alone would never be met.
        remaining = TOLERANCE * abs(difference) - abs(error)
        allowed = max(remaining * max((b - a) / (1 - done), SEGMENT_SHARE), smallest)
        # Each waiting segment needs one more computation.
        if abs(float(delta)) <= allowed or steps + STEPS * (len(segments) + 2) > most_steps:
            total += values
            error += float(delta)
            done += b - a
            if on_progress is not None:
                on_progress(done)
        else:
            middle = (a + b) / 2
            segments += [(middle, b), (a, middle)]
    missing = abs(float(total.double().sum()) - difference)
    # float32 cannot resolve a difference this small, so a relative error is either 0 or unbounded.
    relative = missing / abs(difference) if abs(difference) > smallest else (0.0 if missing <= smallest else math.inf)
    return total[0].detach(), relative, steps


def saliency(scorer: Scorer) -> Tensor:
    """Return the absolute gradient (Simonyan et al. 2014), (T, *F)."""
    values: Tensor = attr.Saliency(scorer).attribute(scorer.x[None].clone().requires_grad_())
    return values[0].detach()


def gradient_x_input(scorer: Scorer, baseline: Tensor) -> Tensor:
    """Return gradient times difference to the baseline (Shrikumar et al. 2016), (T, *F)."""
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
    """Return how much the score falls when a patch of consecutive frames is replaced (Zeiler and Fergus 2014).

    Args:
        baseline: (T, 3, S, S), replaces the patches.
        patch_px: side of the patches, which do not overlap; None: an eighth of the crop.
        frames_together: number of frames that a patch spans; None: an eighth of the clip.

    Returns:
        (T, 3, S, S), constant over colours and pixels of a patch.
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
