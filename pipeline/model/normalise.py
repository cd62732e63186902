"""Normalisations without an absolute constant: degree (x; 0) exactly, and zero where there is nothing to normalise.

Any eps that is not homogeneous breaks f(cx) = f(x). What stands in for it here is the smallest normal number of the dtype,
which no variance or norm that a run can meet is near, together with a factor that is 0 for a row without any signal: such
a row gives zeros and zero gradients instead of NaN or 1e19.
"""

import torch
from torch import Tensor
from torch.nn import functional


def layer_norm(x_BLD: Tensor) -> Tensor:
    """LayerNorm over the last dimension without affine and without eps; zero rows stay zero."""
    normed_BLD = functional.layer_norm(x_BLD, x_BLD.shape[-1:], eps=torch.finfo(x_BLD.dtype).tiny)
    alive_BL1 = (x_BLD != 0).any(dim=-1, keepdim=True)
    return normed_BLD * alive_BL1


def row_norms(weight_VD: Tensor) -> Tensor:
    """||w_v|| of each row, [V]; 1 for a zero row, so that dividing by it is safe and its gradient is finite."""
    square_V = weight_VD.square().sum(dim=-1)
    return torch.where(square_V > 0, square_V, 1.0).sqrt()
