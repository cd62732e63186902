"""Run by test_certify.py as ranks: `certify` must see each of these deliberate mistakes in the product."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.distributed.launch import world_from
from pipeline.engine import build
from pipeline.engine.processes import start_processes
from pipeline.optim import decision
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.verify import cell as certify_cell
from pipeline.verify.comparison import Cell

attach, prepare, finish, step, decide = (
    PretrainingOptimizer.attach,
    PretrainingOptimizer.prepare,
    PretrainingOptimizer.finish,
    PretrainingOptimizer.step,
    decision.decide,
)
Patch = pytest.MonkeyPatch


def no_global_reduction(patch: Patch) -> None:
    """Each rank takes the norms of its own partition."""
    patch.setattr(PretrainingOptimizer, "attach", lambda self, p: attach(self, replace(p, all_reduce_sum=None)))


def no_group_scoping(patch: Patch) -> None:
    """The head's parameters are counted into the encoder's norms."""
    clip_sets = decision._clip_sets

    def unscoped(groups: Any, sums: dict[tuple[str, Any], float]) -> Any:
        everything = {kind: sum(sums[kind, i] for i in range(len(groups))) for kind in ("xx", "gg")}
        first = next(i for i, group in enumerate(groups) if group["rule"] == "sgd")
        return clip_sets(groups, {**sums, **{(kind, first): value for kind, value in everything.items()}})

    patch.setattr(decision, "_clip_sets", unscoped)


def no_pre_pass(patch: Patch) -> None:
    """The decision is made anew in each call of step(), over the sub-group that is at hand."""

    def step_by_step(self: PretrainingOptimizer, closure: Any = None) -> None:
        if self.partitions is not None:
            now = {id(p) for group in self.param_groups for p in group["params"]}
            at_hand = tuple(
                replace(f, gradient=lambda f=f: f.view(f.flat.grad)) for f in self.partitions.fragments if id(f.flat) in now
            )
            partitions = replace(self.partitions, fragments=at_hand)
            self.decision = decide(partitions, self.all_groups, self.moment_views, self.updates + 1)
        step(self)

    patch.setattr(PretrainingOptimizer, "step", step_by_step)


def peak_learning_rate(patch: Patch) -> None:
    """The threshold is taken at the first step's learning rate and not at the current one."""
    rule, first = decision.clip_threshold, []

    def stale(x_norm: float, lr: float, *rest: float) -> float:
        first.append(lr)
        return rule(x_norm, first[0], *rest)

    patch.setattr(decision, "clip_threshold", stale)


def default_gradient_clipping(patch: Patch) -> None:
    """DeepSpeed's own clipping is left at its default, and its own norms with it (without them it has nothing to clip by)."""
    patch.setattr(build, "take_over_norms", lambda *_: None)
    dictionary = certify_cell.deepspeed_dictionary
    patch.setattr(certify_cell, "deepspeed_dictionary", lambda m, b: {**dictionary(m, b), "gradient_clipping": 1.0})


def opaque_output(patch: Patch) -> None:
    """The model returns what DeepSpeed does not look into."""
    model = certify_cell._model

    def opaque(config: Any) -> Any:
        built = model(config)
        forward = built.forward
        built.forward = lambda batch: SimpleNamespace(loss=forward(batch).loss)
        return built

    patch.setattr(certify_cell, "_model", opaque)


def one_rank_rounds_differently(patch: Patch) -> None:
    """The coefficient of one rank is off by its last bit."""

    def off(self: PretrainingOptimizer, skipped: bool = False) -> None:
        finish(self, skipped)
        sets = self.last_decision.sets
        if world.rank == 1:
            sets = {name: s._replace(coefficient=s.coefficient * (1 + 2**-52)) for name, s in sets.items()}
        self.last_decision = replace(self.last_decision, sets=sets)

    patch.setattr(PretrainingOptimizer, "finish", off)


def a_step_is_lost(patch: Patch) -> None:
    """The third step is taken for a non-finite one."""
    calls = []

    def losing(self: PretrainingOptimizer) -> Any:
        calls.append(None)
        if len(calls) == 3:
            self.decision = decision.Decision(finite=False)
            return self.decision
        return prepare(self)

    patch.setattr(PretrainingOptimizer, "prepare", losing)


MUTATIONS: dict[str, tuple[Callable[[Patch], None], Cell]] = {
    "none": (lambda patch: None, Cell("zero1", "paper", 1)),
    "no global reduction": (no_global_reduction, Cell("zero1", "paper", 1)),
    "no group scoping": (no_group_scoping, Cell("zero1", "paper", 1)),
    "no global reduction, stage 3": (no_global_reduction, Cell("zero3", "invariant", 1)),
    "no pre-pass": (no_pre_pass, Cell("zero3", "invariant", 1)),
    "learning rate of the first step": (peak_learning_rate, Cell("zero2", "invariant", 1)),
    "DeepSpeed's default clipping": (default_gradient_clipping, Cell("zero2", "invariant", 1)),
    "opaque output": (opaque_output, Cell("zero2-offload", "invariant", 2)),
    "a lost step": (a_step_is_lost, Cell("zero1", "invariant", 1)),
    "one rank's last bit": (one_rank_rounds_differently, Cell("zero1", "invariant", 1)),
}


def main(argv: list[str]) -> int:
    """A file for what `certify` says of each."""
    global world
    world = world_from(os.environ)
    device = start_processes(world)
    problems = {}
    for name, (mutate, cell) in sorted(MUTATIONS.items(), key=lambda item: item[1][1].ds_config):  # stage 3 last
        with pytest.MonkeyPatch.context() as patch:
            mutate(patch)
            problems[name] = certify_cell.run_cell(cell, world, device).problem
    if world.is_main:
        Path(argv[0]).write_text(json.dumps(problems))
    return 0
