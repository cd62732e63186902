"""One number instead of two: `optim.decay_budget` = lr · weight_decay · steps.

From a balanced start a run depends on lr and weight decay through their product alone: multiplying lr by c² and dividing weight
decay by c² rescales the weights by c (the rescaling equivalence of SGD on a scale invariant loss), and a balanced start puts
them at that scale. The product times the steps is by how much the weights of the start are forgotten, exp(-budget/2) of them
under a linear decay being left, and needs no new tuning when a run gets longer.
"""

import math
from typing import Any

from pipeline.config.schema import OptimConfig, TrainConfig

RATIO = 64.0  # lr / weight_decay where neither is given: of no consequence from a balanced start


def spend_decay_budget(values: dict[str, Any], where: str) -> None:
    """Put lr and weight_decay in the place of `optim.decay_budget` in the nested values of a recipe, in place; where one of the
    two is given, the other follows. A budget of 0 says nothing, for a recipe that extends one which has a budget. ValueError
    for a budget that is no number, and for one beside both."""
    optim, train = values.get("optim"), values.get("train", {})
    if not isinstance(optim, dict) or "decay_budget" not in optim:
        return
    budget = optim.pop("decay_budget")
    if type(budget) not in (int, float) or not 0 <= budget < math.inf:
        raise ValueError(f"{where}: optim.decay_budget = {budget!r}: expected a number from 0: lr · weight_decay · steps")
    if budget == 0:
        return
    if optim.get("rule", OptimConfig().rule) != "sgd":
        raise ValueError(f"{where}: optim.decay_budget = {budget} is of optim.rule = 'sgd'; set it to 0 beside another rule")
    steps = train.get("steps", TrainConfig().steps) if isinstance(train, dict) else None
    if type(steps) is not int or steps < 1:
        return  # the configuration's own check says it
    product = budget / steps
    given = {name: optim[name] for name in ("lr", "weight_decay") if name in optim}
    if len(given) == 2:
        raise ValueError(
            f"{where}: optim.decay_budget = {budget}, lr = {given['lr']} and weight_decay = {given['weight_decay']}: any two "
            "give the third; leave one out, or set decay_budget = 0"
        )
    for name, value in given.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"{where}: optim.{name} = {value!r} with optim.decay_budget = {budget}: expected a number above 0")
    lr = given.get("lr", product / given["weight_decay"] if "weight_decay" in given else math.sqrt(product * RATIO))
    optim |= {"lr": lr, "weight_decay": given.get("weight_decay", product / lr)}
