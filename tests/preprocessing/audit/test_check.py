"""The bounds of the audit's statistical checks."""

import numpy as np

from preprocessing.audit.check import chi_square_bounds, poisson_bounds


def test_the_bounds_hold_what_they_should() -> None:
    generator = np.random.default_rng(0)
    for mean in (0.01, 1.0, 30.0, 2000.0):
        low, high = poisson_bounds(mean)
        drawn = generator.poisson(mean, 20_000)
        assert ((drawn < low) | (drawn > high)).sum() <= 6
    assert poisson_bounds(0.0) == (0, 0)
    for degrees in (1, 7, 125):
        low, high = chi_square_bounds(degrees)
        drawn = generator.chisquare(degrees, 20_000)
        assert ((drawn < low) | (drawn > high)).sum() <= 6
