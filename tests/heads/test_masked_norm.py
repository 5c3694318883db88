"""`MaskedBatchNorm` against `nn.BatchNorm1d` on the selected rows."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from painseq.heads.masked_norm import MaskedBatchNorm


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(4, 6, 5) * 3 + 10, torch.rand(4, 6) > 0.4


def alike() -> tuple[MaskedBatchNorm, nn.BatchNorm1d]:
    ours, plain = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    with torch.no_grad():
        for module in (ours, plain):
            module.weight.copy_(torch.linspace(-1, 2, 5))
            module.bias.copy_(torch.linspace(3, -1, 5))
    return ours, plain


@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_statistics_are_batch_norms_over_the_real_rows(training):
    ours, plain = alike()
    for seed in range(3):
        x, mask = data(seed)
        ours(x, mask), plain(x[mask])
    ours.train(training), plain.train(training)
    x, mask = data(9)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours(mine, mask), plain(theirs[mask])
    torch.testing.assert_close(out[mask], expected)
    assert (out[~mask] == 0).all()
    weights = torch.randn(out.shape)
    (out * weights).sum().backward()
    (expected * weights[mask]).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    assert (mine.grad[~mask] == 0).all()
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)
    torch.testing.assert_close(ours.bias.grad, plain.bias.grad)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(plain.named_buffers()))


def test_the_gradient_is_the_slope():
    norm = MaskedBatchNorm(3).double()
    x, mask = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True), torch.rand(3, 4) > 0.3
    assert torch.autograd.gradcheck(lambda x, w, b: run(norm, x, mask, w, b), (x, norm.weight, norm.bias))


def run(norm, x, mask, weight, bias):
    return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x, mask))


@pytest.mark.parametrize("garbage", [1e30, math.inf, -math.inf, math.nan])
def test_garbage_in_masked_frames_changes_nothing(garbage):
    def step(x, mask):
        norm, _ = alike()
        x = x.clone().requires_grad_()
        out = norm(x, mask)
        (out * torch.linspace(-1, 1, 5)).square().sum().backward()
        return out, x.grad, norm.weight.grad, norm.bias.grad, dict(norm.named_buffers())

    x, mask = data()
    dirty = torch.where(mask[..., None], x, garbage)
    torch.testing.assert_close(step(dirty, mask), step(x, mask), atol=0, rtol=0)


def test_a_feature_far_from_zero_keeps_its_digits():
    x, mask = data()
    ours, plain = alike()
    expected = plain.double()((x.double() + 1e4)[mask])
    torch.testing.assert_close(ours(x + 1e4, mask)[mask], expected.float(), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_real_rows_use_the_running_statistics_and_leave_them(rows):
    x, mask = data()
    norm, _ = alike()
    norm(x, mask)
    before = {name: value.clone() for name, value in norm.named_buffers()}
    few = torch.zeros_like(mask)
    few[2, 3] = rows == 1
    leaf = x.clone().requires_grad_()
    out = norm(leaf, few)
    out.sum().backward()
    torch.testing.assert_close(dict(norm.named_buffers()), before, atol=0, rtol=0)
    leaf_eval = x.clone().requires_grad_()
    expected = norm.eval()(leaf_eval, few)
    expected.sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(leaf.grad, leaf_eval.grad)


def test_half_precision_is_normalised_in_float32():
    x, mask = data()
    norm, plain = alike()
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x.bfloat16(), mask)
    assert out.dtype == torch.bfloat16 and norm.running_mean.dtype == torch.float32
    expected = plain(x.bfloat16().float()[mask])
    torch.testing.assert_close(out[mask], expected.bfloat16())
    torch.testing.assert_close(norm.running_var, plain.running_var)


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    x, mask = data()
    mask[2:] &= mask[2:, :1]  # unequal shares
    share = slice(2 * rank, 2 * rank + 2)
    norm, _ = alike()
    leaf = x[share].clone().requires_grad_()
    out = norm(leaf, mask[share])
    (out.square() * torch.arange(5)).sum().backward()
    # A share without a real frame, and a batch with a single one.
    norm(x[share], mask[share] & (rank == 0))
    single = torch.zeros_like(mask)
    single[0, 0] = True
    norm(x[share], single[share])
    # Alone again: in eval mode nobody waits for the others.
    if rank == 0:
        norm.eval()(x, mask)
    result = out.detach(), leaf.grad, norm.weight.grad, norm.bias.grad, dict(norm.named_buffers())
    torch.save(result, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    # This file as a script, below: a spawned process could not import a module of the tests.
    started = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=600) for process in started] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    x, mask = data()
    mask[2:] &= mask[2:, :1]
    norm, _ = alike()
    leaf = x.clone().requires_grad_()
    out = norm(leaf, mask)
    (out.square() * torch.arange(5)).sum().backward()
    norm(x[:2], mask[:2])
    torch.testing.assert_close(torch.cat([first[0], second[0]]), out)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), leaf.grad)
    torch.testing.assert_close(first[2] + second[2], norm.weight.grad)
    torch.testing.assert_close(first[3] + second[3], norm.bias.grad)
    torch.testing.assert_close(first[4], dict(norm.named_buffers()))
    torch.testing.assert_close(second[4], first[4])


if __name__ == "__main__":
    one_of_two(int(sys.argv[1]), sys.argv[2])
