"""Which numbers an update can be made of: limits of Algorithm 1, LAMB and AdamW, shared by configuration and optimiser."""

import math


def update_problem(rule: str, lr: float, weight_decay: float, clip_c: float = math.inf, section: str = "") -> str | None:
    """Why no update by `rule` ("sgd", "lamb", "adamw") has these numbers, in one line; None if it may.

    η = lr, λ = weight_decay, C = clip_c: a step decays the weights to 1 - ηλ of themselves, and sgd clips a gradient longer
    than sqrt(2Cλ/η)·||x||, which is sqrt(C) times its length at equilibrium. `section` stands before the keys' names.
    """
    if not (lr >= 0 and weight_decay >= 0):
        return f"{section}lr = {lr}, {section}weight_decay = {weight_decay}: expected neither below 0"
    if not lr * weight_decay < 1:
        return f"{section}lr * {section}weight_decay = {lr * weight_decay:g}: at 1 or more a step would erase the weights"
    if not clip_c > 1:
        return f"{section}clip_c = {clip_c}: C must exceed 1 (C <= 1 clips at equilibrium), inf for none"
    if rule == "sgd" and weight_decay == 0 and not math.isinf(clip_c):
        return f"{section}weight_decay = 0 makes the clip threshold 0 and no step would move: set {section}clip_c = inf"
    return None
