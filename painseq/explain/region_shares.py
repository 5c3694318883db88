"""Attribution over the regions of the face, beside each region's share of the area."""

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
    """How the attribution of one clip is spread over the face.

    Args:
        share: (R,) of what speaks for the class, summed over the frames that count; NaN where nothing does.
        area: (R,) of the pixels of the same frames: the share of a map that knows nothing.
        frames: how many count.
        left_out: frames without a face, or whose landmarks are not known.
    """

    share: NDArray[np.float64]
    area: NDArray[np.float64]
    frames: int
    left_out: int

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON; None in place of NaN."""
        pairs = zip(REGIONS, self.share.tolist(), self.area.tolist(), strict=True)
        regions = {
            name: {"share": None if math.isnan(share) else share, "area": None if math.isnan(area) else area}
            for name, share, area in pairs
        }
        return {"frames": self.frames, "left_out": self.left_out, "regions": regions}


def region_shares(attribution: Attribution, among: Tensor | None = None) -> RegionShares:
    """Each region's share of the positive part of the map, beside its share of the area.

    The positive part is what speaks for the class, and what is drawn; what speaks against it is not counted. Frames
    with more of it count more. A frame without a face counts neither for the map nor for the area.

    Args:
        attribution: with maps, of a clip with 68 landmarks.
        among: (T,) bool, count these frames only.

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
        region: of `REGIONS`.
        share: of the attribution.
        area: of the pixels.
        excess: share minus area; 0 is what a map gives that knows nothing.
    """

    region: str
    share: SubjectMean
    area: SubjectMean
    excess: SubjectMean

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "region": self.region,
            "action_units": list(ACTION_UNITS[self.region]),
            "share": self.share.to_dict(),
            "area": self.area.to_dict(),
            "excess": self.excess.to_dict(),
        }


def region_table(shares: Sequence[RegionShares], subject_ids: Sequence[str]) -> tuple[RegionRow, ...]:
    """A row for each of `REGIONS`: means over subjects, with intervals. Clips whose map is empty are left out.

    Args:
        shares: of N clips.
        subject_ids: N, whom each clip shows.
    """
    share = np.stack([clip.share for clip in shares])
    # A clip without a map has an area, but nothing to hold beside it.
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
