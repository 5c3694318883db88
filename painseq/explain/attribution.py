"""What an explanation is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from painseq.errors import PainseqError
from painseq.explain.frames import Frames
from painseq.explain.regions import UNKNOWN, check_landmarks, region_map

COARSE = 16
"""Places along a side of a map that stands for a face which may not be shown. Single pixels of a gradient show the
face's edges, and those of gradient times input the face."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each part of a clip counts for a score (`painseq.explain.score.score_of`). On the CPU.

    Args:
        values: float32, exactly zero in frames without a face. Of the input's shape, (T, 3, S, S) or (T, D), for
            methods that speak of each number; (T, S, S) for those that speak of places; (T,) for those of frames.
        clip: what was explained.
        method: its name.
        target: class index, 0 for a model of a scale.
        class_name: of the target; the scale's name for a model of a scale.
        score: of the clip.
        layer: the layer looked at, for Grad-CAM.
        completeness_error: for Integrated Gradients: by what share of the difference between the clip's score and the
            baseline's the sum of `values` misses it.
        steps: for Integrated Gradients: gradients computed.
    """

    values: Tensor
    clip: Frames
    method: str
    target: int
    class_name: str
    score: float
    layer: str | None = None
    completeness_error: float | None = None
    steps: int | None = None

    @property
    def present(self) -> Tensor:
        """(T,) bool."""
        return self.clip.present

    @property
    def times_s(self) -> Tensor:
        """(T,) seconds from the clip's start."""
        return self.clip.times_s

    @property
    def has_space(self) -> bool:
        """Whether it speaks of places in the face."""
        return self.values.ndim >= 3

    @property
    def over_time(self) -> Tensor:
        """(T,) the sum of each frame's values: which frames count."""
        return self.values.reshape(len(self.values), -1).sum(dim=1)

    @property
    def maps(self) -> Tensor:
        """(T, S, S) with the sign; colours are added up.

        Raises:
            PainseqError: it speaks of frames or features, not of places.
        """
        if not self.has_space:
            raise PainseqError(f"{self.method} here says how much frames count, not places in them: there is no map.")
        return self.values.sum(dim=1) if self.values.ndim == 4 else self.values

    @property
    def regions(self) -> Tensor:
        """(T, S, S) int8, which of `painseq.explain.REGIONS` each pixel lies in; `UNKNOWN` where there is no face.

        `region_shares` adds the map up over them.

        Raises:
            PainseqError: no map, or a clip without the 68 landmarks of iBUG.
        """
        regions = torch.from_numpy(region_map(check_landmarks(self.clip), self.maps.shape[-1]))
        regions[~self.present] = UNKNOWN
        return regions

    def heat(self, cut: float = 0.0, coarse: bool = False) -> Tensor:
        """(T, S, S) in 0..1 for drawing: what speaks for the class, on one scale over the clip.

        Args:
            cut: share of the strongest places of the real frames that are all drawn as 1; above 0 for methods that
                give single pixels very large values.
            coarse: means over `COARSE` x `COARSE` places, so that a map does not show the face.
        """
        heat = self.maps.clamp(min=0)
        if coarse:
            small = functional.adaptive_avg_pool2d(heat[:, None], COARSE)
            heat = functional.interpolate(small, size=heat.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        real = heat[self.present]
        top = torch.quantile(real.amax(dim=0).flatten(), 1 - cut) if cut else real.max()
        return (heat / top.clamp(min=torch.finfo(heat.dtype).tiny)).clamp(max=1)
