"""`Attribution`, the result of every explanation method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from painseq.errors import PainseqError
from painseq.explain.frames import Frames
from painseq.explain.regions import UNKNOWN, check_landmarks, region_map

COARSE = 16
"""Cells along each side of a coarse map, drawn where the face must not be shown. At full resolution a gradient shows
the edges of the face, and gradient times input shows the face itself."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each part of a clip contributes to a score (`painseq.explain.score.score_of`). Tensors are on the CPU.

    Args:
        values: float32, exactly zero in frames without a face. The shape is that of the input, (T, 3, S, S) or (T, D),
            for methods that attribute to each input value; (T, S, S) for methods that attribute to places; (T,) for
            methods that attribute to frames.
        clip: the explained clip.
        method: name of the method.
        target: class index, 0 for a model of a scale.
        class_name: name of the target; for a model of a scale, name of the scale.
        score: score of the clip.
        layer: for Grad-CAM, the layer.
        completeness_error: for Integrated Gradients, the error of the sum of `values`, as a share of the difference
            between the scores of clip and baseline.
        steps: for Integrated Gradients, the number of gradients computed.
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
        """(T,) bool, whether each frame has a face."""
        return self.clip.present

    @property
    def times_s(self) -> Tensor:
        """(T,) seconds from the clip's start."""
        return self.clip.times_s

    @property
    def has_space(self) -> bool:
        """Whether the values belong to places in the face, so that there are maps."""
        return self.values.ndim >= 3

    @property
    def over_time(self) -> Tensor:
        """(T,) the sum of each frame's values."""
        return self.values.reshape(len(self.values), -1).sum(dim=1)

    @property
    def maps(self) -> Tensor:
        """(T, S, S) signed, summed over colour channels.

        Raises:
            PainseqError: the values belong to frames or features.
        """
        if not self.has_space:
            raise PainseqError(
                f"{self.method} gives values of frames or features here, not of places in the face, so there is no map."
            )
        return self.values.sum(dim=1) if self.values.ndim == 4 else self.values

    @property
    def regions(self) -> Tensor:
        """(T, S, S) int8, the index in `painseq.explain.REGIONS` of each pixel; `UNKNOWN` in frames without a face.

        `region_shares` sums the map over regions.

        Raises:
            PainseqError: no map, or a clip without the landmarks that define regions (`check_landmarks`).
        """
        regions = torch.from_numpy(region_map(check_landmarks(self.clip), self.maps.shape[-1]))
        regions[~self.present] = UNKNOWN
        return regions

    def heat(self, cut: float = 0.0, coarse: bool = False) -> Tensor:
        """Return the positive part of the maps for drawing, (T, S, S) in 0..1, on one scale over the clip.

        Args:
            cut: share of the strongest pixels in frames with a face that are drawn as 1; above 0 for methods with
                very large values in single pixels.
            coarse: average over `COARSE` x `COARSE` cells, so that the map does not show the face.
        """
        heat = self.maps.clamp(min=0)
        if coarse:
            small = functional.adaptive_avg_pool2d(heat[:, None], COARSE)
            heat = functional.interpolate(small, size=heat.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        real = heat[self.present]
        top = torch.quantile(real.amax(dim=0).flatten(), 1 - cut) if cut else real.max()
        return (heat / top.clamp(min=torch.finfo(heat.dtype).tiny)).clamp(max=1)
