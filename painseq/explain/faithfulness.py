"""Infidelity and sensitivity of explanations (Yeh et al. 2019), with Captum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from captum import metrics
from torch import Tensor

from painseq.explain.by_input import baseline_of
from painseq.explain.frames import Frames
from painseq.explain.score import Scorer

BOXES = 40
"""Number of boxes, covered one at a time."""
SHARE_OF_SIDE, SHARE_OF_FRAMES = 1 / 3, 1 / 4
"""Size of a box: as large as a mouth or both brows, and long enough to affect the score."""
NOISE = 0.02
"""Captum's default: a share of the range of crops, 0..255, or of the spread of a clip's features."""
NOISY_CLIPS = 2
"""Number of noisy clips; each is explained again. Captum uses 10; a maximum over fewer is lower for all methods."""
MOST = 2.0
"""Upper limit: the change to a map of opposite sign. Relative changes of nearly empty maps are unbounded."""

Explanation = Callable[[Frames], Tensor]
"""Maps a clip to its values, (T, S, S) or (T,)."""


def infidelity(scorer: Scorer, values: Tensor, seed: int = 0) -> float:
    """Return how badly the values predict the fall of the score when a box is covered: 0 is perfect, 1 is useless.

    This is Yeh et al.'s square removal, in space and time: a box of a third of the crop's side and a quarter of the
    frames with a face is replaced by `baseline_of`, at `BOXES` random places. The values inside should sum to the fall
    of the score (`score_of`). As maps such as Grad-CAM's have no unit, they are scaled by the best factor (Captum's
    `normalize`), and the mean squared error is divided by that of a map of zeros. Captum's factor may be negative, so
    that a map with the wrong sign everywhere scores like one with the right sign.

    Args:
        values: (T, S, S) for crops; (T,) for crops or features, which covers whole frames.
        seed: seed of the boxes; use the same for all methods.

    Returns:
        0 to 1; NaN if no box changes the score.
    """
    baseline = baseline_of(scorer)
    generator = torch.Generator().manual_seed(seed)
    falls: list[Tensor] = []

    def cover(x: Tensor) -> tuple[Tensor, Tensor]:
        boxes = torch.stack([_box(scorer, values.ndim == 1, generator) for _ in range(len(x))]).to(x.device)
        return boxes.to(x.dtype).expand_as(x), torch.where(boxes, baseline, x)

    def score(x: Tensor) -> Tensor:
        scores = scorer(x)
        # Captum also scores the unchanged clip, whose fall is 0.
        falls.append(scorer.score - scores)
        return scores

    error = float(
        metrics.infidelity(
            score,
            cover,
            scorer.x[None],
            over_input(scorer, values)[None],
            n_perturb_samples=BOXES,
            max_examples_per_batch=min(BOXES, scorer.copies_at_once()),
            normalize=True,
        )
    )
    error_of_zeros = float(torch.cat(falls).square().sum()) / BOXES
    return min(1.0, max(0.0, error / error_of_zeros)) if error_of_zeros > 0 else math.nan


def sensitivity(scorer: Scorer, explanation: Explanation, values: Tensor, seed: int = 0) -> float:
    """Return how much an explanation changes under small noise: the largest of `NOISY_CLIPS` relative changes.

    The noise is uniform in +-`NOISE`, added to each value of the frames with a face: relative to 255 for crops (5 grey
    levels, hardly visible), relative to the standard deviation over the clip for features.

    Args:
        explanation: explains a clip, for a fixed class.
        values: explanation of the unchanged clip.
        seed: seed of the noise; use the same for all methods.

    Returns:
        |change of values| / |values|, Euclidean norms, 0 to `MOST`; NaN if all values are zero.
    """
    if not values.any():
        return math.nan
    clip, generator = scorer.clip, torch.Generator().manual_seed(seed)
    radius = NOISE * (255.0 if clip.are_pixels else float(scorer.x[scorer.real].std()))
    present = scorer.mask[0].reshape(-1, *[1] * (scorer.x.ndim - 1))

    def disturb(x: Tensor) -> Tensor:
        noise = (2 * torch.rand(x.shape, generator=generator).to(x) - 1) * radius
        noisy = x + torch.where(present, noise, 0.0)
        return noisy.clamp(0, 255) if clip.are_pixels else noisy

    def explain_copies(x: tuple[Tensor] | Tensor) -> tuple[Tensor]:
        (copies,) = x if isinstance(x, tuple) else (x,)
        if torch.equal(copies, scorer.x[None]):
            return (values[None],)
        with torch.enable_grad():
            return (torch.stack([explanation(replace(clip, x=copy.cpu())) for copy in copies]),)

    largest = metrics.sensitivity_max(
        explain_copies, scorer.x[None], disturb, n_perturb_samples=NOISY_CLIPS, max_examples_per_batch=1
    )
    return min(MOST, float(largest))


def over_input(scorer: Scorer, values: Tensor) -> Tensor:
    """Expand (T, S, S) or (T,) to the input's shape, keeping the sum."""
    x = scorer.x
    spread = values.to(x).reshape(*values.shape[:1], *[1] * (x.ndim - values.ndim), *values.shape[1:])
    return spread.expand_as(x) * (values.numel() / x.numel())


def _box(scorer: Scorer, whole_frames: bool, generator: torch.Generator) -> Tensor:
    """Draw a box in frames with a face, as bool: (T, 1, S, S); for whole frames (T, 1, 1, 1) or (T, 1)."""

    def random_slice(whole: int, share: float) -> slice:
        length = max(1, round(whole * share))
        start = int(torch.randint(whole - length + 1, (), generator=generator))
        return slice(start, start + length)

    frames = torch.zeros(len(scorer.clip), dtype=torch.bool)
    frames[scorer.real.cpu()[random_slice(len(scorer.real), SHARE_OF_FRAMES)]] = True
    if whole_frames:
        return frames.reshape(-1, *[1] * (scorer.x.ndim - 1))
    side = scorer.x.shape[-1]
    place = torch.zeros(1, side, side, dtype=torch.bool)
    place[:, random_slice(side, SHARE_OF_SIDE), random_slice(side, SHARE_OF_SIDE)] = True
    return frames[:, None, None, None] & place
