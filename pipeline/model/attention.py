"""Scale invariant attention (paper section 3.2), the readable reference, and BERT's softmax attention.

Shapes: B batch, H heads, L sequence, K width of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model.homogeneity import has_degree


@has_degree("N(ReLU(Q Kᵀ)) V", is_homogeneous=True)
def scale_invariant_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    """N(ReLU(Q Kᵀ)) V, N = division of each row by its sum; returns [B, H, L, K].

    Degrees (x, x, x; x): the row sum cancels the scale of q and k, so no 1/sqrt(K) and no eps. A row whose scores are all
    <= 0 gives zeros, with zero gradients. Padding (mask 0) is removed by multiplication, never by adding to a score: a key of
    zeros has scores of zero and weights of zero, and only one tensor [B, H, L, L] is kept for the backward pass.
    """
    if mask_BL is not None:
        k_BHLK = k_BHLK * mask_BL[:, None, :, None].to(k_BHLK.dtype)
    weights_BHLL = torch.relu(q_BHLK @ k_BHLK.transpose(-1, -2))
    total_BHL1 = weights_BHLL.sum(dim=-1, keepdim=True)
    # Dividing after the product with V touches K columns instead of L; an empty row is 0 / 1.
    return (weights_BHLL @ v_BHLK) / torch.where(total_BHL1 > 0, total_BHL1, 1.0)


@has_degree("softmax", is_homogeneous=False)
def softmax_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    """softmax(Q Kᵀ / sqrt(K)) V, the baseline's; returns [B, H, L, K]."""
    keep = None if mask_BL is None else mask_BL[:, None, None, :].bool()
    return functional.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, attn_mask=keep)
