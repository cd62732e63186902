"""LAMB (You et al. 2020, Algorithm 2) as pure functions: for the head, which is not scale invariant.

    m = β1 m + (1 - β1) g      v = β2 v + (1 - β2) g²      r = m̂ / (sqrt(v̂) + eps) + λ w
    w = w - η · (||w|| / ||r||) · r

with bias-corrected m̂, v̂ and norms per tensor. Tensors without weight decay (biases, LayerNorm) take the plain step, as in
the authors' code.
"""

import math

import torch
from torch import Tensor


def update_moments(exp_avg: Tensor, exp_avg_sq: Tensor, grad: Tensor, betas: tuple[float, float]) -> None:
    """m and v after this gradient, in place."""
    exp_avg.lerp_(grad, 1 - betas[0])
    exp_avg_sq.mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])


def direction(
    w: Tensor,
    moments: tuple[Tensor, Tensor],
    grad: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    count: int,
) -> Tensor:
    """r of update number `count` (1 is the first), a new tensor; the moments are left as they are, so that a step that is
    refused on another rank has changed nothing."""
    exp_avg, exp_avg_sq = moments
    m = torch.lerp(exp_avg, grad, 1 - betas[0]).div_(1 - betas[0] ** count)
    v = (exp_avg_sq * betas[1]).addcmul_(grad, grad, value=1 - betas[1]).div_(1 - betas[1] ** count)
    return m.div_(v.sqrt_().add_(eps)).add_(w, alpha=weight_decay)


def trust_ratio(w_norm: float, r_norm: float, weight_decay: float) -> float:
    """||w||/||r||; 1 where a norm is 0 and for tensors without weight decay."""
    if weight_decay == 0 or w_norm == 0 or r_norm == 0 or not math.isfinite(w_norm / r_norm):
        return 1.0
    return w_norm / r_norm
