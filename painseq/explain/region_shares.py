"""Shares of the attribution and of the area for each region of the face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from painseq.explain.attribution import Attribution
from painseq.explain.regions import ACTION_UNITS, REGIONS, UNKNOWN
from painseq.explain.subject_means import SubjectMean, subject_mean


@dataclass(frozen=True, eq=False)
class RegionShares:
    """Distribution of the attribution of one clip over the regions of the face.

    Args:
        share: (R,) share of the positive attribution, summed over the counted frames; NaN if nothing is positive.
        area: (R,) share of the pixels of the same frames: the share of a uniform map.
        frames: number of counted frames.
        left_out: number of frames without a face or without known landmarks.
    """

    share: NDArray[np.float64]
    area: NDArray[np.float64]
    frames: int
    left_out: int

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON; None in place of NaN."""
        pairs = zip(REGIONS, self.share.tolist(), self.area.tolist(), strict=True)
        regions = {
            name: {"share": None if math.isnan(share) else share, "area": None if math.isnan(area) else area}
            for name, share, area in pairs
        }
        return {"frames": self.frames, "left_out": self.left_out, "regions": regions}


def region_shares(attribution: Attribution, among: Tensor | None = None) -> RegionShares:
    """Return each region's share of the positive part of the map and of the area.

    The positive part contributes to the class, and is what is drawn; the negative part is ignored. Frames with larger
    values count more. Frames without a face are ignored for both map and area.

    Args:
        attribution: has maps, of a clip with landmarks (`check_landmarks`).
        among: (T,) bool, frames to count; None: all.

    Raises:
        PainseqError: no maps, or no landmarks.
    """
    maps = attribution.maps.clamp(min=0).double().numpy()
    regions = attribution.regions.numpy()
    wanted = torch.ones_like(attribution.present) if among is None else among
    counted = wanted.numpy() & (regions[:, 0, 0] != UNKNOWN)
    inside = regions[counted].ravel()
    mass = np.bincount(inside, weights=maps[counted].ravel(), minlength=len(REGIONS))
    pixels = np.bincount(inside, minlength=len(REGIONS)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        share, area = mass / mass.sum(), pixels / pixels.sum()
    return RegionShares(share, area, int(counted.sum()), int(wanted.sum()) - int(counted.sum()))


@dataclass(frozen=True)
class RegionRow:
    """One region over many clips.

    Args:
        region: name in `REGIONS`.
        share: share of the attribution.
        area: share of the pixels.
        excess: share minus area; 0 for a uniform map.
    """

    region: str
    share: SubjectMean
    area: SubjectMean
    excess: SubjectMean

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "region": self.region,
            "action_units": list(ACTION_UNITS[self.region]),
            "share": self.share.to_dict(),
            "area": self.area.to_dict(),
            "excess": self.excess.to_dict(),
        }


def region_table(shares: Sequence[RegionShares], subject_ids: Sequence[str]) -> tuple[RegionRow, ...]:
    """Return one row for each of `REGIONS`: means over subjects, with intervals. Clips with an empty map are left out.

    Args:
        shares: N, one per clip.
        subject_ids: N, the subject of each clip.
    """
    share = np.stack([clip.share for clip in shares])
    # The area of a clip with an empty map has no share to compare with.
    area = np.where(np.isnan(share), np.nan, np.stack([clip.area for clip in shares]))
    return tuple(
        RegionRow(
            region,
            subject_mean(share[:, number], subject_ids, (0, 1)),
            subject_mean(area[:, number], subject_ids, (0, 1)),
            subject_mean(share[:, number] - area[:, number], subject_ids, (-1, 1)),
        )
        for number, region in enumerate(REGIONS)
    )
