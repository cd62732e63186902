"""The order of an epoch: a bijection, keyed, shuffled, and the same on every machine."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.order import permute

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    """splitmix64's finaliser."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def reference_permute(index: int, n: int, seed: int, epoch: int) -> int:
    """The readable scalar twin of `permute`: six Feistel rounds on [0, a * b), walked until below n."""
    a = math.isqrt(n - 1) + 1  # ceil(sqrt n)
    b = (n + a - 1) // a
    start = mix((mix((seed + GOLDEN) & WORD) + epoch) & WORD)
    while True:
        left, right = index // b, index % b
        for r in range(6):
            key = mix((start + (r + 1) * GOLDEN) & WORD)
            if r % 2 == 0:
                left = (left + mix((right + key) & WORD)) % a
            else:
                right = (right + mix((left + key) & WORD)) % b
        index = left * b + right
        if index < n:
            return index


around_powers = st.builds(lambda k, d: max(1, 2**k + d), st.integers(0, 12), st.integers(-1, 1))
words = st.integers(0, WORD)


@settings(max_examples=100, deadline=None)
@given(n=st.one_of(st.sampled_from([1, 2, 3]), around_powers, st.integers(1, 5000)), seed=words, epoch=words)
def test_it_is_a_bijection(n: int, seed: int, epoch: int) -> None:
    result_N = permute(np.arange(n), n, seed, epoch)
    assert result_N.dtype == np.int64
    assert np.array_equal(np.sort(result_N), np.arange(n))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), n=st.one_of(st.integers(1, 40), st.integers(1, 1 << 62)), seed=words, epoch=words)
def test_equals_the_scalar_reference(data: st.DataObject, n: int, seed: int, epoch: int) -> None:
    indices = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    expected = [reference_permute(index, n, seed, epoch) for index in indices]
    assert permute(np.array(indices, dtype=np.int64), n, seed, epoch).tolist() == expected
    one = permute(indices[0], n, seed, epoch)
    assert one == expected[0]
    assert type(one) is int


def test_golden_values() -> None:
    """A change here reorders the data of every unfinished run."""
    assert permute(np.arange(10), 10, 0, 0).tolist() == [2, 0, 9, 3, 8, 6, 5, 7, 4, 1]
    assert permute(12345, 10**9, 7, 3) == 431620111


def test_all_orders_of_three_occur_evenly() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(1200):
        order = tuple(permute(np.arange(3), 3, seed, 0).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert max(abs(count - 200) for count in counts.values()) < 5 * math.sqrt(200)


@pytest.mark.parametrize("n", [1000, 1024, 4097, 100_003])
def test_it_is_shuffled(n: int) -> None:
    """Displacement, fixed points, correlations and the uniformity of blocks are those of a random permutation."""
    here_N = np.arange(n)
    to_N = permute(here_N, n, 11, 2)
    assert abs(np.abs(to_N - here_N).mean() / n - 1 / 3) < 5 * 0.3 / math.sqrt(n)
    assert (to_N == here_N).sum() <= 8  # Poisson with mean 1
    steps_N = np.diff(to_N)
    assert np.unique(steps_N, return_counts=True)[1].max() < 15 + 10 * math.log(n)  # no stride is kept
    for lag in (1, 2, math.isqrt(n), math.isqrt(n) + 1):
        assert abs(np.corrcoef(to_N[:-lag], to_N[lag:])[0, 1]) < 5 / math.sqrt(n)
    assert abs(np.corrcoef(here_N, to_N)[0, 1]) < 5 / math.sqrt(n)
    table = np.histogram2d(here_N, to_N, bins=8)[0]  # 8 x 8 blocks of about n / 64
    chi_square = ((table - n / 64) ** 2 / (n / 64)).sum()
    assert chi_square < 49 + 6 * math.sqrt(2 * 49)


def test_seed_and_epoch_both_change_the_order() -> None:
    n = 1000
    orders = {(s, e): permute(np.arange(n), n, s, e) for s in (0, 1, 2, 1 << 63) for e in (0, 1, 2)}
    keys = list(orders)
    for i, first in enumerate(keys):
        for second in keys[:i]:
            same = int((orders[first] == orders[second]).sum())
            assert same <= 9, f"{first} and {second} agree at {same} places, expected about 1"


def test_cycle_walking_is_exercised() -> None:
    """n = 3 lives in a domain of 4, so an order that never walked would leave [0, 3)."""
    assert all(permute(np.arange(3), 3, seed, 0).max() == 2 for seed in range(50))


def test_shapes_and_kinds() -> None:
    assert permute(np.arange(6).reshape(2, 3), 6, 0, 0).shape == (2, 3)
    assert permute(np.empty(0, dtype=np.int64), 6, 0, 0).shape == (0,)
    assert permute(np.arange(6, dtype=np.uint16), 6, 0, 0).tolist() == permute(np.arange(6), 6, 0, 0).tolist()
    index_N = np.arange(6)
    permute(index_N, 6, 0, 0)
    assert index_N.tolist() == list(range(6)), "the argument was changed"


@pytest.mark.parametrize(
    ("index", "n", "seed", "epoch", "message"),
    [
        (0, 0, 0, 0, "n: got 0"),
        (0, (1 << 62) + 1, 0, 0, "n: got"),
        (5, 5, 0, 0, r"expected integers in \[0, n = 5\)"),
        (-1, 5, 0, 0, "expected integers"),
        (np.array([0.5]), 5, 0, 0, "expected integers"),
        (0, 5, -1, 0, "seed: got -1"),
        (0, 5, 0, 1 << 64, "epoch: got"),
    ],
)
def test_bad_input(index: object, n: int, seed: int, epoch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        permute(index, n, seed, epoch)  # type: ignore[call-overload]
