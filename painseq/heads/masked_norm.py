"""Batch norm that counts real frames only."""

from __future__ import annotations

from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm1d):
    """`BatchNorm1d` over the real frames of a batch of clips.

    Padding and frames without a face enter neither the batch's statistics nor the running ones. A batch with a
    single real row has no variance: it is normalised with the running statistics, as in eval mode.
    """

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise (B, T, D) or (B, D) where `mask`, (B, T) or (B,), is true; all of (N, D) without a mask."""
        if mask is None:
            return self._normalise(input)
        out = input.new_zeros(input.shape)
        out[mask] = self._normalise(input[mask]).to(out.dtype)
        return out

    def _normalise(self, rows: Tensor) -> Tensor:
        if self.training and len(rows) < 2:
            return nn.functional.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(rows)
