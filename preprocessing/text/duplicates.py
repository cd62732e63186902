"""Rows with the same 16-byte key over all slices, in bounded memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.base.arrays import StoredArray

ROWS_AT_ONCE = 250_000  # some 100 bytes each while they are sorted


def later_rows(keys: Sequence[NDArray[Any] | StoredArray], rows_at_once: int = ROWS_AT_ONCE) -> list[NDArray[np.uint32]]:
    """Of each slice the rows whose key an earlier row has (an earlier slice's, or the same slice's above), ascending.

    keys: for each slice KEY rows (high, low, row; see build/slices.py) sorted by `high`, in memory or stored: the 64-bit
    range of `high` is gone through in equal parts, and every slice is read once, from its beginning to its end.
    """
    parts = max(1, -(-sum(map(len, keys)) // rows_at_once))
    found: list[list[NDArray[np.uint32]]] = [[] for _ in keys]
    starts = [0] * len(keys)
    for part in range(parts):
        highest = (part + 1) * (1 << 64) // parts - 1
        pieces, numbers = [], []
        for number, one in enumerate(keys):
            end = _end(one, starts[number], highest)
            if end > starts[number]:
                pieces.append(np.asarray(one[starts[number] : end]))
                numbers.append(np.full(end - starts[number], number, np.uint32))
                starts[number] = end
        for number, rows in _later(pieces, numbers):
            found[number].append(rows)
    empty = np.empty(0, np.uint32)
    return [np.sort(np.concatenate([empty, *rows])) for rows in found]


def _end(keys: NDArray[Any] | StoredArray, start: int, highest: int) -> int:
    """The first row from `start` on whose high word is above `highest`; reads little beyond it."""
    width = 64
    while True:
        window = keys[start : start + width]["high"]
        end = int(window.searchsorted(np.uint64(highest), "right"))
        if end < len(window) or start + width >= len(keys):
            return start + end
        width *= 4


def _later(pieces: list[NDArray[Any]], numbers: list[NDArray[np.uint32]]) -> list[tuple[int, NDArray[np.uint32]]]:
    """(slice, later rows) among the pieces of slices, whose numbers stand beside them."""
    if not pieces:
        return []
    rows, slices = np.concatenate(pieces), np.concatenate(numbers)
    order = np.lexsort((rows["row"], slices, rows["low"], rows["high"]))
    rows, slices = rows[order], slices[order]
    again = np.flatnonzero((rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])) + 1
    return [(int(n), rows["row"][again[slices[again] == n]]) for n in np.unique(slices[again])]
