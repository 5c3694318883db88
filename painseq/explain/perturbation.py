"""Deletion and insertion: does the score fall without what an explanation calls important, and rise with it alone?

After Petsiuk et al. 2018 ("RISE"), made for pictures. For clips three things are otherwise:

- What is taken away or put in are cells of `CELLS_A_SIDE` x `CELLS_A_SIDE` in every frame, not pixels: single pixels of
  a face that vanish give a picture such as no network has seen, and 300 frames have 15 million of them.
- The cells of all real frames stand in one order, so that a map must tell moments apart as well as places. For curves
  over time whole frames take the place of cells.
- What stands for nothing is `baseline_of`: the clip's mean colour, zeros for features. Petsiuk et al. delete to grey
  and insert into a blurred picture; one baseline for both lets the two curves begin and end at the same scores.
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
    """What a model says while a clip is taken away, and while it is put in.

    Args:
        shares: (N,) share of the cells, or frames, that are changed; 0 to 1.
        deletion: (N,) what the model says without the most important `shares`.
        insertion: (N,) what it says with these alone.
    """

    shares: NDArray[np.float64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]

    @property
    def deletion_area(self) -> float:
        """Under the curve of deletion: small where the explanation is right."""
        return float(trapezoid(self.deletion, self.shares))

    @property
    def insertion_area(self) -> float:
        """Under the curve of insertion: large where the explanation is right."""
        return float(trapezoid(self.insertion, self.shares))

    @property
    def gain(self) -> float:
        """Insertion minus deletion: about 0 for any order that knows nothing, above for one that knows something."""
        return self.insertion_area - self.deletion_area


def perturbation_curves(
    scorer: Scorer, values: Tensor, steps: int = STEPS, seed: int = 0, on_progress: Progress | None = None
) -> PerturbationCurves:
    """Take away, and put in, what an explanation calls important, most important first.

    Args:
        values: (T, S, S) a map of crops; (T,) a curve over frames, of crops or features. What speaks for the score is
            positive (`Attribution.maps` and `.over_time`). Masked frames are not looked at, and never touched.
        steps: how many equal parts the clip is taken away in, at most; fewer where it has fewer cells or frames.
        seed: of the order among equals.
        on_progress: called with the share that is done.
    """
    ranks, cell_px = _ranks(scorer, values, seed)
    count = int(ranks.max()) + 1
    changed = np.unique(np.linspace(0, count, min(steps, count) + 1).round().astype(int))
    baseline = baseline_of(scorer)
    outputs: dict[str, list[Tensor]] = {"deletion": [], "insertion": []}
    for name, found in outputs.items():
        for some in np.array_split(changed, -(-len(changed) // scorer.copies_at_once())):
            first = ranks < torch.from_numpy(some).to(ranks.device).reshape(-1, *[1] * ranks.ndim)
            hidden = _over_input(first if name == "deletion" else ~first, cell_px, scorer.x)
            hidden &= scorer.mask[0].reshape(-1, *[1] * (scorer.x.ndim - 1))
            with torch.no_grad():
                found.append(what_is_said(scorer, torch.where(hidden, baseline, scorer.x)))
            if on_progress is not None:
                on_progress(sum(len(part) for both in outputs.values() for part in both) / (2 * len(changed)))
    deletion, insertion = (torch.cat(parts).double().cpu().numpy() for parts in outputs.values())
    return PerturbationCurves(changed / count, deletion, insertion)


def what_is_said(scorer: Scorer, x: Tensor) -> Tensor:
    """(N, T, *F) copies of the clip, changed, to (N,) probabilities of the class; a model of a scale to its numbers.

    Areas are compared between clips and models, and a logit has no bounds: one clip's would outweigh all others'.
    """
    mask = scorer.mask.expand(len(x), -1)
    outputs = scorer.outputs(scorer.features(x), mask)
    if scorer.model.predicts_values:
        return score_of(scorer.model, outputs, mask, scorer.target)
    return decide(scorer.model.head.level, outputs, mask, scorer.model.objective.rule).probabilities[:, scorer.target]


def cell_sums(maps: Tensor) -> tuple[Tensor, int]:
    """(T, S, S) to the sums over cells, (T, G, G), and a cell's side in pixels; those at the border may be smaller."""
    cell_px = max(1, -(-maps.shape[-1] // CELLS_A_SIDE))
    sums = functional.avg_pool2d(maps[:, None], cell_px, ceil_mode=True, divisor_override=1)[:, 0]
    return sums, cell_px


def _ranks(scorer: Scorer, values: Tensor, seed: int) -> tuple[Tensor, int | None]:
    """Each cell's or frame's place in the order, 0 for the most important, and a cell's side in pixels.

    Cells of masked frames have the places behind all others, where nothing looks: they hold -1.
    """
    if values.ndim not in (1, 3) or len(values) != len(scorer.clip):
        raise ValueError(f"Values are (T, S, S) maps or (T,), of {len(scorer.clip)} frames, not {tuple(values.shape)}.")
    known = values.double().to(scorer.x.device)
    sums, cell_px = (known, None) if values.ndim == 1 else cell_sums(known)
    flat = sums[scorer.real].flatten()
    # Cells that are equal stand in a random order; in that of the picture, the forehead would come first.
    shuffled = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed)).to(flat.device)
    order = shuffled[flat[shuffled].argsort(descending=True, stable=True)]
    ranks = torch.full_like(sums, -1, dtype=torch.long)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    ranks[scorer.real] = places.reshape(-1, *sums.shape[1:])
    return ranks, cell_px


def _over_input(cells: Tensor, cell_px: int | None, x: Tensor) -> Tensor:
    """(N, T, G, G) or (N, T) bool to what can be laid over (N, T, *F)."""
    if cell_px is None:
        return cells.reshape(*cells.shape, *[1] * (x.ndim - 1))
    pixels = cells.repeat_interleave(cell_px, dim=2).repeat_interleave(cell_px, dim=3)
    return pixels[:, :, None, : x.shape[-2], : x.shape[-1]]
