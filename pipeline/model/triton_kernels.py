"""Scale invariant attention as three Triton kernels: out = W V / rowsum(W), W = ReLU(Q Kᵀ)^n, and its gradient.

    attend            a block of queries against all keys: out, and the row sums t
    query_gradient    a block of queries against all keys: dq, and what the next one needs of each row
    key_gradient      a block of keys against all queries: dk and dv

`relu_attention` has the formulas, and is what these are held against. No program adds into what another one writes, so the
gradient is the same at every run; and as no maximum is subtracted, no block is ever scaled again. Scores are fp32 and stay on
the chip. Keys and queries beyond the end are read as zeros: their scores are 0, and so are their weights.

SHORTEN: every score is multiplied by a power of two, as if the query's largest number and the largest of the head's keys were
about 1: no power of a score then leaves the range of numbers. It rounds nothing, and the row sum cancels it. LIFT: by what the
weights are multiplied before they are rounded to V's type.

`triton_attention` launches them. Decided as this is imported: are they compiled or, with TRITON_INTERPRET=1 in tests on a CPU,
interpreted?

Shapes: K width of a head, P the power of two from K on; M queries and N keys of a block, R rows of either.
"""

from typing import Any

import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret


def _part(function: Any) -> Any:
    """Decorates what kernels call. The interpreter takes plain functions for these, too, in two thirds of the time."""
    return function if INTERPRETED else triton.jit(function)


@_part
def _dot(a, b, total, UPCAST: tl.constexpr):
    """total + a b in fp32. UPCAST: the interpreter would multiply bf16 as integers; its products are exact in fp32."""
    if UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    return tl.dot(a, b, total, input_precision="ieee")


@_part
def _pointers(start, rows_R, row_stride, P: tl.constexpr):
    return start + rows_R[:, None] * row_stride + tl.arange(0, P)[None, :]


@_part
def _load(start, rows_R, row_stride, length, K: tl.constexpr, P: tl.constexpr, EVEN: tl.constexpr):
    """[R, P] numbers: zeros beyond the last row, and beyond the width K. EVEN: there is no row beyond."""
    pointers_RP = _pointers(start, rows_R, row_stride, P)
    if K == P:
        if EVEN:
            return tl.load(pointers_RP)
        return tl.load(pointers_RP, mask=rows_R[:, None] < length, other=0.0)
    return tl.load(pointers_RP, mask=(rows_R[:, None] < length) & (tl.arange(0, P)[None, :] < K), other=0.0)


@_part
def _store(start, rows_R, row_stride, length, value_RP, K: tl.constexpr, P: tl.constexpr):
    mask_RP = (rows_R[:, None] < length) & (tl.arange(0, P)[None, :] < K)
    tl.store(_pointers(start, rows_R, row_stride, P), value_RP.to(start.dtype.element_ty), mask=mask_RP)


@_part
def _scale(q_MP, key_exponent):
    """2^-(e + key_exponent) of each query, 2^e about its largest number; by the largest and not the length, which does not
    depend on the order of a sum. Held within the exponents that fp32 has."""
    largest_M = tl.max(tl.abs(q_MP.to(tl.float32)), 1)
    biased_M = largest_M.to(tl.int32, bitcast=True) >> 23
    exponent_M = tl.where(biased_M == 0, 0, biased_M - 126) + key_exponent
    return (tl.minimum(tl.maximum(127 - exponent_M, 1), 254) << 23).to(tl.float32, bitcast=True)


@_part
def _relu(score):
    return tl.maximum(score, 0.0, propagate_nan=tl.PropagateNan.ALL)


@_part
def _power(score, POWER: tl.constexpr):
    """score^n, by products."""
    if POWER == 1:
        return score
    if POWER == 2:
        return score * score
    return score * score * score


@_part
def _slope(score, factor, POWER: tl.constexpr):
    """factor · score^(n-1), and 0 where the score is."""
    if POWER == 1:
        return tl.where(score > 0, factor, 0.0)
    if POWER == 2:
        return score * factor
    return score * score * factor


@_part
def _here(length, heads, BLOCK: tl.constexpr):
    """(batch, head, number of the two, first row) of this program."""
    blocks = tl.cdiv(length, BLOCK)
    head_of_all = tl.program_id(0) // blocks
    batch = (head_of_all // heads).to(tl.int64)
    head = (head_of_all % heads).to(tl.int64)
    return batch, head, head_of_all.to(tl.int64), tl.program_id(0) % blocks * BLOCK


@triton.jit
def attend(
    q, k, v, key_exponents, out, totals,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, out_batch, out_head, out_row,
    heads, length,
    POWER: tl.constexpr, SHORTEN: tl.constexpr, LIFT: tl.constexpr, UPCAST: tl.constexpr, EVEN: tl.constexpr,
    K: tl.constexpr, P: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    batch, head, head_of_all, first = _here(length, heads, M)
    q += batch * q_batch + head * q_head
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    rows_M = first + tl.arange(0, M)
    q_MP = _load(q, rows_M, q_row, length, K, P, EVEN)
    scale_M = _scale(q_MP, tl.load(key_exponents + head_of_all))
    total_M = tl.full((M,), 0.0, tl.float32)
    mixed_MP = tl.full((M, P), 0.0, tl.float32)
    for at in range(0, length, N):
        rows_N = at + tl.arange(0, N)
        k_NP = _load(k, rows_N, k_row, length, K, P, EVEN)
        v_NP = _load(v, rows_N, v_row, length, K, P, EVEN)
        score_MN = _dot(q_MP, tl.trans(k_NP), tl.full((M, N), 0.0, tl.float32), UPCAST)
        if SHORTEN:
            score_MN = score_MN * scale_M[:, None]
        weights_MN = _power(_relu(score_MN), POWER)
        total_M += tl.sum(weights_MN, 1)
        mixed_MP = _dot((weights_MN * LIFT).to(v_NP.dtype), v_NP, mixed_MP, UPCAST)
    total_M = tl.where(total_M > 0, total_M, 1.0)  # an empty row is 0 / 1
    out += batch * out_batch + head * out_head
    _store(out, rows_M, out_row, length, mixed_MP / (total_M * LIFT)[:, None], K, P)
    tl.store(totals + head_of_all * length + rows_M, total_M, mask=rows_M < length)


@triton.jit
def query_gradient(
    q, k, v, grad, out, totals, key_exponents, dq, along, scales,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    grad_batch, grad_head, grad_row, out_batch, out_head, out_row, dq_batch, dq_head, dq_row,
    heads, length,
    POWER: tl.constexpr, SHORTEN: tl.constexpr, UPCAST: tl.constexpr, EVEN: tl.constexpr,
    K: tl.constexpr, P: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    batch, head, head_of_all, first = _here(length, heads, M)
    q += batch * q_batch + head * q_head
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    grad += batch * grad_batch + head * grad_head
    out += batch * out_batch + head * out_head
    rows_M = first + tl.arange(0, M)
    of_row_M = head_of_all * length + rows_M
    q_MP = _load(q, rows_M, q_row, length, K, P, EVEN)
    grad_MP = _load(grad, rows_M, grad_row, length, K, P, EVEN)
    out_MP = _load(out, rows_M, out_row, length, K, P, EVEN)
    scale_M = _scale(q_MP, tl.load(key_exponents + head_of_all))
    along_M = tl.sum(grad_MP.to(tl.float32) * out_MP.to(tl.float32), 1)
    tl.store(along + of_row_M, along_M, mask=rows_M < length)
    tl.store(scales + of_row_M, scale_M, mask=rows_M < length)
    factor_M = POWER / tl.load(totals + of_row_M, mask=rows_M < length, other=1.0)
    dq_MP = tl.full((M, P), 0.0, tl.float32)
    for at in range(0, length, N):
        rows_N = at + tl.arange(0, N)
        k_NP = _load(k, rows_N, k_row, length, K, P, EVEN)
        v_NP = _load(v, rows_N, v_row, length, K, P, EVEN)
        score_MN = _dot(q_MP, tl.trans(k_NP), tl.full((M, N), 0.0, tl.float32), UPCAST)
        if SHORTEN:
            score_MN = score_MN * scale_M[:, None]
        dweights_MN = _dot(grad_MP, tl.trans(v_NP), tl.full((M, N), 0.0, tl.float32), UPCAST) - along_M[:, None]
        dscore_MN = dweights_MN * _slope(_relu(score_MN), factor_M[:, None], POWER)
        dq_MP = _dot(dscore_MN.to(k_NP.dtype), k_NP, dq_MP, UPCAST)
    if SHORTEN:
        dq_MP = dq_MP * scale_M[:, None]
    _store(dq + batch * dq_batch + head * dq_head, rows_M, dq_row, length, dq_MP, K, P)


@triton.jit
def key_gradient(
    q, k, v, grad, totals, along, scales, dk, dv,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    grad_batch, grad_head, grad_row, dk_batch, dk_head, dk_row, dv_batch, dv_head, dv_row,
    heads, length,
    POWER: tl.constexpr, SHORTEN: tl.constexpr, UPCAST: tl.constexpr, EVEN: tl.constexpr,
    K: tl.constexpr, P: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    batch, head, head_of_all, first = _here(length, heads, N)
    q += batch * q_batch + head * q_head
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    grad += batch * grad_batch + head * grad_head
    rows_N = first + tl.arange(0, N)
    k_NP = _load(k, rows_N, k_row, length, K, P, EVEN)
    v_NP = _load(v, rows_N, v_row, length, K, P, EVEN)
    dk_NP = tl.full((N, P), 0.0, tl.float32)
    dv_NP = tl.full((N, P), 0.0, tl.float32)
    for at in range(0, length, M):
        rows_M = at + tl.arange(0, M)
        of_row_M = head_of_all * length + rows_M
        q_MP = _load(q, rows_M, q_row, length, K, P, EVEN)
        grad_MP = _load(grad, rows_M, grad_row, length, K, P, EVEN)
        inverse_M = 1.0 / tl.load(totals + of_row_M, mask=rows_M < length, other=1.0)
        along_M = tl.load(along + of_row_M, mask=rows_M < length, other=0.0)
        score_NM = _dot(k_NP, tl.trans(q_MP), tl.full((N, M), 0.0, tl.float32), UPCAST)
        factor_M = POWER * inverse_M
        if SHORTEN:
            scale_M = tl.load(scales + of_row_M, mask=rows_M < length, other=1.0)
            score_NM = score_NM * scale_M[None, :]
            factor_M = factor_M * scale_M
        score_NM = _relu(score_NM)
        weights_NM = _power(score_NM, POWER) * inverse_M[None, :]
        dv_NP = _dot(weights_NM.to(grad_MP.dtype), grad_MP, dv_NP, UPCAST)
        dweights_NM = _dot(v_NP, tl.trans(grad_MP), tl.full((N, M), 0.0, tl.float32), UPCAST) - along_M[None, :]
        dscore_NM = dweights_NM * _slope(score_NM, factor_M[None, :], POWER)
        dk_NP = _dot(dscore_NM.to(q_MP.dtype), q_MP, dk_NP, UPCAST)
    _store(dk + batch * dk_batch + head * dk_head, rows_N, dk_row, length, dk_NP, K, P)
    _store(dv + batch * dv_batch + head * dv_head, rows_N, dv_row, length, dv_NP, K, P)
