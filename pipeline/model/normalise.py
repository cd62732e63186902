"""Normalisations without an absolute constant: degree (x; 0) exactly, and zero where there is nothing to normalise.

Any eps that is not homogeneous breaks f(cx) = f(x). What stands in for it here is the smallest normal number of the dtype,
which no variance or norm that a run can meet is near. A row without any signal gives zeros and zero gradients instead of
NaN or 1e19.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.model.homogeneity import Row
from pipeline.model.precision import at_least_fp32


class _LayerNorm(torch.autograd.Function):
    """torch's own kernels, with 1/σ of a constant row put to 0: then both its output and its gradient are 0, without
    another pass over the rows. Keeps its output, which whatever comes next keeps as well, and 1/σ, but not its input: the
    gradient is that of normalising the output again, divided by σ."""

    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor) -> Tensor:
        tiny = torch.finfo(x_BLD.dtype).tiny
        y_BLD, _, inverse_BL1 = torch.native_layer_norm(x_BLD, x_BLD.shape[-1:], None, None, tiny)
        inverse_BL1 = torch.where(inverse_BL1 < 0.5 * tiny**-0.5, inverse_BL1, 0.0)  # a constant row's is tiny**-0.5
        ctx.save_for_backward(y_BLD, inverse_BL1)
        return y_BLD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        y_BLD, inverse_BL1 = ctx.saved_tensors
        no_mean, no_change = torch.zeros_like(inverse_BL1), torch.ones_like(inverse_BL1)
        want = [True, False, False]
        dx_BLD: Tensor = torch.ops.aten.native_layer_norm_backward(
            grads[0].contiguous(), y_BLD, y_BLD.shape[-1:], no_mean, no_change, None, None, want
        )[0]
        return dx_BLD.mul_(inverse_BL1)


def layer_norm(x_BLD: Tensor) -> Tensor:
    """LayerNorm over the last dimension without affine and without eps; constant rows become zeros."""
    result: Tensor = _LayerNorm.apply(x_BLD)
    return result


def layer_norm_row(name: str, degree: int, where: str = "") -> Row:
    """Of `layer_norm`: whatever degree the stream has, 0 is left. `where` is put behind its name in the table."""
    return Row(name, f"LayerNorm without affine{where}", degree, 0)


def row_norms(weight_VD: Tensor) -> Tensor:
    """||w_v|| of each row, [V], in fp32 at least; 1 for a zero row: dividing by it is safe, its gradient is zero."""
    at_least = torch.promote_types(weight_VD.dtype, torch.float32)
    norm_V = torch.linalg.vector_norm(weight_VD, dim=-1, dtype=at_least)  # keeps no copy of the weights
    return torch.where(norm_V > 0, norm_V, 1.0)


def row_normalised_logits(h_D: Tensor, weight_CD: Tensor, tau: float) -> Tensor:
    """τ·<h, w_c/||w_c||>, [..., D] -> [..., C], in fp32 at least: of h's degree, and of degree 0 in each row of the weight."""
    return at_least_fp32(h_D @ weight_CD.t()) * (tau / row_norms(weight_CD))
