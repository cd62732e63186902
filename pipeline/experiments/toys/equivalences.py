"""What must not matter to SGD with weight decay and relative clipping on a scale invariant loss, and by how much it does.

On the scale invariant factorisation with a target that changes from step to step, so that no gradient is ever 0.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.toys.factorisation import TARGET, scale_invariant
from pipeline.optim.relative_clip import clip_coefficient, clip_threshold

Floats = NDArray[np.float64]
START = np.array([3.0, 0.0, 1 / 3, 0.0])  # A, then B
LR, WEIGHT_DECAY, CLIP_C = 0.2, 0.1, 1.05
NOISE = 0.3


def path(
    lr: Callable[[int], float],
    weight_decay: float,
    clip_c: float,
    steps: int,
    seed: int,
    start: float = 1.0,
    loss: float = 1.0,
) -> tuple[list[Floats], int]:
    """(iterates x_0, x_1, …; how many steps were clipped), the start and the loss multiplied by the given numbers."""
    generator, x, clipped = np.random.default_rng(seed), start * START, 0
    found = [x]
    for step in range(steps):
        target = TARGET + NOISE * generator.standard_normal((2, 2))
        _, da, db = scale_invariant(x[None, :2], x[None, 2:], target)
        g = loss * np.concatenate([da[0], db[0]])
        threshold = clip_threshold(float(np.linalg.norm(x)), lr(step), weight_decay, clip_c)
        coefficient = clip_coefficient(float(np.linalg.norm(g)), threshold)
        clipped += coefficient < 1
        x = (1 - lr(step) * weight_decay) * x - lr(step) * coefficient * g
        found.append(x)
    return found, clipped


def difference(ours: Sequence[Floats], theirs: Sequence[Floats]) -> float:
    """The largest relative distance of iterates."""
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(ours, theirs, strict=True))


def directions(of: Sequence[Floats]) -> list[Floats]:
    """Each iterate divided by its length."""
    return [x / np.linalg.norm(x) for x in of]


def of_the_growing_rate(offset: int, steps: int, seed: int) -> float:
    """Between the directions of SGD with weight decay at η and those without it at η·(1-ηλ)^(-2t-offset)."""
    shrink = 1 - LR * WEIGHT_DECAY
    decayed, _ = path(lambda t: LR, WEIGHT_DECAY, np.inf, steps, seed)
    growing, _ = path(lambda t: LR * shrink ** (-2 * t - offset), 0.0, np.inf, steps, seed)
    return difference(directions(growing), directions(decayed))


def of_a_scaled_loss(c: float, steps: int, seed: int) -> float:
    """Between the iterates of (L, η, λ, x0) and of (cL, η/c, cλ, x0)."""
    reference, _ = path(lambda t: LR, WEIGHT_DECAY, CLIP_C, steps, seed)
    return difference(path(lambda t: LR / c, c * WEIGHT_DECAY, CLIP_C, steps, seed, loss=c)[0], reference)


def of_a_scaled_start(c: float, steps: int, seed: int) -> float:
    """Between the directions of (L, η, λ, x0) and of (L, c²η, λ/c², c·x0)."""
    reference, _ = path(lambda t: LR, WEIGHT_DECAY, CLIP_C, steps, seed)
    scaled, _ = path(lambda t: c * c * LR, WEIGHT_DECAY / (c * c), CLIP_C, steps, seed, start=c)
    return difference(directions(scaled), directions(reference))
