"""What an explanation is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.explain.frames import Frames


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

    def heat(self, cut: float = 0.0) -> Tensor:
        """(T, S, S) in 0..1 for drawing: what speaks for the class, on one scale over the clip.

        Args:
            cut: share of the strongest places of the real frames that are all drawn as 1; above 0 for methods that
                give single pixels very large values.
        """
        heat = self.maps.clamp(min=0)
        real = heat[self.present]
        top = torch.quantile(real.amax(dim=0).flatten(), 1 - cut) if cut else real.max()
        return (heat / top.clamp(min=torch.finfo(heat.dtype).tiny)).clamp(max=1)
