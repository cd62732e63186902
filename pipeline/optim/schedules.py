"""The learning rate as a pure function of the step."""

from pipeline.config.schema import RunConfig, ScheduleConfig


def lr_at(step: int, peak: float, schedule: ScheduleConfig, total_steps: int) -> float:
    """Learning rate of update number `step` (0 is the first) of `total_steps`.

    Linear warm-up to `peak` over warmup_steps, then: `linear` falls to 0 at total_steps; `polynomial` does as the power `power`
    of what is left of the run (with 2 the angle sqrt(2 η λ), by which weights in equilibrium turn in a step, falls linearly,
    Kosson et al., Rotational Equilibrium, 2023); `step` is multiplied by `factor`
    at each milestone (a fraction of the run: the paper's are 0.6 and 0.9); `constant` stays; `wsd` stays until the last
    `decay_fraction` of the run, in which it falls to 0 at total_steps (warm-up, stable, decay: Hu et al., MiniCPM, 2024).
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.decay in ("linear", "polynomial"):
        left = max(0.0, (total_steps - step) / (total_steps - schedule.warmup_steps))
        return peak * (left if schedule.decay == "linear" else left**schedule.power)
    if schedule.decay == "step":
        return peak * schedule.factor ** sum(step >= round(m * total_steps) for m in schedule.milestones)
    if schedule.decay == "wsd":
        stable_steps = round((1 - schedule.decay_fraction) * total_steps)
        return peak * min(1.0, max(0.0, (total_steps - step) / max(1, total_steps - stable_steps)))
    return peak


def learning_rates(config: RunConfig, step: int) -> dict[str, float]:
    """Of each rule, in update number `step` (0 is the first): the encoder's rule by `optim`, LAMB by `head_optim`."""
    optim, head, steps = config.optim, config.head_optim, config.train.steps
    return {"lamb": lr_at(step, head.lr, head.schedule, steps), optim.rule: lr_at(step, optim.lr, optim.schedule, steps)}
