"""Batch norm over real frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable


def _sum_over_processes(sums: Tensor) -> Tensor:
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums)
    return sums


class _NormaliseByBatch(torch.autograd.Function):
    """Normalise rows (N, D) by the mean and variance of the real rows of all processes.

    The gradient is implemented explicitly, as in PyTorch's batch norm, since autograd would keep a dozen copies of all
    frames. Each row's gradient depends on all other rows, including those of other processes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        real: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # `where` instead of a product, as masked rows may contain infinities. In-place operations from here on, as
        # allocating memory costs more than the arithmetic on a CPU.
        rows, real = torch.where(real, x, 0.0), real.to(x.dtype)
        sums = _sum_over_processes(torch.cat([rows.sum(dim=0), real.sum(dim=0)]))
        total, count = sums[:-1], sums[-1]
        enough = count > 1
        mean = torch.where(enough, total / count.clamp(min=1), running_mean)
        out = torch.square(rows.sub_(mean).mul_(real))
        squares = _sum_over_processes(out.sum(dim=0))
        deviation = torch.sqrt(torch.where(enough, squares / count.clamp(min=1), running_var) + eps)
        torch.addcmul(bias, rows.div_(deviation), weight, out=out).mul_(real)
        unbiased = squares / (count - 1).clamp(min=1)
        ctx.save_for_backward(rows, real, weight, deviation, enough / count.clamp(min=1))
        ctx.mark_non_differentiable(mean, unbiased, enough)
        return out, mean, unbiased, enough

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, real, weight, deviation, share = ctx.saved_tensors
        grad = grads[0] * real
        of_bias = grad.sum(dim=0)
        of_weight = torch.mul(grads[0], rows, out=grad).sum(dim=0)
        if not ctx.needs_input_grad[0]:
            return None, None, of_weight, of_bias, None, None, None
        of_mean, of_deviation = _sum_over_processes(torch.stack([of_bias, of_weight])) * share
        torch.sub(grads[0], of_mean, out=grad).addcmul_(rows, of_deviation, value=-1).mul_(weight / deviation)
        return grad.mul_(real), None, of_weight, of_bias, None, None, None


class MaskedBatchNorm(nn.Module):
    """`BatchNorm1d` over the real frames of a batch of clips.

    Padding and frames without a face do not affect batch or running statistics, and their output is zero. A batch with
    a single real row has no variance and is normalised with the running statistics, as in eval mode. Half precision is
    normalised in float32.

    In distributed training, statistics are computed over the rows of all processes. Each process must therefore call
    the layer for each batch, even without real frames.

    Args:
        num_features: width D of a row.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise (B, T, D) or (B, D) where `mask`, (B, T) or (B,), is true; zeros elsewhere."""
        rows = x.to(torch.promote_types(x.dtype, self.running_mean.dtype)).reshape(-1, x.shape[-1])
        real = mask.reshape(-1, 1)
        if self.training:
            running = (self.running_mean, self.running_var)
            out, mean, variance, enough = _NormaliseByBatch.apply(
                rows, real, self.weight, self.bias, *running, self.eps
            )
            with torch.no_grad():
                step = self.momentum * enough
                self.running_mean.lerp_(mean, step)
                self.running_var.lerp_(variance, step)
                self.num_batches_tracked += enough
        else:
            clean = torch.where(real, rows, 0.0)
            out = real * nn.functional.batch_norm(
                clean, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        normalised: Tensor = out.reshape(x.shape).to(x.dtype)
        return normalised
