"""What a step is told as: the sums since the last record, and a record's names and numbers."""

from typing import Any

from pipeline.config.schema import RunConfig
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.statistics import NormStatistics

# |<x, g>|/(||x||·||g||) of a scale invariant model is rounding alone: above this it is not that any more.
LARGEST_COSINE = {"fp32": 1e-5, "bf16": 1e-2}


def norm_record(config: RunConfig, optimizer: PretrainingOptimizer, statistics: NormStatistics) -> dict[str, Any]:
    """What the last step decided, in the metrics' names."""
    groups, decision = optimizer.all_groups, optimizer.last_decision
    lr = next((g["lr"] for g in groups if g["rule"] != "lamb"), groups[0]["lr"])
    weight_decay = config.optim.weight_decay
    relative = config.optim.rule == "sgd"
    return {
        "lr": lr,
        "head_lr": next((g["lr"] for g in groups if g["rule"] == "lamb"), None),
        "param_norm": decision.x_norm,
        "grad_norm": decision.g_norm,
        "param_grad_cosine": decision.cosine if config.model.encoder != "bert" else None,
        "clip_threshold": decision.threshold,
        "clip_coefficient": decision.coefficient,
        "clipped": decision.clipped,
        "clipped_fraction": statistics.clipped_fraction,
        "skipped": not decision.finite,
        "skipped_steps": statistics.skipped_steps,
        "effective_lr": lr / decision.x_norm**2 if relative and decision.x_norm else None,
        "equilibrium_norm": statistics.equilibrium(lr, weight_decay) if relative else None,
    }


def cosine_alarm(step: int, cosine: float | None, precision: str) -> str | None:
    """What to say if the trained function is not scale invariant any more; None if it is, or if this cannot be told."""
    if cosine is None or abs(cosine) <= LARGEST_COSINE[precision]:
        return None
    return (
        f"ALARM at step {step}: <x, g>/(‖x‖·‖g‖) = {cosine:.1e}, beyond the rounding of {precision} "
        f"({LARGEST_COSINE[precision]:g}): the trained function is not scale invariant any more"
    )
