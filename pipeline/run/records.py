"""What is logged of training: the sums since the last record, and the names and values of a record."""

from typing import Any

from pipeline.config.schema import RunConfig
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.statistics import NormStatistics

# |<x, g>|/(||x||·||g||) is 0 for a scale invariant model but for rounding; larger than this it cannot be rounding.
LARGEST_COSINE = {"fp32": 1e-5, "bf16": 1e-2}


def norm_record(config: RunConfig, optimizer: PretrainingOptimizer, statistics: NormStatistics) -> dict[str, Any]:
    """Learning rates, norms and clipping of the optimiser's last step, under the names that metrics.jsonl has for them. None
    where a value does not apply to the configuration."""
    groups, decision = optimizer.all_groups, optimizer.last_decision
    lr = next((g["lr"] for g in groups if g["rule"] != "lamb"), groups[0]["lr"])
    weight_decay = config.optim.weight_decay
    relative = config.optim.rule == "sgd"
    clipped_together = config.optim.rule != "lamb"  # which has no norm of everything
    return {
        "lr": lr,
        "head_lr": next((g["lr"] for g in groups if g["rule"] == "lamb"), None),
        "param_norm": decision.x_norm if clipped_together else None,
        "grad_norm": decision.g_norm if clipped_together else None,
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
    """The alarm if `cosine` shows that the trained function is no longer scale invariant; None if it still is, or if there is
    no cosine."""
    if cosine is None or abs(cosine) <= LARGEST_COSINE[precision]:
        return None
    return (
        f"ALARM at step {step}: <x, g>/(‖x‖·‖g‖) = {cosine:.1e}, beyond the rounding of {precision} "
        f"({LARGEST_COSINE[precision]:g}): the trained function is not scale invariant any more"
    )
