"""The torch Optimizer: SGD + weight decay + relative global clipping, LAMB and AdamW, one rule a group.

A thin shell: `relative_clip`, `lamb` and torch's own AdamW are the algorithms, `decision` the norms. Under ZeRO the engine
calls `prepare()` once, then step() once per group; both see the flat partitions that ZeRO has put into `param_groups`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from pipeline.config import RunConfig
from pipeline.model.pretraining import PretrainingModel
from pipeline.optim import lamb
from pipeline.optim.decision import Decision, decide
from pipeline.optim.partitions import Fragment, Partitions

MOMENTS = ("exp_avg", "exp_avg_sq")


def parameter_groups(model: PretrainingModel, config: RunConfig) -> list[dict[str, Any]]:
    """The groups of a recipe; every trainable parameter stands in exactly one, or ValueError names it.

    `sgd`: the scale invariant parameters go to SGD, the others to LAMB. `adamw`: everything to AdamW. Biases and
    LayerNorm parameters of LAMB and AdamW are not decayed, as is usual.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optim, head = config.optim, config.head_optim
    groups: list[dict[str, Any]] = []

    def add(name: str, members: Mapping[str, Tensor], **settings: Any) -> None:
        if members:
            groups.append({"name": name, "params": list(members.values()), "names": list(members), **settings})

    def add_decayed_and_not(name: str, members: Mapping[str, Tensor], weight_decay: float, **settings: Any) -> None:
        add(name, {n: p for n, p in members.items() if p.ndim > 1}, weight_decay=weight_decay, **settings)
        add(f"{name}, not decayed", {n: p for n, p in members.items() if p.ndim <= 1}, weight_decay=0.0, **settings)

    if optim.rule == "adamw":
        settings = {"betas": optim.betas, "eps": optim.eps, "max_grad_norm": optim.max_grad_norm}
        add_decayed_and_not("everything", trainable, optim.weight_decay, rule="adamw", lr=optim.lr, **settings)
    else:
        invariant = model.scale_invariant_names() if config.model.encoder != "bert" else set(trainable)
        add(
            "scale invariant" if config.model.encoder != "bert" else "everything",
            {n: p for n, p in trainable.items() if n in invariant},
            rule="sgd",
            lr=optim.lr,
            weight_decay=optim.weight_decay,
            clip_c=optim.clip_c,
        )
        rest = {n: p for n, p in trainable.items() if n not in invariant}
        add_decayed_and_not("head", rest, head.weight_decay, rule="lamb", lr=head.lr, betas=head.betas, eps=head.eps)
    check_groups(trainable, groups)
    return groups


def check_groups(trainable: Mapping[str, Tensor], groups: Sequence[dict[str, Any]]) -> None:
    """ValueError unless every trainable parameter stands in exactly one group."""
    seen: dict[int, str] = {}
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if id(parameter) in seen:
                raise ValueError(f"parameter {name} is in two groups: {seen[id(parameter)]!r} and {group['name']!r}")
            seen[id(parameter)] = group["name"]
    missing = [name for name, parameter in trainable.items() if id(parameter) not in seen]
    if missing:
        raise ValueError(f"no group trains {', '.join(missing)}: put every parameter in one group, or freeze it")


class PretrainingOptimizer(torch.optim.Optimizer):
    """step() applies the decision that prepare() made. Groups are those of `parameter_groups`.

    State: LAMB and AdamW keep their two moments per parameter; SGD keeps nothing. `updates` counts applied steps;
    `last_decision` is the finished step's, for the log.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__([{**group, "index": index} for index, group in enumerate(groups)], {})
        self.all_groups = list(self.param_groups)  # ZeRO swaps param_groups during its step
        self.updates = 0
        self.decision: Decision | None = None
        self.last_decision = Decision(finite=True, groups=())
        self.partitions: Partitions | None = None

    def attach(self, partitions: Partitions) -> None:
        """Say what this rank owns; until then step() does nothing (some wrappers step on zeros while they are built)."""
        self.partitions = partitions
        for fragment in partitions.fragments:
            if self.all_groups[fragment.group]["rule"] != "sgd":
                self._moments(fragment.flat)

    def prepare(self) -> Decision:
        """Reduce the norms and decide this update for all groups; on every rank, before any step()."""
        assert self.partitions is not None, "attach() comes first"
        self.decision = decide(self.partitions, self.all_groups, self.moment_views, self.updates + 1)
        return self.decision

    def finish(self) -> None:
        """After the last group's step(): the decision is used up."""
        assert self.decision is not None
        self.updates += self.decision.finite
        self.last_decision = replace(self.decision, lamb_directions={})
        self.decision = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the groups that are in `param_groups` now."""
        if self.partitions is None:
            return
        assert self.decision is not None, "prepare() comes before step()"
        if not self.decision.finite:
            return
        for group in self.param_groups:
            coefficient = self.decision.groups[group["index"]].coefficient
            {"sgd": self._sgd, "lamb": self._lamb, "adamw": self._adamw}[group["rule"]](group, coefficient)

    def moment_views(self, fragment: Fragment) -> tuple[Tensor, Tensor]:
        """(m, v) of a fragment of a LAMB or AdamW group, 1-D views."""
        state = self._moments(fragment.flat)
        return fragment.view(state[MOMENTS[0]]), fragment.view(state[MOMENTS[1]])

    def _moments(self, flat: Tensor) -> dict[str, Tensor]:
        state = self.state[flat]
        if not state:
            for key in MOMENTS:
                state[key] = torch.zeros_like(flat, memory_format=torch.preserve_format)
        return state

    def _sgd(self, group: dict[str, Any], coefficient: float) -> None:
        lr = group["lr"]
        torch._foreach_mul_(group["params"], 1 - lr * group["weight_decay"])
        moved = [p for p in group["params"] if p.grad is not None]
        torch._foreach_add_(moved, [p.grad for p in moved], alpha=-lr * coefficient)

    def _lamb(self, group: dict[str, Any], coefficient: float) -> None:
        assert self.partitions is not None
        assert self.decision is not None
        for fragment in self.partitions.fragments:
            if fragment.group != group["index"] or fragment.name not in self.decision.lamb_directions:
                continue
            grad = fragment.view(fragment.flat.grad) if fragment.flat.grad is not None else fragment.gradient()
            assert grad is not None
            lamb.update_moments(*self.moment_views(fragment), grad, group["betas"])
            step = group["lr"] * self.decision.trust_ratios[fragment.name]
            fragment.master.add_(self.decision.lamb_directions[fragment.name], alpha=-step)

    def _adamw(self, group: dict[str, Any], coefficient: float) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        states = [self._moments(p) for p in params]
        adamw(
            params,
            [p.grad * coefficient for p in params],
            [s[MOMENTS[0]] for s in states],
            [s[MOMENTS[1]] for s in states],
            [],
            [torch.tensor(float(self.updates)) for _ in params],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            foreach=True,
        )
