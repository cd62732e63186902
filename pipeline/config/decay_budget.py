"""One number instead of two: `optim.decay_budget` = lr · weight_decay · steps.

From a balanced start a run depends on lr and weight decay through their product alone: multiplying lr by c² and dividing weight
decay by c² rescales the weights by c (the rescaling equivalence of SGD on a scale invariant loss), and a balanced start puts
them at that scale. The budget says by how much the weights of the start are forgotten: of their length exp(-budget/2) is left
at the end of a linear decay. It stays as it is when a run gets longer. A run of fewer than ten steps a unit spends less.
"""

import math
from collections.abc import Mapping
from typing import Any

from pipeline.config.schema import OptimConfig, TrainConfig

BUDGET = "decay_budget"
MOST_STEPS = 10**18
MOST_OF_A_STEP = 0.1  # of the weights: a trial of a few steps does not spend its whole budget (what it spends is printed)
RATIO = 64.0  # lr / weight_decay where neither is given: of no consequence from a balanced start


def without_outdone(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe less what the values `above` it outdo: a budget takes the place of a rate and a decay, and both of
    these take the place of a budget."""
    mine, theirs = below.get("optim"), above.get("optim")
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return dict(below)
    outdone: set[str] = {"lr", "weight_decay"} if theirs.get(BUDGET) else set()
    if {"lr", "weight_decay"} <= theirs.keys():
        outdone.add(BUDGET)
    return {**below, "optim": {key: value for key, value in mine.items() if key not in outdone}}


def spend_decay_budget(values: dict[str, Any], where: str) -> None:
    """Put lr and weight_decay in the place of `optim.decay_budget` in the nested values of a recipe, in place; where one of the
    two is given, the other follows. A budget of 0 says nothing, for a recipe that extends one which has a budget. ValueError
    for a budget that is no number, for one beside both, and for one of another rule than sgd."""
    optim, train = values.get("optim"), values.get("train", {})
    if not isinstance(optim, dict) or BUDGET not in optim:
        return
    budget = optim.pop(BUDGET)
    if type(budget) not in (int, float) or not 0 <= budget < math.inf:
        raise ValueError(f"{where}: optim.{BUDGET} = {budget!r}: expected a number from 0: lr · weight_decay · steps")
    if budget == 0:
        return
    if optim.get("rule", OptimConfig().rule) == "adamw":
        raise ValueError(f"{where}: optim.{BUDGET} = {budget} is of optim.rule = 'sgd': give lr and weight_decay with adamw")
    given = {name: optim[name] for name in ("lr", "weight_decay") if name in optim}
    if len(given) == 2:
        numbers = ", ".join(f"{name} = {value!r}" for name, value in given.items())
        raise ValueError(f"{where}: optim.{BUDGET} = {budget} beside {numbers}: any two give the third; leave one out")
    steps = train.get("steps", TrainConfig().steps) if isinstance(train, dict) else None
    if type(steps) is not int or not 1 <= steps < MOST_STEPS or not all(_is_above_zero(value) for value in given.values()):
        return  # the configuration's own check names it
    product = min(budget / steps, MOST_OF_A_STEP)
    lr = given.get("lr", product / given["weight_decay"] if "weight_decay" in given else math.sqrt(product * RATIO))
    optim |= {"lr": lr, "weight_decay": given.get("weight_decay", product / lr)}


def _is_above_zero(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e300
