"""One decision a step for the whole model, before any partition is touched.

Each rank sums squares over the fragments it owns, one all-reduce of a few float64 scalars makes them the model's, and the
same numbers on every rank give the same decision: skip (a non-finite value anywhere), the clip coefficient of each group,
the trust ratio of each LAMB tensor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.optim import lamb
from pipeline.optim.partitions import Fragment, Partitions
from pipeline.optim.relative_clip import clip_coefficient, clip_threshold


@dataclass(frozen=True)
class GroupDecision:
    """Of one parameter group: global norms, the clip threshold (None where the rule has none), and the coefficient."""

    x_norm: float
    g_norm: float
    threshold: float | None
    coefficient: float


@dataclass(frozen=True)
class Decision:
    """Of one step. `lamb_directions` are this rank's r of each LAMB fragment; `trust_ratios` are the model's, by name."""

    finite: bool
    groups: tuple[GroupDecision, ...]
    trust_ratios: dict[str, float] = field(default_factory=dict)
    lamb_directions: dict[str, Tensor] = field(default_factory=dict)


def decide(partitions: Partitions, groups: Sequence[dict[str, Any]], lamb_state: Any, lamb_count: int) -> Decision:
    """The step's decision. `groups` are the optimiser's, `lamb_state(fragment)` its moments' views (m, v), `lamb_count`
    the number this update would have in LAMB's bias correction."""
    gradients = {f.name: g for f in partitions.fragments if (g := f.gradient()) is not None}
    directions = {
        f.name: lamb.direction(f.master, lamb_state(f), gradients[f.name], count=lamb_count, **_lamb_settings(groups[f.group]))
        for f in partitions.fragments
        if groups[f.group]["rule"] == "lamb" and f.name in gradients
    }
    sums = _global_square_sums(partitions, gradients, directions, len(groups))
    group_sums, tensor_sums = sums[: 2 * len(groups)], sums[2 * len(groups) :]
    if not all(map(math.isfinite, sums)):
        nothing = tuple(GroupDecision(math.nan, math.nan, None, 0.0) for _ in groups)
        return Decision(finite=False, groups=nothing)
    x_norms, g_norms = ([math.sqrt(square) for square in group_sums[first::2]] for first in (0, 1))
    adamw_norm = math.hypot(*(g for g, group in zip(g_norms, groups, strict=True) if group["rule"] == "adamw"))
    ratios = {
        name: lamb.trust_ratio(math.sqrt(ww), math.sqrt(rr), weight_decay)
        for name, ww, rr, weight_decay in _lamb_tensors(partitions, groups, tensor_sums)
    }
    decided = tuple(
        _decide_group(group, x_norm, g_norm, adamw_norm) for group, x_norm, g_norm in zip(groups, x_norms, g_norms, strict=True)
    )
    return Decision(True, decided, ratios, directions)


def _decide_group(group: dict[str, Any], x_norm: float, g_norm: float, adamw_norm: float) -> GroupDecision:
    if group["rule"] == "sgd":
        threshold = clip_threshold(x_norm, group["lr"], group["weight_decay"], group["clip_c"])
        return GroupDecision(x_norm, g_norm, threshold, clip_coefficient(g_norm, threshold))
    if group["rule"] == "adamw":  # the usual clipping: one norm over everything AdamW trains
        return GroupDecision(x_norm, g_norm, None, clip_coefficient(adamw_norm, group["max_grad_norm"]))
    return GroupDecision(x_norm, g_norm, None, 1.0)


def _lamb_settings(group: dict[str, Any]) -> dict[str, Any]:
    return {key: group[key] for key in ("betas", "eps", "weight_decay")}


def _lamb_tensors(partitions: Partitions, groups: Sequence[dict[str, Any]], tensor_sums: list[float]) -> Any:
    """(name, ||w||², ||r||², weight decay) of the LAMB tensors this rank holds a part of."""
    position = {name: index for index, name in enumerate(partitions.tensor_names)}
    for f in partitions.fragments:
        if groups[f.group]["rule"] == "lamb":
            at = 2 * position[f.name]
            yield f.name, tensor_sums[at], tensor_sums[at + 1], groups[f.group]["weight_decay"]


def _global_square_sums(
    partitions: Partitions, gradients: dict[str, Tensor], directions: dict[str, Tensor], n_groups: int
) -> list[float]:
    """[||x||², ||g||²] of each group, then [||w||², ||r||²] of each tensor that LAMB trains (0 for the others)."""
    position = {name: index for index, name in enumerate(partitions.tensor_names)}
    slots: list[int] = []
    tensors: list[Tensor] = []

    def count(slot: int, tensor: Tensor) -> None:
        slots.append(slot)
        tensors.append(tensor)

    for f in partitions.fragments:
        count(2 * f.group, f.master)
        if f.name in gradients:
            count(2 * f.group + 1, gradients[f.name])
        if f.name in directions:
            count(2 * (n_groups + position[f.name]), f.master)
            count(2 * (n_groups + position[f.name]) + 1, directions[f.name])
    return _reduced_squares(partitions, slots, tensors, 2 * (n_groups + len(partitions.tensor_names)))


def _reduced_squares(partitions: Partitions, slots: list[int], tensors: list[Tensor], size: int) -> list[float]:
    device = _device_of(partitions.fragments)
    sums = torch.zeros(size, dtype=torch.float64, device=device)
    if tensors:
        squares = torch.stack(torch._foreach_norm(tensors, dtype=torch.float64)).square_()
        sums.index_add_(0, torch.tensor(slots, device=device), squares)
    if partitions.all_reduce_sum is not None:
        partitions.all_reduce_sum(sums)
    return sums.tolist()  # the step's one host synchronisation


def _device_of(fragments: Sequence[Fragment]) -> torch.device:
    return fragments[0].flat.device if fragments else torch.device("cpu")
