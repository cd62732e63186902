"""The order of the samples in an epoch: a keyed bijection on [0, n), computed per element, stored nowhere.

A resumed run, or one on another number of GPUs, needs no saved shuffle: where sample k of epoch e goes is arithmetic.

Shapes: N elements, in any array shape.
"""

import math
from typing import overload

import numpy as np
from numpy.typing import NDArray

N_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / the golden ratio, splitmix64's increment
_WORD = (1 << 64) - 1
_LARGEST_N = 1 << 62  # leaves ceil(sqrt n)**2 and every sum below 2**64


@overload
def permute(index: int, n: int, seed: int, epoch: int) -> int: ...
@overload
def permute(index: NDArray[np.integer], n: int, seed: int, epoch: int) -> NDArray[np.int64]: ...
def permute(index: int | NDArray[np.integer], n: int, seed: int, epoch: int) -> int | NDArray[np.int64]:
    """Where `index` goes in the permutation of [0, n) that (seed, epoch) names; O(1) time and memory per element.

    A generalised Feistel network (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"): write
    x = left * b + right with a = ceil(sqrt n), b = ceil(n / a), left < a, right < b; six rounds alternately add a
    keyed hash of one half to the other, modulo its range. Each round can be undone, so the whole is a bijection of
    [0, a * b), which exceeds n by less than a. Results in [n, a * b) are sent through again (cycle walking) until
    they land below n, which keeps it a bijection of [0, n).

    index: an int, or an array of integers, each in [0, n). Returns the same: an int, or an int64 array of that shape.
    ValueError: n, seed, epoch or an index out of range.
    """
    _check(n, seed, epoch)
    x_N = index if isinstance(index, np.ndarray) else np.array([index])
    if x_N.size and (x_N.dtype.kind not in "iu" or x_N.min() < 0 or x_N.max() >= n):
        raise ValueError(f"index: got {index}, expected integers in [0, n = {n}); reduce it modulo n")
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    keys = round_keys(seed, epoch)
    y_N = _network(x_N.astype(np.uint64), a, b, keys)
    outside_N = y_N >= n
    while outside_N.any():
        y_N[outside_N] = _network(y_N[outside_N], a, b, keys)
        outside_N = y_N >= n
    result_N = y_N.astype(np.int64)
    return result_N if isinstance(index, np.ndarray) else int(result_N[0])


def round_keys(seed: int, epoch: int) -> list[int]:
    """The network's N_ROUNDS 64-bit keys: splitmix64 started at mix(mix(seed + golden) + epoch)."""
    start = _mix(_mix((seed + _GOLDEN) & _WORD) + epoch & _WORD)
    return [_mix((start + (r + 1) * _GOLDEN) & _WORD) for r in range(N_ROUNDS)]


def _network(x_N: NDArray[np.uint64], a: int, b: int, keys: list[int]) -> NDArray[np.uint64]:
    """All rounds of the network on [0, a * b)."""
    a_64, b_64 = np.uint64(a), np.uint64(b)
    left_N, right_N = np.divmod(x_N, b_64)
    for r, key in enumerate(keys):
        if r % 2 == 0:
            left_N = (left_N + mixed(right_N + np.uint64(key)) % a_64) % a_64
        else:
            right_N = (right_N + mixed(left_N + np.uint64(key)) % b_64) % b_64
    return left_N * b_64 + right_N


def mixed(z_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, element by element (unsigned arrays wrap modulo 2**64 by themselves)."""
    z_N = (z_N ^ (z_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z_N = (z_N ^ (z_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z_N ^ (z_N >> np.uint64(31))


def _mix(z: int) -> int:
    """splitmix64's finaliser: a bijection of 64-bit words in which every input bit moves every output bit."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


def _check(n: int, seed: int, epoch: int) -> None:
    if not 1 <= n <= _LARGEST_N:
        raise ValueError(f"n: got {n}, expected 1 to 2**62 elements; an empty split has no order")
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value <= _WORD:
            raise ValueError(f"{name}: got {value}, expected an integer in [0, 2**64); choose a non-negative one")
