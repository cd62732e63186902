"""What the parts of an audit hand each other: checks, each with its expectation beside what was found."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SIGMAS = 4.0  # of every statistical bound, on both sides: a sound corpus fails such a check once in 16,000 times
TAIL = 0.5 * math.erfc(SIGMAS / math.sqrt(2))
NAMED_PROBLEMS = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `found` and `expected` are sentences for people."""

    name: str
    passed: bool
    found: str
    expected: str


def without_problems(name: str, problems: Sequence[str], fine: str, expected: str) -> Check:
    """A check that passes, and says `fine`, if there are no problems; else it names the first of them."""
    if not problems:
        return Check(name, True, fine, expected)
    named = "; ".join(problems[:NAMED_PROBLEMS])
    more = f"; and {len(problems) - NAMED_PROBLEMS:,} more" if len(problems) > NAMED_PROBLEMS else ""
    return Check(name, False, named + more, expected)


def chi_square_bounds(degrees: int) -> tuple[float, float]:
    """Where a chi-square statistic lies but for SIGMAS (Wilson and Hilferty 1931: its cube root is nearly normal)."""
    spread = 2 / (9 * degrees)
    low, high = (1 - spread + side * SIGMAS * math.sqrt(spread) for side in (-1, 1))
    return degrees * max(0.0, low) ** 3, degrees * high**3


def poisson_bounds(mean: float) -> tuple[int, int]:
    """Where a Poisson number lies but for a tail of SIGMAS on either side: exactly if the mean is small."""
    if mean > 500:
        return math.floor(mean - SIGMAS * math.sqrt(mean)), math.ceil(mean + SIGMAS * math.sqrt(mean))
    low, k, term, below = 0, 0, math.exp(-mean), 0.0  # below: P(number < k)
    while below + term < 1 - TAIL:
        if below + term < TAIL:
            low = k + 1
        below, k = below + term, k + 1
        term *= mean / k
    return low, k
