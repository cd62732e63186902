"""Run by test_edges.py as ranks: one engine a ds_config and accumulation, one step for each edge, with gradients
made to order.

The loss is linear in the parameters, so that a step's gradient is exactly what is put into it: the mean over
ranks and micro batches.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.batch import BatchArithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.distributed.launch import world_from
from pipeline.engine.build import build_engine, whole_parameters
from pipeline.engine.processes import gather_objects, start_processes
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.verify.cell import assemble

SHAPES = {"a": (7, 5), "b": (11,), "frozen": (3,)}
SETTINGS = {"lr": 0.125, "weight_decay": 0.25, "clip_c": 2.0}


class Linear(nn.Module):
    """sum of <p, target of p> over the parameters that have a target."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            values = torch.randint(-8, 9, shape, generator=generator) / 8  # exact in bf16
            setattr(self, name, nn.Parameter(values, requires_grad=name != "frozen"))

    def forward(self, **targets: Tensor) -> Tensor:
        return sum(((getattr(self, n) * t).sum() for n, t in targets.items()), (self.frozen * 0).sum())  # type: ignore[return-value]


Targets = dict[str, Tensor]


def targets(seed: int, size: float = 1.0) -> Targets:
    """Multiples of 1/8, whose mean over four micro batches is exact in bf16, too."""
    generator = torch.Generator().manual_seed(seed)
    return {n: size * torch.randint(-8, 9, SHAPES[n], generator=generator) / 8 for n in ("a", "b")}


def sized(size: float) -> Callable[[int, int, bool], Targets]:
    return lambda seed, rank, last: targets(seed, size)


def spoiled(value: float) -> Callable[[int, int, bool], Targets]:
    """One bad element on the last rank alone."""

    def make(seed: int, rank: int, last: bool) -> Targets:
        result = targets(seed)
        if rank == world.size - 1:
            result["b"][-1] = value
        return result

    return make


def without_b(seed: int, rank: int, last: bool) -> Targets:
    return {"a": targets(seed)["a"]}


def b_at_last(seed: int, rank: int, last: bool) -> Targets:
    """In the last micro batch alone."""
    return targets(seed) if last else without_b(seed, rank, last)


# edge -> (what (seed, rank, is it the last micro batch?) contributes to the gradient, changed settings)
EDGES: dict[str, tuple[Callable[[int, int, bool], Targets], dict[str, float]]] = {
    "ordinary": (sized(1.0), {}),
    "clipped": (sized(64.0), {}),
    "zero gradient": (sized(0.0), {}),
    "nan on one rank": (spoiled(math.nan), {}),
    "inf on one rank": (spoiled(math.inf), {}),
    "after a skip": (sized(1.0), {}),
    "b unused": (without_b, {}),
    "b used again": (b_at_last, {}),
    "square too large for fp32": (sized(2.0**100), {}),
    "lr changed": (sized(64.0), {"lr": 0.5}),
    "lr zero": (sized(1.0), {"lr": 0.0}),
    "no clipping": (sized(64.0), {"clip_c": math.inf}),
    "no decay": (sized(1.0), {"clip_c": math.inf, "weight_decay": 0.0}),
    "x zero": (sized(1.0), {}),
}


def contributions(edge: str, step: int, accumulation: int) -> list[list[Targets]]:
    """[micro batch][rank]"""
    make = EDGES[edge][0]
    return [
        [make(100 * step + 10 * rank + micro, rank, micro == accumulation - 1) for rank in range(world.size)]
        for micro in range(accumulation)
    ]


def mean(parts: list[Targets]) -> Targets:
    names = {n for part in parts for n in part}
    return {n: sum(part[n].double() for part in parts if n in part) / len(parts) for n in names}  # type: ignore[misc]


def run(ds_config: str, accumulation: int) -> dict[str, Any]:
    """Every edge in turn: the whole masters before and after it, and what was decided."""
    model = Linear().to(device)
    groups = [
        {"name": n, "names": [n], "params": [getattr(model, n)], "rule": "sgd", "clip_set": "all", **SETTINGS}
        for n in ("a", "b")
    ]
    optimizer = PretrainingOptimizer(groups)
    start = {n: getattr(model, n).detach().clone() for n in ("a", "b")}
    dictionary = deepspeed_dictionary(
        load_ds_config(ds_config), BatchArithmetic(world.size, 1, accumulation, world.size * accumulation)
    )
    built = build_engine(model, optimizer, dictionary, device, split=True)
    partitions = optimizer.partitions
    assert partitions is not None
    fragments = partitions.fragments

    def masters() -> dict[str, Tensor]:
        return assemble(partitions.masters(), optimizer, start)

    for flat in {id(f.flat): f.flat for f in fragments}.values():  # padding is nobody's business
        outside = torch.ones_like(flat, dtype=torch.bool).view(-1)
        for f in fragments:
            if f.flat is flat:
                outside[f.start : f.start + f.numel] = False
        flat.detach().view(-1)[outside] = math.nan
    result: dict[str, Any] = {"start": start, "built": masters(), "edges": {}}
    for step, (edge, (_, changed)) in enumerate(EDGES.items()):
        for group in optimizer.all_groups:
            group.update({**SETTINGS, **changed})
        if edge == "x zero":
            for f in fragments:
                f.master.store(torch.zeros(f.numel))
        before = masters()
        parts = contributions(edge, step, accumulation)
        for micro in parts:
            mine = {n: t.to(device, built.module.frozen.dtype) for n, t in micro[world.rank].items()}
            built.backward(built(**mine))
            built.step()
        decision = optimizer.last_decision
        result["edges"][edge] = {
            "before": before,
            "after": masters(),
            "gradient": mean([part for micro in parts for part in micro]),
            "settings": {**SETTINGS, **changed},
            "finite": gather_objects(decision.finite),
            "coefficient": gather_objects(decision.coefficient),
            "x_norm": decision.x_norm,
            "g_norm": decision.g_norm,
            "threshold": decision.threshold,
            "updates": optimizer.updates,
        }
    result["frozen"] = dict(zip(SHAPES, (v for _, v in whole_parameters(built)), strict=True))["frozen"].float().cpu()
    built.destroy()
    return result


def main(argv: list[str]) -> int:
    """A file for the results, and the names of ds_configs."""
    global world, device
    world = world_from(os.environ)
    device = start_processes(world)
    results = {(name, accumulation): run(name, accumulation) for name in argv[1:] for accumulation in (1, 2)}
    if world.is_main:
        torch.save(results, argv[0])
    return 0
