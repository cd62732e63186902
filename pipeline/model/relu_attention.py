"""out = W V / rowsum(W), W = ReLU(Q Kᵀ)^n, and its gradient, without keeping anything of size L x L.

The forward pass keeps q, k, v, out and one row sum a query; the backward pass computes the scores again, a block of
queries at a time. With t_i the row sum of W, g_i = grad_i / t_i and W_ij = s_ij^n:

    dV = Wᵀ g        dW_ij = <g_i, v_j> - <g_i, out_i>        ds_ij = n s_ij^(n-1) dW_ij        dq = ds k        dk = dsᵀ q

Shapes: B batch, H heads, L sequence, K width of a head, R queries of a block.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.autograd.function import once_differentiable

MOST_SCORES = 2**22  # of a block, over batch and heads: 16 MiB in fp32
TRACED_BLOCKS = 3  # sums begin with the first block, are in fp32 from the second one on, and then stay as they are


class ReluAttention(torch.autograd.Function):
    """apply(q, k, v, power): [B, H, L, K] each, in one dtype; returns [B, H, L, K]. Row sums are taken in fp32 at least; a row
    without a positive score gives zeros, with zero gradients. The same bits at every run of one machine."""

    @staticmethod
    def forward(ctx: Any, q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, power: int) -> Tensor:
        q_BHLK, k_BHLK, v_BHLK = (t.contiguous() for t in (q_BHLK, k_BHLK, v_BHLK))  # once, not in each of six products
        total_BHL1 = q_BHLK.new_empty((*q_BHLK.shape[:3], 1), dtype=torch.promote_types(q_BHLK.dtype, torch.float32))
        # Lies as [B, L, H, K], as the output projection wants it: one tensor serves both.
        out_BHLK = torch.empty_like(v_BHLK.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        for rows in _blocks(q_BHLK, k_BHLK):
            weights_BHRL = _power(_scores(q_BHLK[:, :, rows], k_BHLK), power)
            total_BHR1 = weights_BHRL.sum(dim=-1, keepdim=True, dtype=total_BHL1.dtype)
            total_BHL1[:, :, rows] = torch.where(total_BHR1 > 0, total_BHR1, 1.0)
            # Dividing after the product with V touches K columns instead of L; an empty row is 0 / 1.
            out_BHLK[:, :, rows] = (weights_BHRL @ v_BHLK) / total_BHL1[:, :, rows]
        ctx.power = power
        ctx.save_for_backward(q_BHLK, k_BHLK, v_BHLK, out_BHLK, total_BHL1)
        return out_BHLK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_BHLK, k_BHLK, v_BHLK, out_BHLK, total_BHL1 = ctx.saved_tensors
        g_BHLK = grads[0] / total_BHL1
        along_BHL1 = (g_BHLK * out_BHLK).sum(dim=-1, keepdim=True)
        g_BHLK, along_BHL1 = g_BHLK.to(v_BHLK.dtype), along_BHL1.to(v_BHLK.dtype)
        dq_BHLK = torch.empty_like(q_BHLK)
        dk_BHLK: Tensor | None = None
        dv_BHLK: Tensor | None = None
        for rows in _blocks(q_BHLK, k_BHLK):
            q, g = q_BHLK[:, :, rows], g_BHLK[:, :, rows]
            weights_BHRL, slope_BHRL = _weights_and_slope(_scores(q, k_BHLK), ctx.power)
            dv_BHLK = _plus(dv_BHLK, weights_BHRL.transpose(-1, -2) @ g)
            del weights_BHRL
            ds_BHRL = (g @ v_BHLK.transpose(-1, -2)).sub_(along_BHL1[:, :, rows]).mul_(slope_BHRL)
            del slope_BHRL
            dq_BHLK[:, :, rows] = ds_BHRL @ k_BHLK
            dk_BHLK = _plus(dk_BHLK, ds_BHRL.transpose(-1, -2) @ q)
        assert dk_BHLK is not None
        assert dv_BHLK is not None
        return dq_BHLK, dk_BHLK.to(k_BHLK.dtype), dv_BHLK.to(v_BHLK.dtype), None


def _scores(q_BHRK: Tensor, k_BHLK: Tensor) -> Tensor:
    """ReLU(q kᵀ), [B, H, R, L]."""
    return (q_BHRK @ k_BHLK.transpose(-1, -2)).relu_()


def _power(score_BHRL: Tensor, power: int) -> Tensor:
    """By products, power at least 1: exact where the scores are powers of two times others, which pow() is not bound to be."""
    result_BHRL = score_BHRL
    for _ in range(power - 1):
        result_BHRL = result_BHRL * score_BHRL
    return result_BHRL


def _weights_and_slope(score_BHRL: Tensor, power: int) -> tuple[Tensor, Tensor]:
    """s^n and its derivative n·s^(n-1)."""
    if power == 1:
        return score_BHRL, (score_BHRL > 0).to(score_BHRL.dtype)
    below_BHRL = _power(score_BHRL, power - 1)
    return below_BHRL * score_BHRL, power * below_BHRL


def _blocks(q_BHLK: Tensor, k_BHLK: Tensor) -> Iterator[slice]:
    """Of the queries, so that a block has at most MOST_SCORES scores, but one query of each head at least. Of tensors without
    numbers, which are there for their memory's sake, the first ones: the others take what they take."""
    batch, heads, length, _ = q_BHLK.shape
    rows = max(1, MOST_SCORES // max(1, batch * heads * k_BHLK.shape[2]))
    for first in range(0, length, rows):
        if isinstance(q_BHLK, FakeTensor) and first >= TRACED_BLOCKS * rows:
            return
        yield slice(first, first + rows)


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    """A sum over blocks, in fp32 at least as soon as there is more than one."""
    return part if total is None else total.to(torch.promote_types(total.dtype, torch.float32)).add_(part)
