"""Relative global clipping (Algorithm 1) as pure functions of numbers.

    x(t+1) = (1 - ηλ) x(t) - η · min{ sqrt(2Cλ/η) · ||x(t)|| / ||g||, 1 } · g

η = lr, λ = weight_decay, C = clip_c. x is the one vector of all scale invariant parameters of the model, g its gradient:
norms are global over tensors, partitions and ranks. Everything here is a Python float: in bf16 the coefficient alone
would be off by 0.4%.
"""

import math


def clip_threshold(x_norm: float, lr: float, weight_decay: float, clip_c: float) -> float:
    """The largest gradient norm that is not clipped, sqrt(2Cλ/η)·||x||; infinite without clipping (C = inf) or at η = 0."""
    if math.isinf(clip_c) or lr == 0:
        return math.inf
    return math.sqrt(2 * clip_c * weight_decay / lr) * x_norm


def clip_coefficient(g_norm: float, threshold: float) -> float:
    """min{threshold/||g||, 1}; 1 at g = 0."""
    return 1.0 if g_norm <= threshold else threshold / g_norm


def equilibrium_norm(sphere_gradient_norm: float, lr: float, weight_decay: float) -> float:
    """The norm ||x|| that SGD + weight decay settles at: ||x||² = σ·sqrt(η/(λ(2 - ηλ))), σ = ||g||·||x||.

    The fixed point of ||x||² -> (1 - ηλ)²||x||² + η²σ²/||x||², which holds because <x, g> = 0 (van Laarhoven 2017).
    """
    return math.sqrt(sphere_gradient_norm * math.sqrt(lr / (weight_decay * (2 - lr * weight_decay))))
