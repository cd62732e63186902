"""The attention's kernels: right, invariant, and how fast.

Shapes: B batch, H heads, L sequence, K width of a head.
"""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_acceptance.outcome import Check, LeftOut, at_least, at_most, holds
from benchmarks.gpu_acceptance.scope import Scope
from pipeline.config.load import load_recipe
from pipeline.model import fused_attention
from pipeline.model.attention import scale_invariant_attention
from pipeline.model.fused_attention import FusedAttention
from pipeline.model.invariance import POWERS, Figures, check, probe_batch
from pipeline.verify.invariance_report import probe_model

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
POWER = 2  # of the shipped recipes


class Shape(NamedTuple):
    """Of q, k and v."""

    batch: int
    heads: int
    length: int
    width: int


TOY_SHAPES = (Shape(1, 1, 19, 16),)
SHAPES = (
    *(Shape(2, 3, length, 64) for length in (1, 17, 128, 500, 512, 2048)),
    *(Shape(1, 2, 200, width) for width in (16, 32, 48, 80, 96, 112, 128)),
    Shape(1, 1, 8192, 64),
)
TIMED = (Shape(128, 4, 128, 64), Shape(128, 4, 512, 64), Shape(32, 4, 2048, 64))  # B·H 512; at 2048 a quarter, for memory
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def check_kernels_run(scope: Scope) -> None:
    """LeftOut if they cannot."""
    why = fused_attention.problem(scope.device, 16, POWER, BF16)
    if why is not None:
        raise LeftOut(f"the Triton kernels cannot run here: {why}")


def correctness(scope: Scope) -> list[Check]:
    """Errors of output and gradients against float64, beside those of softmax attention by torch in the same type; empty
    rows; the same bits twice."""
    check_kernels_run(scope)
    checks = []
    shapes, kinds = (TOY_SHAPES, (FP32,)) if scope.is_toy else (SHAPES, (BF16, FP16, FP32))
    for kind, power in itertools.product(kinds, (2,) if scope.is_toy else (1, 2, 3)):
        worst, theirs, same = 0.0, 0.0, True
        for shape in shapes:
            given = inputs(shape, kind, scope.device)
            exact = [t.double() for t in given]
            truth = passes(partial(by_definition, power=power), *exact)
            ours, again = (passes(fused(power), *given) for _ in range(2))
            same = same and all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
            worst = max(worst, *_errors(ours, truth, given[3]))
            soft = functional.scaled_dot_product_attention
            theirs = max(theirs, *_errors(passes(soft, *given), passes(soft, *exact), given[3]))
        name = f"{str(kind).removeprefix('torch.')}, power {power}"
        checks.append(at_most(f"{name}: worst error / worst of SDPA ({theirs:.1e})", worst / theirs, 4.0))
        checks.append(holds(f"{name}: the same bits twice", same))
    q, k, v, grad = inputs(shapes[0], kinds[0], scope.device)
    nothing = passes(fused(POWER), -k.abs(), k.abs(), v, grad)
    return [*checks, holds("empty rows give zeros and have no gradient", all(not t.any() for t in nothing))]


def invariance(scope: Scope) -> list[Check]:
    """f(cx) = f(x), bit for bit at c = 2^±13, of a model in bf16, with the kernels and without."""
    check_kernels_run(scope)
    small = (
        "model.layers=1",
        "model.width=32",
        "model.heads=2",
        "model.ffn_width=32",
        "model.max_seq_len=16",
        "data.seq_len=16",
    )
    exact = Figures(loss=0.0, hidden=0.0, orthogonality=1e-2, gradient=0.0)
    checks = []
    for power, kernel in itertools.product((2,) if scope.is_toy else (1, 2, 3), ("triton", "blocked")):
        settings = [f"model.attention_power={power}", f"train.attention_kernel={kernel}", *(small if scope.is_toy else ())]
        config = load_recipe("small", settings)
        model = probe_model(config, 1024, seed=0).to(scope.device, BF16)
        batch = probe_batch(1024, config.model.max_seq_len, False, 3, min(64, config.model.max_seq_len), 0).to(scope.device)
        found = check(model, batch, POWERS, exact)
        checks.append(holds(f"power {power}, {kernel}", not found.problems, "; ".join(found.problems) or "to the last bit"))
    return checks


def speed(scope: Scope) -> list[Check]:
    """Forward and backward pass in bf16, medians, beside torch's softmax attention and our own blocks of products; and whether
    other sizes of blocks would be faster than those that are fixed."""
    check_kernels_run(scope)
    checks = []
    for shape in TOY_SHAPES if scope.is_toy else TIMED:
        given = inputs(shape, FP32 if scope.is_toy else BF16, scope.device)
        seconds = _side_by_side(_candidates(scope, shape == TIMED[1]), given, scope)
        name, ratio = f"B {shape.batch}, H {shape.heads}, L {shape.length}", seconds["SDPA"] / seconds["ours"]
        goal = 1.2 if shape == TIMED[1] else 1.0
        said = f"{name}: SDPA's time / ours"
        checks.append(Check(said, f"{ratio:.2f}") if scope.is_toy else at_least(said, ratio, goal))
        for candidate, s in seconds.items():
            checks.append(Check(f"{name}: {candidate}", f"{1e3 * s:.3f} ms ({_rate(shape, s):.0f} TFLOP/s)"))
    return checks + ([] if scope.is_toy else _other_blocks(scope))


def _candidates(scope: Scope, all_powers: bool) -> dict[str, Attention]:
    def blocked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scale_invariant_attention(q, k, v, None, POWER, "blocked")

    more = {f"ours, power {power}": fused(power) for power in (1, 3) if all_powers}
    return {"ours": fused(POWER), "SDPA": _flash(scope), "blocked": blocked, **more}


def _side_by_side(candidates: dict[str, Attention], given: list[Tensor], scope: Scope) -> dict[str, float]:
    """Median seconds of both passes, the first quarter of the turns not counted."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(2 if scope.is_toy else 40):
        for name, attention in candidates.items():
            times[name].append(timed(partial(passes, attention, *given), scope.device))
    return {name: statistics.median(t[len(t) // 4 :]) for name, t in times.items()}


def _other_blocks(scope: Scope) -> list[Check]:
    """The fastest blocks of each kernel at the middle size, by time of both passes: what would be sent back to be fixed."""
    from pipeline.model import triton_attention
    from pipeline.model.triton_attention import Blocks

    given = inputs(TIMED[1], BF16, scope.device)
    fixed, checks = triton_attention.blocks_of(64, BF16), []
    both = partial(passes, fused(POWER), *given)
    normal_s = _median(both, scope)
    for kernel in fixed._fields:
        found = {}
        for sizes in itertools.product((64, 128), (64, 128), (4, 8), (2, 3)):
            blocks = fixed._replace(**{kernel: Blocks(*sizes)})
            tried = mock.patch.object(triton_attention, "blocks_of", return_value=blocks)
            with tried, contextlib.suppress(Exception):  # more memory on chip than there is: not a candidate
                found[blocks[fixed._fields.index(kernel)]] = _median(both, scope)
        best = min(found, key=found.__getitem__)
        gain = normal_s / found[best]
        checks.append(
            Check(f"fastest blocks of {kernel}", f"{tuple(best)}: {gain:.2f} times as fast as {tuple(getattr(fixed, kernel))}")
        )
    return checks


def inputs(shape: Shape, kind: torch.dtype, device: torch.device) -> list[Tensor]:
    """q, k, v and a gradient, as slices of one product lie."""
    generator = torch.Generator().manual_seed(0)
    size = (shape.batch, shape.length, 4, shape.heads, shape.width)
    whole = torch.randn(size, generator=generator).to(device, kind)
    return [whole[:, :, at].transpose(1, 2) for at in range(4)]


def passes(attention: Attention, q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> list[Tensor]:
    """out, dq, dk, dv."""
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    out = attention(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def fused(power: int) -> Attention:
    """Our kernels."""
    return lambda q, k, v: FusedAttention.apply(q, k, v, power)


def by_definition(q: Tensor, k: Tensor, v: Tensor, power: int) -> Tensor:
    """By torch's own operations."""
    weights = torch.relu(q @ k.transpose(-1, -2)) ** power
    total = weights.sum(dim=-1, keepdim=True)
    return weights @ v / torch.where(total > 0, total, 1.0)


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds, by the GPU's own clock where there is one."""
    if device.type == "cpu":
        began_s = time.perf_counter()
        run()
        return time.perf_counter() - began_s
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e3


def _median(run: Callable[[], object], scope: Scope) -> float:
    return statistics.median(timed(run, scope.device) for _ in range(8))


def _flash(scope: Scope) -> Attention:
    """torch's flash backend, on a GPU."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION if scope.device.type == "cuda" else SDPBackend.MATH):
            return functional.scaled_dot_product_attention(q, k, v)

    return attend


def _errors(found: Sequence[Tensor], truth: Sequence[Tensor], grad: Tensor) -> list[float]:
    """In norm, relative; what is nearly zero on paper (the scores' gradient of one token) relative to the incoming gradient."""
    least = 0.05 * grad.double().norm()
    return [((a.double() - b).norm() / torch.maximum(b.norm(), least)).item() for a, b in zip(found, truth, strict=True)]


def _rate(shape: Shape, seconds: float) -> float:
    """TFLOP/s of seven products of [L, K] with [L, K]."""
    return 7 * 2 * shape.batch * shape.heads * shape.length**2 * shape.width / seconds / 1e12
