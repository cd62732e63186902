"""`python -m pipeline invariance`: a recipe's degrees and the three checks, as text."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple

import numpy as np
import torch

from pipeline.config.schema import RunConfig
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.degrees import degrees
from pipeline.model.invariance import (
    POWERS,
    SCALES,
    TOLERANCES,
    Check,
    Figures,
    check,
    evaluate,
    first_deviation,
    measured,
    probe_batch,
)
from pipeline.model.pretraining import PretrainingModel


def probe_model(config: RunConfig, vocab_size: int, seed: int) -> PretrainingModel:
    """A recipe's model at its start, in float32, with every bias moved off zero so that its degree counts."""
    model = build_model(config, vocab_size, np.arange(vocab_size, 0, -1))
    init_weights(model, config.model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(config.model.init_std * torch.randn(parameter.shape, generator=generator))
    return model


def report(config: RunConfig, vocab_size: int = 1024, seed: int = 0) -> tuple[str, bool]:
    """The text of `python -m pipeline invariance`, and whether all passed: the degrees derived and measured, and the three
    checks in float32, bf16 autocast and float64. On the CPU; four times the model in float64 (10 GB for `large`)."""
    model, nsp = probe_model(config, vocab_size, seed), config.data.objective == "mlm+nsp"
    batch = probe_batch(vocab_size, config.model.max_seq_len, nsp, 3, min(16, config.model.max_seq_len), seed)
    rows, passed = degrees(model), True
    table = [("operation", "degrees", "what"), *((row.name, f"({row.degree_in}; {row.degree_out})", row.what) for row in rows)]
    columns = (line.split("|", 2) for line in _folded(map("|".join, table)))
    lines = [f"{name:42}{degree:9}{what}" for name, degree, what in columns]
    heads = ("f(cx) - f(x)", "hidden states", "<x, ∇f>", "c∇f(cx) - ∇f(x)")
    lines += ["", f"{'relative, the worst of':37} {''.join(f'{head:19}' for head in heads)}"]
    for precision, tolerances in TOLERANCES.items():  # float64 is the last: the model stays in it
        model = model.double() if precision == "float64" else model
        bf16 = precision == "bf16 autocast"
        at_x = evaluate(model, batch, 1.0, bf16)
        for scales, tolerance in zip((POWERS, SCALES), tolerances, strict=True):
            result = check(model, batch, scales, tolerance, bf16, at_x)
            passed = passed and not result.problems
            lines.append(_check_line(precision, scales, result, tolerance))
    lines += ["(any): at other than powers of two the rounding of c·x to bf16 changes the gradient, invariant or not", ""]
    problems = _folded(row.problem for row in rows if row.problem)
    for c in POWERS:
        where = first_deviation(measured(model, batch, c), TOLERANCES["float64"][0].hidden)
        problems += [f"at {c:g}·x first {where}"] if where else []
    passed = passed and not problems
    lines += [*(f"problem: {problem}" for problem in problems), "PASS" if passed else "FAIL"]
    return "\n".join(lines), passed


def _folded(lines: Iterable[str]) -> list[str]:
    """The lines, those that differ in the number of the layer alone folded into one: layers.0…11, or layers.0…2,4…11."""
    layers: dict[str, list[int]] = {}
    for line in lines:
        number = re.search(r"layers\.(\d+)", line)
        layers.setdefault(re.sub(r"layers\.\d+", "layers.#", line), []).extend([int(number[1])] if number else [])
    return [line.replace("#", _ranges(numbers)) for line, numbers in layers.items()]


def _ranges(numbers: Sequence[int]) -> str:
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ",".join(f"{a}" if a == b else f"{a}…{b}" for a, b in zip(starts, ends, strict=True))


def _check_line(precision: str, scales: Sequence[float], result: Check, tolerance: Figures) -> str:
    pairs = zip(astuple(result.worst), astuple(tolerance), strict=True)
    figures = "".join(f"{value:7.1e} {'(any)' if limit == math.inf else f'(≤ {limit:g})':11}" for value, limit in pairs)
    return f"{precision:14} {_scales_text(scales):22} {figures}{'FAIL' if result.problems else 'PASS'}"


def _scales_text(scales: Sequence[float]) -> str:
    return ", ".join(f"2^{math.log2(c):g}" if math.frexp(c)[0] == 0.5 else f"{c:g}" for c in scales)
