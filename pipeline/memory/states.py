"""Model states: what a rank holds of a model between steps, whatever the batch. The one account of them: the dry run's figures,
the check that a run fits at all, and the base of every prediction come from here.

`rule` is what trains a parameter: sgd, lamb or adamw (`optim.groups`). All sizes are bytes of one rank, counts are scalars.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pipeline.config.schema import RunConfig
from pipeline.memory.system import COPIES, FP32_BYTES, GRADIENTS, MASTERS, MOMENTS, PARAMETERS, Kinds, System
from pipeline.model.build import skeleton
from pipeline.optim.groups import parameter_groups

MOMENTS_OF_RULE = {"sgd": 0, "lamb": 2, "adamw": 2}


@dataclass(frozen=True)
class Group:
    """A parameter group, which ZeRO lays into one flat vector: its rule, and the elements of each tensor in order, by name."""

    rule: str
    sizes: dict[str, int]


@dataclass(frozen=True)
class ModelStates:
    """Bytes of one rank: the parameters that the forward pass reads, fp32 masters beside them (0 where the parameters are their
    own), the optimiser's moments, and the gradient that is left to a rank after its reduction."""

    parameters: int
    masters: int
    moments: int
    gradient: int


def groups_of(config: RunConfig, vocab_size: int) -> list[Group]:
    """The recipe's parameter groups; the model is built without storage."""
    groups = parameter_groups(skeleton(config, vocab_size), config)
    return [Group(g["rule"], {n: p.numel() for n, p in zip(g["names"], g["params"], strict=True)}) for g in groups]


def parameters_of_rule(groups: Sequence[Group]) -> dict[str, int]:
    """How many scalars SGD, LAMB and AdamW train."""
    return {rule: sum(sum(g.sizes.values()) for g in groups if g.rule == rule) for rule in MOMENTS_OF_RULE}


def model_states(of_rule: Mapping[str, int], system: System) -> ModelStates:
    """ZeRO 1 cuts masters and moments into one part a rank, ZeRO 2 the gradient too, ZeRO 3 the parameters too."""
    total, low, stage, world = sum(of_rule.values()), system.forward_bytes, system.stage, system.world_size
    has_masters = stage > 0 or low < FP32_BYTES
    return ModelStates(
        parameters=low * total // (world if stage == 3 else 1),
        masters=system.master_bytes * total // system.partitions if has_masters else 0,
        moments=FP32_BYTES * sum(n * MOMENTS_OF_RULE[rule] for rule, n in of_rule.items()) // system.partitions,
        gradient=low * total // (world if stage >= 2 else 1),
    )


def bytes_per_rank(of_rule: Mapping[str, int], system: System) -> dict[str, int]:
    """The dry run's figures: weights with their masters, gradient, moments (`optimizer`); with offloading what moves to the
    `host`, under stage 3 the gradient too, under stages 1 and 2 a second one while micro batches are accumulated."""
    states = model_states(of_rule, system)
    if "offload_optimizer" not in system.zero:
        return {"weights": states.parameters + states.masters, "gradient": states.gradient, "optimizer": states.moments}
    total = sum(of_rule.values())
    host = states.masters + FP32_BYTES * total // system.partitions + states.moments
    if system.stage == 3:
        return {"weights": states.parameters, "gradient": 0, "host": host + states.gradient}
    accumulated = system.forward_bytes * total // system.partitions if system.accumulates else 0
    return {"weights": states.parameters, "gradient": states.gradient, "host": host + accumulated}


def between_steps(groups: Sequence[Group], system: System) -> Kinds:
    """On the device, by kind. Stage 3 keeps a buffer for its part of the gradient, a bucket, and small parameters whole; the
    other stages release the gradient. Without a GPU what is offloaded stays in the same memory."""
    states = model_states(parameters_of_rule(groups), system)
    if "offload_optimizer" in system.zero and torch.cuda.is_available():
        return {PARAMETERS: states.parameters, MASTERS: 0, MOMENTS: 0}
    kinds = {PARAMETERS: states.parameters, MASTERS: states.masters, MOMENTS: states.moments}
    if system.stage == 3:
        limit = system.zero["stage3_param_persistence_threshold"]
        whole = sum(size for group in groups for size in group.sizes.values() if size <= limit)
        kinds[GRADIENTS] = states.gradient
        kinds[COPIES] = system.forward_bytes * (system.zero["reduce_bucket_size"] + whole)
    return kinds
