"""Scale invariant attention (paper section 3.2), the readable reference, and BERT's softmax attention.

The paper's weights are ReLU(Q Kᵀ) over their row sum. Any power of them is as scale invariant, since the sum cancels it, too;
powers 2 and 3 are sharper, and smooth where a score crosses 0.

Shapes: B batch, H heads, L sequence, K width of a head.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config.schema import ModelConfig
from pipeline.model.homogeneity import has_degree
from pipeline.model.normalise import row_norms


@has_degree("N(ReLU(Q Kᵀ)^n) V", is_homogeneous=True)
def scale_invariant_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None, power: int = 1) -> Tensor:
    """N(ReLU(Q Kᵀ)^n) V, N = division of each row by its sum, n = `power`; returns [B, H, L, K].

    Degrees (x, x, x; x): the row sum cancels the scale of q and k, so no 1/sqrt(K) and no eps. A row whose scores are all
    <= 0 gives zeros, with zero gradients. Padding (mask 0) is removed by multiplication, never by adding to a score: a key of
    zeros has scores of zero and weights of zero, and only one tensor [B, H, L, L] is kept for the backward pass.
    """
    if mask_BL is not None:
        k_BHLK = k_BHLK * mask_BL[:, None, :, None].to(k_BHLK.dtype)
    if power > 1:
        q_BHLK, k_BHLK = _shortened(q_BHLK, k_BHLK)
    scores_BHLL = torch.relu(q_BHLK @ k_BHLK.transpose(-1, -2))
    weights_BHLL = scores_BHLL
    for _ in range(power - 1):
        weights_BHLL = weights_BHLL * scores_BHLL
    total_BHL1 = weights_BHLL.sum(dim=-1, keepdim=True)
    # Dividing after the product with V touches K columns instead of L; an empty row is 0 / 1.
    return (weights_BHLL @ v_BHLK) / torch.where(total_BHL1 > 0, total_BHL1, 1.0)


def _shortened(q_BHLK: Tensor, k_BHLK: Tensor) -> tuple[Tensor, Tensor]:
    """Every query divided by its length, the keys of a head by that of the longest: no power of a score then leaves the range
    of numbers. The row sum cancels both, so they are constants for the gradient, which is exact without theirs."""
    q_BHL1 = row_norms(q_BHLK.detach())[..., None].to(q_BHLK.dtype)
    longest_BH11 = torch.linalg.vector_norm(k_BHLK.detach(), dim=-1, keepdim=True).amax(dim=-2, keepdim=True)
    return q_BHLK / q_BHL1, k_BHLK / torch.where(longest_BH11 > 0, longest_BH11, 1.0)


def attention_of(config: ModelConfig) -> Callable[..., Tensor]:
    """What a model's attention does with queries, keys, values and mask."""
    if config.encoder == "bert":
        return softmax_attention
    if config.attention_power == 1:
        return scale_invariant_attention
    powered = partial(scale_invariant_attention, power=config.attention_power)
    return has_degree(f"N(ReLU(Q Kᵀ)^{config.attention_power}) V", is_homogeneous=True)(powered)


@has_degree("softmax", is_homogeneous=False)
def softmax_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    """softmax(Q Kᵀ / sqrt(K)) V, the baseline's; returns [B, H, L, K]."""
    keep = None if mask_BL is None else mask_BL[:, None, None, :].bool()
    return functional.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, attn_mask=keep)
