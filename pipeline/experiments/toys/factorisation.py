"""The slides' second example: a rank-one matrix from two factors of very different lengths.

L(A, B) = ½·||A Bᵀ - Y||², Y all 1/2, A(0) = (α, 0), B(0) = (1/α, 0); the scale invariant one has A Bᵀ/||A Bᵀ|| in its place.
Many runs go side by side: n of them, A and B [n, 2].
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Gradient = Callable[[Floats, Floats, Floats], tuple[Floats, Floats, Floats]]  # A, B, Y -> loss [n], dA, dB
Rule = Callable[[Floats, Floats, int], Floats]  # x, gradient, step from 1 -> new x
TARGET = np.full((2, 2), 0.5)
GOAL = 1e-6


def plain(a: Floats, b: Floats, target: Floats) -> tuple[Floats, Floats, Floats]:
    """L and its gradients."""
    rest = a[:, :, None] * b[:, None, :] - target
    return 0.5 * (rest**2).sum((1, 2)), np.einsum("nij,nj->ni", rest, b), np.einsum("nij,ni->nj", rest, a)


def scale_invariant(a: Floats, b: Floats, target: Floats) -> tuple[Floats, Floats, Floats]:
    """The same of A Bᵀ/||A Bᵀ||."""
    product = a[:, :, None] * b[:, None, :]
    length = np.sqrt((product**2).sum((1, 2)))[:, None, None]
    unit = product / length
    rest = unit - target
    along = (rest * unit).sum((1, 2))[:, None, None]
    back = (rest - along * unit) / length
    return 0.5 * (rest**2).sum((1, 2)), np.einsum("nij,nj->ni", back, b), np.einsum("nij,ni->nj", back, a)


def descent(rates: Floats, weight_decay: float = 0.0) -> Rule:
    """Gradient descent with weight decay, a rate for each run."""
    lr = rates[:, None]
    return lambda x, g, step: (1 - lr * weight_decay) * x - lr * g


def adam(rates: Floats, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Rule:
    """Adam (Kingma & Ba 2015), a rate for each run; of one tensor, for it keeps that tensor's moments."""
    moments: list[Floats] = []

    def step(x: Floats, g: Floats, number: int) -> Floats:
        if not moments:
            moments.extend([np.zeros_like(x), np.zeros_like(x)])
        m, v = moments
        m[:] = betas[0] * m + (1 - betas[0]) * g
        v[:] = betas[1] * v + (1 - betas[1]) * g * g
        return x - rates[:, None] * (m / (1 - betas[0] ** number)) / (np.sqrt(v / (1 - betas[1] ** number)) + eps)

    return step


def steps_to_goal(alphas: Floats, gradient: Gradient, rules: tuple[Rule, Rule], most_steps: int) -> tuple[Floats, Floats]:
    """(updates until the loss is at most GOAL, infinite if it is not within most_steps; the last loss) of each run."""
    alphas = np.asarray(alphas, dtype=np.float64)
    zeros = np.zeros_like(alphas)
    a, b = np.stack([alphas, zeros], axis=1), np.stack([1 / alphas, zeros], axis=1)
    taken = np.full(len(alphas), np.inf)
    with np.errstate(all="ignore"):  # rates that are too large
        for number in range(most_steps + 1):
            losses, da, db = gradient(a, b, TARGET)
            taken = np.where((losses <= GOAL) & np.isinf(taken), number, taken)
            if np.isfinite(taken).all():
                break
            a, b = rules[0](a, da, number + 1), rules[1](b, db, number + 1)
    return taken, np.where(np.isfinite(losses), losses, np.inf)


def best_of(
    alphas: Sequence[float], rates: Sequence[float], rule: Callable[[Floats], Rule], most_steps: int
) -> list[dict[str, float]]:
    """For each α the rate that reaches the goal first, or else comes closest: its "rate", "steps" and "loss"."""
    every_alpha, every_rate = (grid.flatten() for grid in np.meshgrid(alphas, rates, indexing="ij"))
    taken, losses = steps_to_goal(every_alpha, plain, (rule(every_rate), rule(every_rate)), most_steps)
    best: list[dict[str, float]] = []
    for row in np.arange(len(every_alpha)).reshape(len(alphas), len(rates)):
        at = min(row, key=lambda i: (taken[i], losses[i]))
        best.append({"rate": float(every_rate[at]), "steps": float(taken[at]), "loss": float(losses[at])})
    return best


def slope_per_decade(alphas: Sequence[float], steps: Sequence[float]) -> float:
    """Of the line through steps against log10 α, by least squares."""
    return float(np.polyfit(np.log10(alphas), steps, 1)[0])
