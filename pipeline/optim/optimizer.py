"""The torch Optimizer: SGD + weight decay + relative global clipping, LAMB and AdamW, one rule a group.

A thin shell: `relative_clip`, `lamb` and torch's own SGD and AdamW are the algorithms, `decision` the norms. Under ZeRO the
engine calls `prepare()` once, then step() once per group (stage 3: per sub-group); both see the flat partitions that ZeRO
has put into `param_groups`.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from pipeline.config.update_rule import update_problem
from pipeline.model.precision import at_least_fp32
from pipeline.optim import lamb
from pipeline.optim.decision import Decision, decide, lamb_directions
from pipeline.optim.fp32_vector import Fp32Vector, longest_chunk
from pipeline.optim.partitions import Fragment, Partitions

MOMENTS = ("exp_avg", "exp_avg_sq")


class PretrainingOptimizer(torch.optim.Optimizer):
    """step() applies the decision that prepare() made. Groups are those of `parameter_groups`; their `lr` may be changed
    before any step. Raises ValueError for C <= 1 and other numbers that cannot be.

    State: LAMB and AdamW keep their two moments per parameter; SGD keeps nothing. `updates` counts applied steps;
    `last_decision` is the finished step's, for the log; `overflow` tells DeepSpeed's engine that it was skipped. Set
    `with_cosine` before a step to have its decision carry <x, g>/(||x||·||g||), which costs another pass over both; set
    `asks_to_stop` on any rank to have the next decision carry that to all. `remainders` holds, for the parameters that are bf16
    here, what their fp32 masters have more (`Fp32Vector`).
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        for group in groups:
            problem = update_problem(group["rule"], group["lr"], group["weight_decay"], group.get("clip_c", math.inf))
            if problem:
                raise ValueError(f"group {group['name']!r}: {problem}")
        super().__init__([{**group, "index": index} for index, group in enumerate(groups)], {})
        self.all_groups = list(self.param_groups)  # ZeRO swaps param_groups during its step,
        self.source_params = [list(group["params"]) for group in groups]  # and what they hold
        self.updates = 0
        self.overflow = False
        self.with_cosine = False
        self.asks_to_stop = False
        self.decision: Decision | None = None
        self.last_decision = Decision(finite=True)
        self.partitions: Partitions | None = None
        self.remainders: dict[Tensor, Tensor] = {}

    def attach(self, partitions: Partitions) -> None:
        """Say what this rank owns; until then step() does nothing (some wrappers step on zeros while they are built)."""
        self.partitions = partitions
        for fragment in partitions.fragments:
            if self.all_groups[fragment.group]["rule"] != "sgd":
                self._moments(fragment.flat)

    def prepare(self) -> Decision:
        """Reduce the norms and decide this update for all groups; on every rank, before any step()."""
        assert self.partitions is not None, "attach() comes first"
        self.decision = decide(
            self.partitions, self.all_groups, self.moment_views, self.updates + 1, self.with_cosine, self.asks_to_stop
        )
        return self.decision

    def finish(self, skipped: bool = False) -> None:
        """After the last group's step(): the decision is used up. `skipped`: the engine did not call step() at all."""
        assert self.decision is not None
        decision = Decision(finite=False, stop=self.decision.stop) if skipped else self.decision
        self.updates += decision.finite
        self.overflow = not decision.finite
        self.last_decision = decision
        self.decision = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update what is in `param_groups` now. Without gradient, a parameter decays only."""
        if self.partitions is None:
            return
        assert self.decision is not None, "prepare() comes before step()"
        if not self.decision.finite:
            return
        for group in self.param_groups:
            if group["params"] and group["rule"] == "lamb":
                self._lamb(group)
            elif group["params"]:
                update = {"sgd": _sgd, "adamw": self._adamw}[group["rule"]]
                for part in self._masters(group):
                    update(group, self.decision.coefficients[group["index"]], *part)
                    del part  # before the next one is put together

    def _masters(self, group: dict[str, Any]) -> Iterator[tuple[list[Tensor], list[Tensor | None], list[list[Tensor]]]]:
        """(fp32 masters, their gradients, their moments) of a group, to be updated in place: the whole ones all together, then
        the split ones piece by piece."""
        keys = () if group["rule"] == "sgd" else MOMENTS
        whole = [p for p in group["params"] if p not in self.remainders]
        if whole:
            yield whole, [p.grad for p in whole], [[self._moments(p)[key] for key in keys] for p in whole]
        for p in group["params"]:
            if p not in self.remainders:
                continue
            start = 0
            for values in Fp32Vector(p.detach(), self.remainders[p]).pieces():
                here = slice(start, start := start + values.numel())
                yield (
                    [values],
                    [p.grad if p.grad is None else at_least_fp32(p.grad[here])],
                    [[self._moments(p)[k][here] for k in keys]],
                )
                del values

    def moment_views(self, fragment: Fragment) -> tuple[Tensor, Tensor]:
        """(m, v) of a fragment of a LAMB or AdamW group, 1-D views."""
        state = self._moments(fragment.flat)
        return fragment.view(state[MOMENTS[0]]), fragment.view(state[MOMENTS[1]])

    def _moments(self, flat: Tensor) -> dict[str, Tensor]:
        state = self.state[flat]
        if not state:
            for key in MOMENTS:
                state[key] = torch.zeros_like(flat, dtype=torch.promote_types(flat.dtype, torch.float32))
        return state

    def _lamb(self, group: dict[str, Any]) -> None:
        assert self.partitions is not None
        assert self.decision is not None
        now = {id(p) for p in group["params"]}
        for fragment in self.partitions.fragments:
            if id(fragment.flat) not in now or fragment.name not in self.decision.lamb_moved:
                continue
            assert fragment.flat.grad is not None  # what there is a direction from
            moments, gradient = self.moment_views(fragment), fragment.view(fragment.flat.grad)
            step = group["lr"] * self.decision.trust_ratios[fragment.name]
            for w, r in lamb_directions(fragment.master.pieces(), moments, gradient, group, self.updates + 1):
                w.add_(r, alpha=-step)
            for m, v, g in zip(*(t.split(longest_chunk(gradient.is_cuda)) for t in (*moments, gradient)), strict=True):
                lamb.update_moments(m, v, at_least_fp32(g), group["betas"])

    def _adamw(
        self,
        group: dict[str, Any],
        coefficient: float,
        masters: list[Tensor],
        all_gradients: list[Tensor | None],
        moments: list[list[Tensor]],
    ) -> None:
        moved = [at for at, gradient in enumerate(all_gradients) if gradient is not None]
        gradients = [g for g in all_gradients if g is not None]
        if not gradients:
            return
        if coefficient != 1:
            torch._foreach_mul_(gradients, coefficient)  # in place: they have served
        adamw(
            [masters[at] for at in moved],
            gradients,
            [moments[at][0] for at in moved],
            [moments[at][1] for at in moved],
            [],
            list(torch.full((len(gradients),), float(self.updates), device=gradients[0].device).unbind()),  # made on the GPU
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            fused=True,
        )


def _sgd(
    group: dict[str, Any], coefficient: float, masters: list[Tensor], gradients: list[Tensor | None], _: list[list[Tensor]]
) -> None:
    """x <- (1 - ηλ)x - ηc·g in one pass over the memory, as -ηc·(g + (λ/c)x) where that is a number."""
    lr, weight_decay = group["lr"], group["weight_decay"]
    one_pass = coefficient > 1e-20
    moved = [(x, g) for x, g in zip(masters, gradients, strict=True) if g is not None]
    decayed_first = [x for x, g in zip(masters, gradients, strict=True) if g is None or not one_pass]
    if decayed_first:
        torch._foreach_mul_(decayed_first, 1 - lr * weight_decay)
    if not moved:
        return
    if one_pass:
        _fused_sgd([x for x, _ in moved], [g for _, g in moved], lr=lr * coefficient, weight_decay=weight_decay / coefficient)
    else:
        torch._foreach_add_([x for x, _ in moved], [g for _, g in moved], alpha=-lr * coefficient)


def _fused_sgd(params: list[Tensor], gradients: list[Tensor], lr: float, weight_decay: float) -> None:
    """torch's fused kernel: reads x and g once, writes x once."""
    sgd(
        params,
        gradients,
        [None] * len(params),
        fused=True,
        weight_decay=weight_decay,
        momentum=0.0,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
