"""Scale invariant attention by the Triton kernels of `triton_kernels`, and where they can run.

To torch each pass is one operation with a known shape, so that tracing on fake tensors and torch.compile see it whole. What is
kept for the backward pass is what `relu_attention` keeps: q, k, v, out and one row sum a query.

Shapes: B batch, H heads, L sequence, K width of a head.
"""

import importlib.util
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

WIDTHS = range(16, 129, 16)  # of a head
MOST_POWER = 3
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAST_CAPABILITY = (8, 0)  # Ampere


class FusedAttention(torch.autograd.Function):
    """apply(q, k, v, power): [B, H, L, K] each, in one of DTYPES; returns [B, H, L, K], lying as [B, L, H, K]. Scores and row
    sums are fp32; a row without a positive score gives zeros, with zero gradients. The same bits at every run."""

    @staticmethod
    def forward(ctx: Any, q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, power: int) -> Tensor:
        q_BHLK, k_BHLK, v_BHLK = (_dense_heads(t) for t in (q_BHLK, k_BHLK, v_BHLK))
        out_BHLK, totals_BHL, key_exponents_BH = attend(q_BHLK, k_BHLK, v_BHLK, power)
        ctx.power = power
        ctx.save_for_backward(q_BHLK, k_BHLK, v_BHLK, out_BHLK, totals_BHL, key_exponents_BH)
        return out_BHLK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        dq_BHLK, dk_BHLK, dv_BHLK = attend_backward(_dense_heads(grads[0]), *ctx.saved_tensors, ctx.power)
        return dq_BHLK, dk_BHLK, dv_BHLK, None


@torch.library.custom_op("sibert::attend", mutates_args=())
def attend(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, power: int) -> tuple[Tensor, Tensor, Tensor]:
    """(out, row sums [B, H, L] in fp32, exponents of each head's keys [B, H])."""
    from pipeline.model import triton_attention

    out_BHLK, totals_BHL, key_exponents_BH = _empty_outputs(q_BHLK)
    if triton_attention.shortens(power, k_BHLK.dtype):
        largest_BH = torch.linalg.vector_norm(k_BHLK, float("inf"), dim=(-2, -1))
        key_exponents_BH.copy_(torch.frexp(largest_BH.float())[1])
    else:
        key_exponents_BH.zero_()
    blocks = triton_attention.blocks_of(q_BHLK.shape[-1], q_BHLK.dtype)
    triton_attention.attend(q_BHLK, k_BHLK, v_BHLK, key_exponents_BH, out_BHLK, totals_BHL, power, blocks.attend)
    return out_BHLK, totals_BHL, key_exponents_BH


@attend.register_fake
def _(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, power: int) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_outputs(q_BHLK)


@torch.library.custom_op("sibert::attend_backward", mutates_args=())
def attend_backward(
    grad_BHLK: Tensor,
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    out_BHLK: Tensor,
    totals_BHL: Tensor,
    key_exponents_BH: Tensor,
    power: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv)."""
    from pipeline.model import triton_attention

    into = (_as_heads_lie(q_BHLK), _as_heads_lie(k_BHLK), _as_heads_lie(v_BHLK))
    blocks = triton_attention.blocks_of(q_BHLK.shape[-1], q_BHLK.dtype)
    triton_attention.gradients(grad_BHLK, q_BHLK, k_BHLK, v_BHLK, out_BHLK, totals_BHL, key_exponents_BH, into, power, blocks)
    return into


@attend_backward.register_fake
def _(
    grad_BHLK: Tensor,
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    out_BHLK: Tensor,
    totals_BHL: Tensor,
    key_exponents_BH: Tensor,
    power: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return _as_heads_lie(q_BHLK), _as_heads_lie(k_BHLK), _as_heads_lie(v_BHLK)


def _empty_outputs(q_BHLK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    totals_BHL = q_BHLK.new_empty(q_BHLK.shape[:3], dtype=torch.float32)
    return _as_heads_lie(q_BHLK), totals_BHL, q_BHLK.new_empty(q_BHLK.shape[:2], dtype=torch.int32)


def _as_heads_lie(like_BHLK: Tensor) -> Tensor:
    """Empty, [B, H, L, K], lying as [B, L, H, K]: as the products before and after the attention want it."""
    return torch.empty_like(like_BHLK.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


def _dense_heads(x_BHLK: Tensor) -> Tensor:
    """As it is, if the numbers of each head lie side by side."""
    return x_BHLK if x_BHLK.stride(-1) == 1 else x_BHLK.contiguous()


@cache
def problem(device: torch.device, width: int, power: int, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot run on this device for heads of this width; None if they can. What looks possible is tried once:
    it takes a compiler, and a GPU that they fit on."""
    if width not in WIDTHS:
        return f"its heads have width {width}, and the kernels' a multiple of 16 up to 128"
    if power > MOST_POWER:
        return f"the kernels know powers up to {MOST_POWER}, and model.attention_power is {power}"
    if dtype not in DTYPES:
        return f"the kernels know no {dtype}"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return "there is no GPU"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if interpreted:
        return None
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than Ampere"
    return _refusal(device, width, power, dtype)


def _refusal(device: torch.device, width: int, power: int, dtype: torch.dtype) -> str | None:
    """What goes wrong in both passes of a small input, also if it is asked for within an evaluation, which has no gradients."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x_BHLK = torch.ones(1, 1, 16, width, device=device, dtype=dtype, requires_grad=True)
            out_BHLK: Tensor = FusedAttention.apply(x_BHLK, x_BHLK, x_BHLK, power)
            out_BHLK.sum().backward()
        torch.cuda.synchronize(device)
    except Exception as error:  # whatever a compiler, a driver or a missing header raises
        return f"they do not compile here ({type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''})"
    return None
