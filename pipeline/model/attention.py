"""Scale invariant attention (paper section 3.2), and BERT's softmax attention.

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
from pipeline.model.relu_attention import ReluAttention


@has_degree("N(ReLU(Q Kᵀ)^n) V", is_homogeneous=True)
def scale_invariant_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None, power: int = 1) -> Tensor:
    """N(ReLU(Q Kᵀ)^n) V, N = division of each row by its sum, n = `power`; returns [B, H, L, K].

    Degrees (x, x, x; x): the row sum cancels the scale of q and k, so no 1/sqrt(K) and no eps. A row whose scores are all
    <= 0 gives zeros, with zero gradients. Padding (mask 0) is removed by multiplication, never by adding to a score: a key of
    zeros has scores of zero and weights of zero. Nothing of size [L, L] is kept for the backward pass (`relu_attention`).
    """
    if mask_BL is not None:
        k_BHLK = k_BHLK * mask_BL[:, None, :, None].to(k_BHLK.dtype)
    if power > 1:
        q_BHLK, k_BHLK = _shortened(q_BHLK, k_BHLK)
    out_BHLK: Tensor = ReluAttention.apply(q_BHLK, k_BHLK, v_BHLK, power)
    return out_BHLK


def _shortened(q_BHLK: Tensor, k_BHLK: Tensor) -> tuple[Tensor, Tensor]:
    """Every query divided by about its length, the keys of a head by about that of the longest: no power of a score then leaves
    the range of numbers. By powers of two, which rounds nothing. The row sum cancels both, so they are constants for the
    gradient, which is exact without theirs."""
    query_BHL1 = torch.linalg.vector_norm(q_BHLK.detach(), dim=-1, keepdim=True)
    longest_key_BH11 = torch.linalg.vector_norm(k_BHLK.detach(), dim=-1, keepdim=True).amax(dim=-2, keepdim=True)
    return q_BHLK * _inverse_power_of_two(query_BHL1), k_BHLK * _inverse_power_of_two(longest_key_BH11)


def _inverse_power_of_two(length: Tensor) -> Tensor:
    """2^-e with length = m·2^e, 1/2 <= m < 1; 1 for a length of 0."""
    _, exponent = torch.frexp(length.float())
    return torch.ldexp(torch.ones_like(length, dtype=torch.float32), -exponent).to(length.dtype)


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
