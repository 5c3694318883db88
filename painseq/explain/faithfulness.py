"""Infidelity and sensitivity of explanations (Yeh et al. 2019), through Captum."""

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
"""Boxes that are covered, one at a time."""
SHARE_OF_SIDE, SHARE_OF_FRAMES = 1 / 3, 1 / 4
"""Of a box: as large as a mouth or both brows, and long enough to be missed."""
NOISE = 0.02
"""Captum's: of the range of crops, 0..255; of the spread of a clip's features."""
NOISY_CLIPS = 2
"""Each is explained anew. Captum takes 10: a maximum over few is too low, for all methods alike."""
MOST = 2.0
"""A map of the same size and the opposite sign. Where a map is nearly empty, relative changes have no bounds."""

Explanation = Callable[[Frames], Tensor]
"""A clip to its values, (T, S, S) or (T,)."""


def infidelity(scorer: Scorer, values: Tensor, seed: int = 0) -> float:
    """By how much the values miss what a box that is covered takes from the score: 0 not at all, 1 they tell nothing.

    Yeh et al.'s square removal, in space and time: a box of a third of the crop's side and a quarter of the real frames
    is covered by `baseline_of`, at `BOXES` random places. The values inside should sum to the fall of the score
    (`score_of`). As maps such as Grad-CAM's have no unit, they are multiplied by the one number that suits best
    (Captum's `normalize`), and the mean squared error is divided by that of a map of zeros. Captum's number may be
    negative, so that a map with the wrong sign everywhere scores like one with the right sign.

    Args:
        values: (T, S, S) of crops; (T,) of crops or features, where whole frames are covered.
        seed: of the boxes; the same ones for each method.

    Returns:
        0 to 1; NaN where no box changes the score.
    """
    baseline = baseline_of(scorer)
    generator = torch.Generator().manual_seed(seed)
    falls: list[Tensor] = []

    def cover(x: Tensor) -> tuple[Tensor, Tensor]:
        boxes = torch.stack([_box(scorer, values.ndim == 1, generator) for _ in range(len(x))]).to(x.device)
        return boxes.to(x.dtype).expand_as(x), torch.where(boxes, baseline, x)

    def score(x: Tensor) -> Tensor:
        scores = scorer(x)
        # Captum asks for the clip as it is, too: its score does not fall.
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
    of_nothing = float(torch.cat(falls).square().sum()) / BOXES
    return min(1.0, max(0.0, error / of_nothing)) if of_nothing > 0 else math.nan


def sensitivity(scorer: Scorer, explanation: Explanation, values: Tensor, seed: int = 0) -> float:
    """By how much an explanation changes where its clip hardly does: the largest of `NOISY_CLIPS` relative changes.

    To each number of the real frames noise is added, uniform up to `NOISE` either way: of 255 for crops (5 grey levels,
    hardly to be seen), of the standard deviation over all numbers of the clip for features.

    Args:
        explanation: makes the values of a clip, for a class that stays the same.
        values: those of the clip as it is.
        seed: of the noise; the same for each method.

    Returns:
        |values' change| / |values|, Euclidean norms, 0 to `MOST`; NaN for values that are all zero.
    """
    if not values.any():
        return math.nan
    clip, generator = scorer.clip, torch.Generator().manual_seed(seed)
    radius = NOISE * (255.0 if clip.are_pixels else float(scorer.x[scorer.real].std()))
    there = scorer.mask[0].reshape(-1, *[1] * (scorer.x.ndim - 1))

    def disturb(x: Tensor) -> Tensor:
        noise = (2 * torch.rand(x.shape, generator=generator).to(x) - 1) * radius
        noisy = x + torch.where(there, noise, 0.0)
        return noisy.clamp(0, 255) if clip.are_pixels else noisy

    def of_copies(x: tuple[Tensor] | Tensor) -> tuple[Tensor]:
        (copies,) = x if isinstance(x, tuple) else (x,)
        if torch.equal(copies, scorer.x[None]):
            return (values[None],)
        with torch.enable_grad():
            return (torch.stack([explanation(replace(clip, x=copy.cpu())) for copy in copies]),)

    found = metrics.sensitivity_max(
        of_copies, scorer.x[None], disturb, n_perturb_samples=NOISY_CLIPS, max_examples_per_batch=1
    )
    return min(MOST, float(found))


def over_input(scorer: Scorer, values: Tensor) -> Tensor:
    """(T, S, S) or (T,) to the input's shape, so that the sum over what they are spread over stays the same."""
    x = scorer.x
    spread = values.to(x).reshape(*values.shape[:1], *[1] * (x.ndim - values.ndim), *values.shape[1:])
    return spread.expand_as(x) * (values.numel() / x.numel())


def _box(scorer: Scorer, whole_frames: bool, generator: torch.Generator) -> Tensor:
    """What a box covers, bool, of real frames alone: (T, 1, S, S); of whole frames (T, 1, 1, 1) or (T, 1)."""

    def stretch(whole: int, share: float) -> slice:
        length = max(1, round(whole * share))
        start = int(torch.randint(whole - length + 1, (), generator=generator))
        return slice(start, start + length)

    frames = torch.zeros(len(scorer.clip), dtype=torch.bool)
    frames[scorer.real.cpu()[stretch(len(scorer.real), SHARE_OF_FRAMES)]] = True
    if whole_frames:
        return frames.reshape(-1, *[1] * (scorer.x.ndim - 1))
    side = scorer.x.shape[-1]
    place = torch.zeros(1, side, side, dtype=torch.bool)
    place[:, stretch(side, SHARE_OF_SIDE), stretch(side, SHARE_OF_SIDE)] = True
    return frames[:, None, None, None] & place
