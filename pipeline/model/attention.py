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

from pipeline.config.schema import ModelConfig, RunConfig
from pipeline.model import fused_attention
from pipeline.model.homogeneity import has_degree
from pipeline.model.relu_attention import ReluAttention

AUTO, BLOCKED, TRITON = "auto", "blocked", "triton"  # of train.attention_kernel


@has_degree("N(ReLU(Q Kᵀ)^n) V", is_homogeneous=True)
def scale_invariant_attention(
    q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None, power: int = 1, kernel: str = AUTO
) -> Tensor:
    """N(ReLU(Q Kᵀ)^n) V, N = division of each row by its sum, n = `power`; returns [B, H, L, K].

    Degrees (x, x, x; x): the row sum cancels the scale of q and k, so no 1/sqrt(K) and no eps. A row whose scores are all
    <= 0 gives zeros, with zero gradients. Padding (mask 0) is removed by multiplication, never by adding to a score: a key of
    zeros has scores of zero and weights of zero. Nothing of size [L, L] is kept for the backward pass (`relu_attention`, and
    `fused_attention` where `why_blocked` knows of nothing against it).
    """
    if mask_BL is not None:
        k_BHLK = k_BHLK * mask_BL[:, None, :, None].to(k_BHLK.dtype)
    if why_blocked(kernel, q_BHLK.device, q_BHLK.shape[-1], power, q_BHLK.dtype) is None:
        fused_BHLK: Tensor = fused_attention.FusedAttention.apply(q_BHLK, k_BHLK, v_BHLK, power)
        return fused_BHLK
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
    """2^-e with length = m·2^e, 1/2 <= m < 1; 1 for a length of 0. By its bits: torch.ldexp takes a power, which need not be
    exact on a GPU."""
    _, exponent = torch.frexp(length.float())
    bits = (127 - exponent).clamp_(1, 254).to(torch.int32).bitwise_left_shift_(23)
    return bits.view(torch.float32).to(length.dtype)


def why_blocked(kernel: str, device: torch.device, width: int, power: int, dtype: torch.dtype) -> str | None:
    """Why heads of this width are not attended to by the Triton kernels; None: they are."""
    if kernel == BLOCKED:
        return "as set"
    if kernel == AUTO and torch.promote_types(dtype, torch.float32) == dtype:
        return "fp32, for which the kernels have no tensor cores"
    return fused_attention.problem(device, width, power, dtype)


def attention_line(config: RunConfig, device: torch.device, dtype: torch.dtype) -> str | None:
    """What a start says of its attention; None: nothing, as of BERT's and on a CPU. ValueError if train.attention_kernel is
    'triton' and cannot be."""
    model, kernel = config.model, config.train.attention_kernel
    if model.encoder == "bert" or (kernel == AUTO and device.type == "cpu"):
        return None
    why = why_blocked(kernel, device, model.width // model.heads, model.attention_power, dtype)
    if kernel == TRITON and why is not None:
        raise ValueError(f"train.attention_kernel = 'triton' cannot be here: {why}; choose 'auto' or 'blocked'")
    return "attention: Triton kernels" if why is None else f"attention: blocks of torch's products ({why})"


def attention_of(config: ModelConfig, kernel: str = AUTO) -> Callable[..., Tensor]:
    """What a model's attention does with queries, keys, values and mask."""
    if config.encoder == "bert":
        return softmax_attention
    if config.attention_power == 1 and kernel == AUTO:
        return scale_invariant_attention
    powered = partial(scale_invariant_attention, power=config.attention_power, kernel=kernel)
    return has_degree(f"N(ReLU(Q Kᵀ)^{config.attention_power}) V", is_homogeneous=True)(powered)


@has_degree("softmax", is_homogeneous=False)
def softmax_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    """softmax(Q Kᵀ / sqrt(K)) V, the baseline's; returns [B, H, L, K]."""
    keep = None if mask_BL is None else mask_BL[:, None, None, :].bool()
    return functional.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, attn_mask=keep)
