"""Functionals of each column of a clip over time: the field's usual road from a course of values to one row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from painseq.batch import masked_mean

FUNCTIONALS = ("mean", "sd", "min", "max", "range", "median", "iqr", "slope")
"""Of the values; the same follow of the differences between successive frames, as "diff mean" and so on."""


def functional_names(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Name the columns that `functionals` gives, such as "jawOpen sd" and "jawOpen diff max"."""
    kinds = [*FUNCTIONALS, *(f"diff {name}" for name in FUNCTIONALS)]
    return tuple(f"{column} {kind}" for kind in kinds for column in columns)


def functionals(x: Tensor, mask: Tensor) -> Tensor:
    """Describe the course of each column over the real frames of a clip.

    Mean, standard deviation (of the population), minimum, maximum, range, median, interquartile range (quantiles
    interpolated linearly), and slope of the regression line over the frame's number; and the same of the differences
    between successive frames that are both real.

    Args:
        x: (B, T, D) float; masked frames may hold anything.
        mask: (B, T) bool.

    Returns:
        (B, 16 D) float64, 0 where there is no value: ordered by functional, then by column.
    """
    x = x.double()
    values = _of(x, mask)
    # One masked difference more, so that a clip of one frame has no empty axis, which an exported graph could not take.
    differences = F.pad(x[:, 1:] - x[:, :-1], (0, 0, 0, 1))
    successive = F.pad(mask[:, 1:] & mask[:, :-1], (0, 1))
    return torch.cat([values, _of(differences, successive)], dim=1)


def _of(x: Tensor, mask: Tensor) -> Tensor:
    if not x.shape[1]:
        return x.new_zeros((x.shape[0], len(FUNCTIONALS) * x.shape[2]))
    real = mask[..., None]
    x = x.masked_fill(~real, 0.0)
    count = mask.sum(dim=1, keepdim=True)
    mean = masked_mean(x, mask)
    centred = (x - mean[:, None]).masked_fill(~real, 0.0)
    sd = masked_mean(centred.square(), mask).sqrt()
    low = x.masked_fill(~real, float("inf")).amin(dim=1)
    high = x.masked_fill(~real, -float("inf")).amax(dim=1)
    quartiles = [_quantile(x, mask, share) for share in (0.25, 0.5, 0.75)]
    number = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[None, :, None].expand(x.shape[0], -1, 1)
    number = (number - masked_mean(number, mask)[:, None]).masked_fill(~real, 0.0)
    slope = (number * centred).sum(dim=1) / number.square().sum(dim=1).clamp(min=1e-12)
    found = torch.stack([mean, sd, low, high, high - low, quartiles[1], quartiles[2] - quartiles[0], slope], dim=1)
    return torch.where((count > 0)[:, :, None], found, 0.0).flatten(1)


def _quantile(x: Tensor, mask: Tensor, share: float) -> Tensor:
    """Return (B, D), the quantile of the real frames, interpolated linearly."""
    ordered = x.masked_fill(~mask[..., None], float("inf")).sort(dim=1).values
    place = (mask.sum(dim=1) - 1).clamp(min=0).to(x.dtype) * share
    below = place.floor()
    at = [
        ordered.gather(1, index.long()[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
        for index in (below, place.ceil())
    ]
    low, high = (torch.where(value.isfinite(), value, 0.0) for value in at)
    return low + (high - low) * (place - below)[:, None]
