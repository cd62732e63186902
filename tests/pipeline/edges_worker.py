"""Run by test_edges.py under torchrun: one engine a ds_config, one step for each edge, with gradients made to order.

The loss is linear in the parameters, so that a step's gradient is exactly what is put into it: the mean over the ranks.
"""

import math
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import engine
from pipeline.certify_cell import assemble
from pipeline.config import BatchArithmetic
from pipeline.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.launch import world_from
from pipeline.optim.optimizer import PretrainingOptimizer

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


def targets(step: int, rank: int, size: float = 1.0) -> dict[str, Tensor]:
    """Multiples of 1/8, whose mean over two ranks is exact in bf16, too."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return {n: size * torch.randint(-8, 9, SHAPES[n], generator=generator) / 8 for n in ("a", "b")}


def spoiled(value: float) -> Callable[[int, int], dict[str, Tensor]]:
    """One bad element on the last rank alone."""

    def make(step: int, rank: int) -> dict[str, Tensor]:
        result = targets(step, rank)
        if rank == world.size - 1:
            result["b"][-1] = value
        return result

    return make


# edge -> (the ranks' gradients, changed settings)
EDGES: dict[str, tuple[Callable[[int, int], dict[str, Tensor]], dict[str, float]]] = {
    "ordinary": (targets, {}),
    "clipped": (lambda s, r: targets(s, r, 64.0), {}),
    "zero gradient": (lambda s, r: targets(s, r, 0.0), {}),
    "nan on one rank": (spoiled(math.nan), {}),
    "inf on one rank": (spoiled(math.inf), {}),
    "after a skip": (targets, {}),
    "b unused": (lambda s, r: {"a": targets(s, r)["a"]}, {}),
    "b used again": (targets, {}),
    "norm too large for fp32": (lambda s, r: targets(s, r, 2.0**100), {}),
    "lr changed": (lambda s, r: targets(s, r, 64.0), {"lr": 0.5}),
    "lr zero": (targets, {"lr": 0.0}),
    "no clipping": (lambda s, r: targets(s, r, 64.0), {"clip_c": math.inf}),
    "no decay": (targets, {"clip_c": math.inf, "weight_decay": 0.0}),
    "x zero": (targets, {}),
}


def run(ds_config: str) -> dict[str, Any]:
    """Every edge in turn: the whole masters before and after it, and what was decided."""
    model = Linear().to(device)
    groups = [
        {"name": n, "names": [n], "params": [getattr(model, n)], "rule": "sgd", "clip_set": "all", **SETTINGS}
        for n in ("a", "b")
    ]
    optimizer = PretrainingOptimizer(groups)
    start = {n: getattr(model, n).detach().clone() for n in ("a", "b")}
    dictionary = deepspeed_dictionary(load_ds_config(ds_config), BatchArithmetic(world.size, 1, 1, world.size))
    built = engine.build_engine(model, optimizer, dictionary, device)
    assert optimizer.partitions is not None
    fragments = optimizer.partitions.fragments

    def masters() -> dict[str, Tensor]:
        return assemble({f.name: f.master for f in fragments}, optimizer, start)

    for flat in {id(f.flat): f.flat for f in fragments}.values():  # padding is nobody's business
        outside = torch.ones_like(flat, dtype=torch.bool).view(-1)
        for f in fragments:
            if f.flat is flat:
                outside[f.start : f.start + f.numel] = False
        flat.detach().view(-1)[outside] = math.nan
    result: dict[str, Any] = {"start": start, "built": masters(), "edges": {}}
    for step, (edge, (gradients, changed)) in enumerate(EDGES.items()):
        for group in optimizer.all_groups:
            group.update({**SETTINGS, **changed})
        if edge == "x zero":
            for f in fragments:
                f.master.zero_()
        before, skipped = masters(), built.skipped_steps
        mine = {n: t.to(device, built.module.frozen.dtype) for n, t in gradients(step, world.rank).items()}
        built.backward(built(**mine))
        built.step()
        decision = optimizer.last_decision
        per_rank = [gradients(step, rank) for rank in range(world.size)]
        result["edges"][edge] = {
            "before": before,
            "after": masters(),
            "gradient": {n: sum(g[n].double() for g in per_rank) / world.size for n in per_rank[0]},
            "settings": {**SETTINGS, **changed},
            "finite": engine.gather(decision.finite),
            "coefficient": engine.gather(decision.coefficient),
            "x_norm": decision.x_norm,
            "g_norm": decision.g_norm,
            "threshold": decision.threshold,
            "updates": optimizer.updates,
            "engine_skipped": built.skipped_steps - skipped,
        }
    result["frozen"] = dict(zip(SHAPES, (v for _, v in engine.whole_parameters(built)), strict=True))["frozen"].float().cpu()
    built.destroy()
    return result


if __name__ == "__main__":
    world = world_from(os.environ)
    device = engine.start_processes(world)
    results = {name: run(name) for name in sys.argv[2:]}
    if world.is_main:
        torch.save(results, sys.argv[1])
    sys.stdout.flush()
    os._exit(0)
