"""The guardian of f(c·x) = f(x): the degrees of a model's modules, derived and measured, and the checks that follow.

Degree k: out(c·x) = c^k·out(x) for c > 0, x the scale invariant parameters (paper section 3, table of degrees). `degrees`
derives it for every operation; `measured` runs them; `check` holds loss and gradient to

    f(cx) = f(x)        <x, ∇f(x)> = 0        c·∇f(cx) = ∇f(x).

A c that is a power of two changes no mantissa: every operation is then exactly homogeneous in every dtype, and any deviation
is a breach (an eps, a bias, a softmax). At any other c the rounding of c·x is in the deviation too, multiplied by the
condition of the model, which nearly empty attention rows make large.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.data.batch import Batch
from pipeline.data.random_batch import random_batch
from pipeline.model.degrees import claimed_names, degrees
from pipeline.model.precision import at_least_fp32
from pipeline.model.pretraining import PretrainingModel

POWERS, SCALES = (2.0**-13, 2.0**13), (1e-4,)
QUICK_WITHIN = 1e-5  # of the loss, relative; 1e-12 in float64


@dataclass(frozen=True)
class Measured:
    """What a module took or gave at c·x: the degree derived, the degree measured, and the relative deviation
    ||out(cx) - c^k·out(x)|| / ||c^k·out(x)|| from the derived one."""

    name: str
    side: str  # "input" or "output"
    derived: int
    degree: float
    deviation: float


def measured(model: PretrainingModel, batch: Batch, c: float) -> list[Measured]:
    """Degree and deviation of what goes into and comes out of every module, in the order of the forward pass, by running
    the model at x and at c·x (c not 1). Keeps all activations of a pass: for small batches. Untouched afterwards."""
    at_x, at_cx = _activations(model, batch, 1.0), _activations(model, batch, c)
    assert [key for key, _ in at_x] == [key for key, _ in at_cx]
    rows, result = degrees(model), []
    for ((name, side), here), (_, there) in zip(at_x, at_cx, strict=True):
        under = [row for row in rows if row.name == name or row.name.startswith(f"{name}.")]
        if not under:  # inside a head that is not in x
            continue
        derived = under[0].degree_in if side == "input" else under[-1].degree_out
        size, scaled_size = _norm([here]), _norm([there])
        degree = math.log(scaled_size / size) / math.log(c) if 0 < size < math.inf and scaled_size > 0 else math.nan
        result.append(Measured(name, side, derived, degree, _relative([there], [here], c**-derived)))
    return result


def first_deviation(measurements: Sequence[Measured], within: float) -> str | None:
    """The first module whose deviation is not within, in words: where the forward pass leaves its derived degree."""
    for m in measurements:
        if not m.deviation <= within:
            return f"{m.name}: {m.side} of degree {m.derived} is off by {m.deviation:.1e} (measured degree {m.degree:.3g})"
    return None


def _activations(model: PretrainingModel, batch: Batch, c: float) -> list[tuple[tuple[str, str], Tensor]]:
    seen: list[tuple[tuple[str, str], Tensor]] = []

    def keep(name: str, side: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.is_floating_point():
            seen.append(((name, side), value.detach()))

    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(lambda _, args, name=name: keep(name, "input", args[0])))
            handles.append(module.register_forward_hook(lambda _, args, out, name=name: keep(name, "output", out)))
    try:
        with torch.no_grad():
            _loss(model, batch, _scaled(model, c))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _scaled(model: PretrainingModel, c: float) -> dict[str, Tensor]:
    """c·x, a copy."""
    names = claimed_names(model)
    return {name: p.detach() * c for name, p in model.named_parameters() if name in names}


def _loss(model: PretrainingModel, batch: Batch, parameters: dict[str, Tensor]) -> Tensor:
    loss = torch.func.functional_call(model, parameters, (batch,)).loss
    assert isinstance(loss, Tensor)
    return loss


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*(torch.linalg.vector_norm(t, dtype=torch.float64).item() for t in tensors))


def _relative(there: Sequence[Tensor], here: Sequence[Tensor], factor: float) -> float:
    """||factor·there - here|| / ||here||; 0 if both are zero."""
    off, size = _norm(at_least_fp32(t) * factor - at_least_fp32(h) for t, h in zip(there, here, strict=True)), _norm(here)
    return 0.0 if off == 0 else off / size if size else math.inf


@dataclass(frozen=True)
class Figures:
    """Relative deviations: |f(cx) - f(x)|/|f(x)| of the loss; the same of the encoder's output, in norm;
    |<x, g>|/(||x||·||g||); ||c·∇f(cx) - ∇f(x)||/||∇f(x)||. As found, or as allowed."""

    loss: float
    hidden: float
    orthogonality: float
    gradient: float


@dataclass(frozen=True)
class Check:
    """The worst figures over the scales, and what is beyond its tolerance, in words."""

    worst: Figures
    problems: tuple[str, ...]


# Left at POWERS, right at SCALES. Measured on a CPU, the worst of tiny, small, base and large over 1 to 5 seeds: at POWERS
# loss, hidden states and gradients were bit-equal in every dtype. At SCALES, loss / hidden / gradient: float64 4e-16 / 8e-15
# / 1e-12, float32 2e-7 / 4e-6 / 1e-2, bf16 7e-3 / 0.2 / 2.8. The gradients' are the model's condition: tiny and small, which
# start at score_offset 1, have 1e-15, 6e-7 and 0.06. At the start of base and large a tenth of the attention rows is empty
# or nearly so, and there a bf16 gradient differs as much (0.6 to 1.9) from the float32 one at the very same x.
TOLERANCES = {
    "float32": (Figures(1e-5, 1e-5, 1e-7, 1e-5), Figures(1e-5, 1e-4, 1e-7, 0.1)),
    "bf16 autocast": (Figures(1e-5, 1e-5, 1e-3, 1e-5), Figures(3e-2, 0.5, 1e-3, math.inf)),
    "float64": (Figures(1e-12, 1e-12, 1e-12, 1e-12), Figures(1e-12, 1e-12, 1e-12, 1e-10)),
}


@dataclass(frozen=True)
class Point:
    """What the model gives at one c·x: loss, encoder's output, gradient of x's tensors, |<x, g>|/(||x||·||g||)."""

    loss: Tensor
    hidden: Tensor
    gradient: list[Tensor]
    orthogonality: float


def evaluate(model: PretrainingModel, batch: Batch, c: float, bf16: bool) -> Point:
    """Forward and backward at c·x, under bf16 autocast if asked; the model, on the CPU, is left as it was."""
    x = _scaled(model, c) if c != 1 else {n: p.detach() for n, p in model.named_parameters() if n in claimed_names(model)}
    tensors = [parameter.requires_grad_() for parameter in x.values()]
    hidden: list[Tensor] = []
    handle = model.encoder.register_forward_hook(lambda module, args, out: hidden.append(out.detach()))
    try:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = _loss(model, batch, x)
    finally:
        handle.remove()
    gradients = list(torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True))
    product = sum(
        (at_least_fp32(p.detach()) * at_least_fp32(g)).sum(dtype=torch.float64).item()
        for p, g in zip(tensors, gradients, strict=True)
    )
    sizes = _norm([p.detach() for p in tensors]) * _norm(gradients)
    return Point(loss.detach(), hidden[0], gradients, 0.0 if product == 0 else abs(product) / sizes)


def check(
    model: PretrainingModel,
    batch: Batch,
    scales: Sequence[float],
    tolerance: Figures,
    bf16_autocast: bool = False,
    at_x: Point | None = None,
) -> Check:
    """The three checks over `scales`, in the model's dtype or under bf16 autocast; `at_x` if it has been evaluated before.

    Takes the memory of the parameters three times more: gradient at x, c·x, gradient there. The model is left as it was.
    """
    here = at_x or evaluate(model, batch, 1.0, bf16_autocast)
    found = [(0.0, 0.0, here.orthogonality, 0.0)]
    for c in scales:
        there = evaluate(model, batch, c, bf16_autocast)
        off = (_relative([there.loss], [here.loss], 1.0), _relative([there.hidden], [here.hidden], 1.0))
        found.append((*off, there.orthogonality, _relative(there.gradient, here.gradient, c)))
        del there  # before the next one
    worst = torch.tensor(found, dtype=torch.float64).amax(dim=0).tolist()  # amax keeps a NaN
    pairs = zip(fields(Figures), worst, astuple(tolerance), strict=True)
    beyond = [(f.name, value, limit) for f, value, limit in pairs if not (math.isfinite(value) and value <= limit)]
    problems = [f"{name} is off by {value:.1e}, more than {limit:g}" for name, value, limit in beyond]
    return Check(Figures(*worst), tuple(problems))


def quick_check(model: PretrainingModel, batch: Batch) -> list[str]:
    """Problems, none if the model is scale invariant: derived degrees, and the loss at 2**-13, 1 and 2**13 times x.

    In the model's own dtype, without gradients, with one copy of the parameters at a time, all three losses from copies
    (so that kernels meet equally aligned memory), the model left as it was. Bit-equal wherever measured (CPU; float64,
    float32, bf16), but a kernel owes nobody the same order of summation twice: within QUICK_WITHIN is accepted.
    The batch on the model's device; parameters whole: not for a model that ZeRO 3 has cut.
    """
    problems = [row.problem for row in degrees(model) if row.problem]
    within = 1e-12 if next(model.parameters()).dtype == torch.float64 else QUICK_WITHIN
    with torch.no_grad():
        loss = _loss(model, batch, _scaled(model, 1.0))
        off = [_relative([_loss(model, batch, _scaled(model, c))], [loss], 1.0) for c in POWERS]
    for c, difference in zip(POWERS, off, strict=True):
        if not difference <= within:
            where = first_deviation(measured(model, batch, c), within)
            problems.append(f"f({c:g}·x) differs from f(x) by {difference:.1e}; first: {where or 'the loss itself'}")
    return problems


def probe_batch(vocab_size: int, max_seq_len: int, nsp: bool, sequences: int, length: int, seed: int) -> Batch:
    """A random batch of `length` tokens a sequence and a quarter as many predictions; every second sequence padded after its
    first half, the last one of several wholly. ValueError if length > max_seq_len."""
    if not 2 <= length <= max_seq_len:
        raise ValueError(f"length = {length}: expected 2 to max_seq_len = {max_seq_len}")
    generator = torch.Generator().manual_seed(seed)
    batch = random_batch(generator, sequences, length, (length + 3) // 4, vocab_size, nsp=nsp, lowest_id=0)
    mask_BL = torch.ones(sequences, length)
    mask_BL[1::2, (length + 1) // 2 :] = 0
    if sequences > 1:
        mask_BL[-1] = 0
    return replace(batch, attention_mask=mask_BL, nsp_labels=torch.arange(sequences) % 2 if nsp else None)
