"""Deletion and insertion curves: how the score changes when the most important places are deleted or inserted.

The method of Petsiuk et al. 2018 ("RISE") is for images. For clips, three things differ:

- Cells of a `CELLS_A_SIDE` x `CELLS_A_SIDE` grid in each frame are deleted or inserted, not pixels: missing single
  pixels give images unlike any that the network has seen, and 300 frames have 15 million pixels.
- The cells of all frames with a face are ranked together, so that a map must rank times as well as places. For curves
  over time, whole frames take the place of cells.
- Deleted cells show `baseline_of`: the clip's mean colour, or zeros for features. Petsiuk et al. delete to grey and
  insert into a blurred image; with one baseline for both, the two curves begin and end at the same scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from torch import Tensor
from torch.nn import functional

from painseq.explain.by_input import Progress, baseline_of
from painseq.explain.score import Scorer, score_of
from painseq.model.decision import decide

CELLS_A_SIDE = 16
STEPS = 20


@dataclass(frozen=True, eq=False)
class PerturbationCurves:
    """A model's output as a function of the deleted or inserted share of a clip.

    Args:
        shares: (N,) share of the cells, or frames, that are deleted or inserted; 0 to 1.
        deletion: (N,) the output without the most important `shares`.
        insertion: (N,) the output with only these.
    """

    shares: NDArray[np.float64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]

    @property
    def deletion_area(self) -> float:
        """Area under the deletion curve; small for a good explanation."""
        return float(trapezoid(self.deletion, self.shares))

    @property
    def insertion_area(self) -> float:
        """Area under the insertion curve; large for a good explanation."""
        return float(trapezoid(self.insertion, self.shares))

    @property
    def gain(self) -> float:
        """Insertion area minus deletion area; about 0 for a random order, larger for a good explanation."""
        return self.insertion_area - self.deletion_area


def perturbation_curves(
    scorer: Scorer, values: Tensor, steps: int = STEPS, seed: int = 0, on_progress: Progress | None = None
) -> PerturbationCurves:
    """Delete and insert the cells or frames of a clip, most important first.

    Args:
        values: (T, S, S) a map of crops; (T,) a curve over frames, of crops or features. Positive values contribute to
            the score (`Attribution.maps` and `.over_time`). Masked frames are ignored and not changed.
        steps: number of equal steps, at most; fewer if the clip has fewer cells or frames.
        seed: seed of the random order of equal values.
        on_progress: called with the finished share.
    """
    ranks, cell_px = _ranks(scorer, values, seed)
    count = int(ranks.max()) + 1
    changed = np.unique(np.linspace(0, count, min(steps, count) + 1).round().astype(int))
    baseline = baseline_of(scorer)
    outputs: dict[str, list[Tensor]] = {"deletion": [], "insertion": []}
    for name, batches in outputs.items():
        for counts in np.array_split(changed, -(-len(changed) // scorer.copies_at_once())):
            top = ranks < torch.from_numpy(counts).to(ranks.device).reshape(-1, *[1] * ranks.ndim)
            hidden = _over_input(top if name == "deletion" else ~top, cell_px, scorer.x)
            hidden &= scorer.mask[0].reshape(-1, *[1] * (scorer.x.ndim - 1))
            with torch.no_grad():
                batches.append(model_outputs(scorer, torch.where(hidden, baseline, scorer.x)))
            if on_progress is not None:
                finished = sum(len(batch) for batches in outputs.values() for batch in batches)
                on_progress(finished / (2 * len(changed)))
    deletion, insertion = (torch.cat(batches).double().cpu().numpy() for batches in outputs.values())
    return PerturbationCurves(changed / count, deletion, insertion)


def model_outputs(scorer: Scorer, x: Tensor) -> Tensor:
    """Return the probabilities of the class, or the values of a model of a scale, (N,), for N changed copies.

    Probabilities rather than logits, since areas are compared between clips and models, and a logit is unbounded.

    Args:
        x: (N, T, *F) changed copies.
    """
    mask = scorer.mask.expand(len(x), -1)
    outputs = scorer.outputs(scorer.features(x), mask)
    if scorer.model.predicts_values:
        return score_of(scorer.model, outputs, mask, scorer.target)
    return decide(scorer.model.head.level, outputs, mask, scorer.model.objective.rule).probabilities[:, scorer.target]


def cell_sums(maps: Tensor) -> tuple[Tensor, int]:
    """Return the sums of maps (T, S, S) over cells, (T, G, G), and the side of a cell in pixels, smaller at borders."""
    cell_px = max(1, -(-maps.shape[-1] // CELLS_A_SIDE))
    sums = functional.avg_pool2d(maps[:, None], cell_px, ceil_mode=True, divisor_override=1)[:, 0]
    return sums, cell_px


def _ranks(scorer: Scorer, values: Tensor, seed: int) -> tuple[Tensor, int | None]:
    """Return the rank of each cell or frame, 0 for the most important, and the side of a cell in pixels.

    Cells of masked frames have rank -1, which is never used.
    """
    if values.ndim not in (1, 3) or len(values) != len(scorer.clip):
        raise ValueError(f"values must be (T, S, S) or (T,) with T = {len(scorer.clip)}, not {tuple(values.shape)}.")
    known = values.double().to(scorer.x.device)
    sums, cell_px = (known, None) if values.ndim == 1 else cell_sums(known)
    flat = sums[scorer.real].flatten()
    # Equal cells are ordered at random; in the order of the image, the forehead would always come first.
    shuffled = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed)).to(flat.device)
    order = shuffled[flat[shuffled].argsort(descending=True, stable=True)]
    ranks = torch.full_like(sums, -1, dtype=torch.long)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    ranks[scorer.real] = places.reshape(-1, *sums.shape[1:])
    return ranks, cell_px


def _over_input(cells: Tensor, cell_px: int | None, x: Tensor) -> Tensor:
    """Expand cells (N, T, G, G) or frames (N, T), bool, to a shape that broadcasts to (N, T, *F)."""
    if cell_px is None:
        return cells.reshape(*cells.shape, *[1] * (x.ndim - 1))
    pixels = cells.repeat_interleave(cell_px, dim=2).repeat_interleave(cell_px, dim=3)
    return pixels[:, :, None, : x.shape[-2], : x.shape[-1]]
