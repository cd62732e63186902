"""What `certify` compares, within which tolerances, and the verdict on one of its runs."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.distributed.launch import World
from pipeline.engine.build import whole_parameters
from pipeline.engine.processes import gather_objects
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.verify.reference import Norms

STEPS = 20
PARAMETERS_WITHIN, NORMS_WITHIN = 1e-5, 1e-6  # relative
BF16_COPY_WITHIN, BF16_GRADIENT_WITHIN = 2.0**-8, 0.2  # rounding of a weight; of a gradient through two layers, in norm


@dataclass(frozen=True)
class Cell:
    """One run of the matrix."""

    ds_config: str
    case: str
    accumulation: int


@dataclass(frozen=True)
class Result:
    """Largest relative differences from the reference over tensors and steps. `gradient` only in bf16."""

    ds_config: str
    case: str
    accumulation: int
    world_size: int
    parameters: float
    norms: float
    gradient: float | None
    clipped_steps: int
    problem: str | None  # None: certified


def _worst(*values: float) -> float:
    """The largest; NaN is the worst of all (max() may pass it over)."""
    return max(values, key=lambda value: math.inf if math.isnan(value) else value)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def _relative_tensor(ours: Tensor, name: str, theirs: dict[str, Tensor]) -> float:
    """Relative to the tensor's norm; one that stays zero on paper (the baseline's key bias, which the softmax ignores) relative
    to the norm of everything."""
    everything = torch.stack([t.norm() for t in theirs.values()]).norm()
    own = theirs[name].norm()
    return ((ours - theirs[name]).norm() / (own if own > 1e-9 * everything else everything)).item()


class Differences:
    """Collects the differences of one cell."""

    def __init__(self, bf16: bool) -> None:
        self.bf16 = bf16
        self.parameters = self.norms = self.copies = self.worst_gradient = 0.0
        self.clipped = 0
        self.kinds: set[bool] = set()
        self.decisions: list[str] = []  # exactly, to be compared between ranks
        self.other_decisions = self.skipped = 0

    def gradient(self, applied: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
        """In bf16: the reduced gradient, all tensors as one vector, beside the float64 one."""
        ours, theirs = (torch.cat([g[name].flatten() for name in exact]) for g in (applied, exact))
        self.worst_gradient = _worst(self.worst_gradient, _relative(ours, theirs))

    def decision(self, optimizer: PretrainingOptimizer, expected: Norms) -> None:
        """Norms, thresholds and coefficients of one step beside the reference's."""
        decision = optimizer.last_decision
        if not decision.finite:
            self.skipped += 1
            return
        self.clipped += decision.clipped
        self.decisions.append(repr([(n, *(float(v).hex() for v in s if v is not None)) for n, s in decision.sets.items()]))
        for name, (x_norm, g_norm, threshold) in expected.items():
            ours = decision.sets[name]
            pairs = zip(ours, (x_norm, g_norm, threshold, min(threshold / g_norm, 1.0)), strict=True)
            self.norms = _worst(self.norms, *(abs(a / b - 1) for a, b in pairs if a is not None))
            self.kinds.add(ours.coefficient < 1)
            if (ours.coefficient < 1) != (g_norm > threshold):
                self.other_decisions += 1

    def masters(self, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
        """The fp32 masters after the last step."""
        self.parameters = _worst(*(_relative_tensor(ours[name], name, theirs) for name in theirs))

    def weights(self, trained: Any, names: dict[int, str], theirs: dict[str, Tensor]) -> None:
        """The weights that the forward pass uses, read from the module itself and not through fragments."""
        for parameter, values in whole_parameters(trained):
            name = names[id(parameter)]
            self.copies = _worst(self.copies, _relative_tensor(values.double().cpu(), name, theirs))

    def result(self, cell: Cell, world: World, both_kinds: bool) -> Result:
        """The verdict; `both_kinds`: steps that are clipped and steps that are not must occur."""
        problems = [f"{self.skipped} steps skipped as non-finite"] if self.skipped else []
        if self.other_decisions:
            problems.append(f"{self.other_decisions} other clip decisions")
        for what, value, limit in (
            ("parameters", self.parameters, PARAMETERS_WITHIN),
            ("weights", self.copies, BF16_COPY_WITHIN if self.bf16 else PARAMETERS_WITHIN),
            ("norms", self.norms, NORMS_WITHIN),
            ("bf16 gradient", self.worst_gradient, BF16_GRADIENT_WITHIN),
        ):
            if not value <= limit:
                problems.append(f"{what} differ by {value:.1e}, allowed {limit:.0e}")
        if both_kinds and self.kinds != {True, False}:
            problems.append(f"{self.clipped} of {STEPS} steps clipped: clipping and not clipping must both occur")
        if len({repr(d) for d in gather_objects(self.decisions)}) > 1:
            problems.append("the ranks decided differently")
        return Result(
            **asdict(cell),
            world_size=world.size,
            parameters=self.parameters,
            norms=self.norms,
            gradient=self.worst_gradient if self.bf16 else None,
            clipped_steps=self.clipped,
            problem="; ".join(problems) or None,
        )
