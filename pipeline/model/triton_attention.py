"""Launching the kernels of `triton_kernels`: on which blocks, with which options. Needs triton.

Shapes: B batch, H heads, L sequence, K width of a head.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.model import triton_kernels as kernels

# In fp16, weights of at most 128^n become numbers of at most 2^15 before they are multiplied with V.
FP16_LIFT = {1: 2.0**8, 2: 2.0**1, 3: 2.0**-6}


class Blocks(NamedTuple):
    """Queries and keys of a block, warps of a program, and how many blocks are on their way to it at once."""

    queries: int
    keys: int
    warps: int
    stages: int


class KernelBlocks(NamedTuple):
    """Of each kernel."""

    attend: Blocks
    query_gradient: Blocks
    key_gradient: Blocks


def blocks_of(width: int, dtype: torch.dtype) -> KernelBlocks:
    """Of heads of this width. Fixed, not tuned at a start: the order of a sum, and with it the last bit of a run that goes on,
    must not hang on which was the fastest that day. What a program keeps on chip is at most 99 KiB, which every GPU since
    Ampere has."""
    if kernels.INTERPRETED:
        return KernelBlocks(*(Blocks(16, 16, 1, 1),) * 3)
    if dtype == torch.float32:
        if width > 64:
            return KernelBlocks(*(Blocks(32, 32, 4, 1),) * 3)
        return KernelBlocks(Blocks(64, 32, 4, 2), Blocks(64, 32, 4, 2), Blocks(32, 64, 4, 2))
    if width > 64:
        return KernelBlocks(Blocks(64, 64, 4, 2), Blocks(64, 64, 4, 2), Blocks(32, 64, 4, 2))
    return KernelBlocks(Blocks(128, 64, 4, 3), Blocks(128, 64, 8, 2), Blocks(64, 128, 8, 2))


def attend(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    key_exponents_BH: Tensor,
    out_BHLK: Tensor,
    totals_BHL: Tensor,
    power: int,
    blocks: Blocks,
) -> None:
    """Writes `out_BHLK` and `totals_BHL`. The last dimension of each tensor is dense; the others may lie anyhow."""
    options = {**_options(q_BHLK, power, blocks), "LIFT": FP16_LIFT[power] if q_BHLK.dtype == torch.float16 else 1.0}
    tensors = (q_BHLK, k_BHLK, v_BHLK)
    kernels.attend[_grid(q_BHLK, blocks.queries)](
        *tensors, key_exponents_BH, out_BHLK, totals_BHL, *_strides(*tensors, out_BHLK), *_sizes(q_BHLK), **options
    )


def gradients(
    grad_BHLK: Tensor,
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    out_BHLK: Tensor,
    totals_BHL: Tensor,
    key_exponents_BH: Tensor,
    into: tuple[Tensor, Tensor, Tensor],
    power: int,
    blocks: KernelBlocks,
) -> None:
    """Writes dq, dk and dv `into` these."""
    dq_BHLK, dk_BHLK, dv_BHLK = into
    along_BHL, scales_BHL = torch.empty_like(totals_BHL), torch.empty_like(totals_BHL)
    tensors, sizes = (q_BHLK, k_BHLK, v_BHLK, grad_BHLK), _sizes(q_BHLK)
    kernels.query_gradient[_grid(q_BHLK, blocks.query_gradient.queries)](
        *tensors, out_BHLK, totals_BHL, key_exponents_BH, dq_BHLK, along_BHL, scales_BHL,
        *_strides(*tensors, out_BHLK, dq_BHLK), *sizes, **_options(q_BHLK, power, blocks.query_gradient),
    )  # fmt: skip
    kernels.key_gradient[_grid(q_BHLK, blocks.key_gradient.keys)](
        *tensors, totals_BHL, along_BHL, scales_BHL, dk_BHLK, dv_BHLK,
        *_strides(*tensors, dk_BHLK, dv_BHLK), *sizes, **_options(q_BHLK, power, blocks.key_gradient),
    )  # fmt: skip


def _grid(q_BHLK: Tensor, rows: int) -> tuple[int]:
    batch, heads, length, _ = q_BHLK.shape
    return (batch * heads * -(-length // rows),)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def _sizes(q_BHLK: Tensor) -> tuple[int, int]:
    return q_BHLK.shape[1], q_BHLK.shape[2]


def _options(q_BHLK: Tensor, power: int, blocks: Blocks) -> dict[str, Any]:
    length, width = q_BHLK.shape[2:]
    return {
        "POWER": power,
        "SHORTEN": shortens(power, q_BHLK.dtype),
        "UPCAST": kernels.INTERPRETED and q_BHLK.dtype == torch.bfloat16,
        "EVEN": length % blocks.queries == 0 and length % blocks.keys == 0,
        "K": width,
        "P": 1 << (width - 1).bit_length(),
        "M": blocks.queries,
        "N": blocks.keys,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }


def shortens(power: int, dtype: torch.dtype) -> bool:
    """Is every score multiplied by a power of two?"""
    return power > 1 or dtype == torch.float16
