"""The slides' first example: gradient descent on a product of 2k numbers has a rate above which it can only diverge.

L̃(X) is the logistic loss of one feature on data that no sign separates: three quarters of the labels agree with the feature,
one quarter does not. It is convex, with its minimiser X* = ln 3. L(x_1, …, x_2k) = L̃(x_1·…·x_2k), all x_i equal at the start.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AGREE = 0.75
MINIMISER = math.log(AGREE / (1 - AGREE))
OUT_OF_SIGHT = 1e9  # a product beyond it does not come back: it stays where it is


def loss(product: Floats) -> Floats:
    """L̃(X)."""
    return AGREE * np.logaddexp(0, -product) + (1 - AGREE) * np.logaddexp(0, product)


def slope(product: Floats) -> Floats:
    """∇L̃(X)."""
    return 0.5 * (1 + np.tanh(product / 2)) - AGREE


def divergence_bound(k: int, start: float) -> float:
    """The slides' rate, 2·X(0)^(1/k - 1) / |∇L̃(X(0))|: at it a step takes every x_i to -x_i, and above it further away."""
    return float(2 * start ** (1 / k - 1) / abs(slope(np.array(start))))


def descend(k: int, start: float, rates: Floats, steps: int) -> Floats:
    """The product X after so many steps of gradient descent, for each rate."""
    x = np.full((len(rates), 2 * k), start ** (1 / (2 * k)))
    product = x.prod(axis=1)
    for _ in range(steps):
        moves = np.abs(product) < OUT_OF_SIGHT
        others = np.stack([np.delete(x, i, axis=1).prod(axis=1) for i in range(2 * k)], axis=1)
        x -= np.where(moves, rates * slope(product), 0)[:, None] * others
        product = x.prod(axis=1)
    return product
