"""-log p of each predicted token, without all logits at once.

    z_nv = <h_n, w_v> s_v + b_v     lse_n = log Σ_v exp(z_nv)     loss_n = lse_n - z_n,label
    dz_nv = grad_n (exp(z_nv - lse_n) - [v = label])

A vocabulary's logits in fp32, their softmax and its gradient are the largest tensors of a training step: at 2,458 predictions
(32 sequences of 512) over 30,000 tokens 0.3 GiB each. Above MOST_LOGITS they are made for a block of the vocabulary at a time,
and once more in the backward pass, for a few percent of a step's products. Blocks of the vocabulary, not of the predictions:
each row of the weight then has its whole gradient within its block, and nothing of the weight's size is summed up in fp32.

Shapes: N predictions, V vocabulary, D width, R rows of a block.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pipeline.model.precision import at_least_fp32

MOST_LOGITS = 2**23  # at a time: 32 MiB in fp32


def decoded(h_ND: Tensor, weight_VD: Tensor, scale_V: Tensor | None, bias_V: Tensor) -> Tensor:
    """The logits [N, V]; with a scale in fp32 at least."""
    if scale_V is None:
        return functional.linear(h_ND, weight_VD, bias_V)
    return torch.addcmul(bias_V.to(scale_V.dtype), at_least_fp32(h_ND @ weight_VD.t()), scale_V)


def token_loss(h_ND: Tensor, weight_VD: Tensor, scale_V: Tensor | None, bias_V: Tensor, labels_N: Tensor) -> Tensor:
    """The loss of each prediction [N], in fp32 at least. Differentiable once where the logits are too many to be held."""
    if h_ND.shape[0] * weight_VD.shape[0] <= MOST_LOGITS:
        logits_NV = at_least_fp32(decoded(h_ND, weight_VD, scale_V, bias_V))
        return functional.cross_entropy(logits_NV, labels_N, reduction="none")
    kind = torch.promote_types(h_ND.dtype, torch.float32)
    scale_V = weight_VD.new_ones(weight_VD.shape[0], dtype=kind) if scale_V is None else scale_V
    loss_N: Tensor = _LossInBlocks.apply(h_ND, weight_VD, scale_V, bias_V, labels_N)
    return loss_N


class _LossInBlocks(torch.autograd.Function):
    """Keeps its arguments and one number a prediction, the logarithm of its row's sum. The scale's dtype is the logits'."""

    @staticmethod
    def forward(ctx: Any, h_ND: Tensor, weight_VD: Tensor, scale_V: Tensor, bias_V: Tensor, labels_N: Tensor) -> Tensor:
        log_sum_N = scale_V.new_full(labels_N.shape, -torch.inf)
        at_label_N = torch.zeros_like(log_sum_N)
        for rows in _blocks(h_ND, weight_VD):
            _, logits_NR = _product_and_logits(h_ND, weight_VD, scale_V, bias_V, rows)
            here_N, at_N = _labels_in(labels_N, rows)
            at_label_N += torch.where(here_N, logits_NR.gather(1, at_N[:, None]).squeeze(1), 0.0)
            log_sum_N = torch.logaddexp(log_sum_N, logits_NR.logsumexp(dim=-1))
        ctx.save_for_backward(h_ND, weight_VD, scale_V, bias_V, labels_N, log_sum_N)
        return log_sum_N - at_label_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h_ND, weight_VD, scale_V, bias_V, labels_N, log_sum_N = ctx.saved_tensors
        dh_ND = torch.zeros_like(h_ND, dtype=scale_V.dtype)
        dweight_VD, dscale_V, dbias_V = torch.empty_like(weight_VD), torch.empty_like(scale_V), torch.empty_like(bias_V)
        for rows in _blocks(h_ND, weight_VD):
            product_NR, logits_NR = _product_and_logits(h_ND, weight_VD, scale_V, bias_V, rows)
            d_NR = logits_NR.sub_(log_sum_N[:, None]).exp_()
            here_N, at_N = _labels_in(labels_N, rows)
            d_NR.scatter_add_(1, at_N[:, None], -here_N[:, None].to(d_NR.dtype))
            d_NR *= grads[0][:, None]
            dbias_V[rows] = d_NR.sum(dim=0)
            dscale_V[rows] = product_NR.mul_(d_NR).sum(dim=0)
            d_NR = (d_NR * scale_V[rows]).to(weight_VD.dtype)
            dh_ND += d_NR @ weight_VD[rows]
            torch.mm(d_NR.t(), h_ND, out=dweight_VD[rows])
        return dh_ND.to(h_ND.dtype), dweight_VD, dscale_V, dbias_V, None


def _product_and_logits(h_ND: Tensor, weight_VD: Tensor, scale_V: Tensor, bias_V: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """h Wᵀ of a block, and its logits; both in the scale's dtype. The same bits in both passes."""
    product_NR = (h_ND @ weight_VD[rows].t()).to(scale_V.dtype)
    return product_NR, torch.addcmul(bias_V[rows].to(scale_V.dtype), product_NR, scale_V[rows])


def _blocks(h_ND: Tensor, weight_VD: Tensor) -> Iterator[slice]:
    """Of the vocabulary, of MOST_LOGITS logits at most, but one row at least."""
    rows = max(1, MOST_LOGITS // max(1, h_ND.shape[0]))
    for first in range(0, weight_VD.shape[0], rows):
        yield slice(first, min(first + rows, weight_VD.shape[0]))


def _labels_in(labels_N: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Which labels are in the block, and where; at 0 those that are not."""
    here_N = (labels_N >= rows.start) & (labels_N < rows.stop)
    return here_N, torch.where(here_N, labels_N - rows.start, 0)
