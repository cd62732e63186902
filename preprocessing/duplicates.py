"""Rows with the same 16-byte key over all slices, in bounded memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 8_000_000  # some 40 bytes each while they are sorted


def later_rows(keys: Sequence[NDArray[Any]], rows_at_once: int = ROWS_AT_ONCE) -> list[NDArray[np.uint32]]:
    """Of each slice the rows whose key an earlier row has (an earlier slice's, or the same slice's above), ascending.

    keys: for each slice KEY rows (high, low, row; see preprocessing.slices) sorted by `high`, best as memory maps: the 64-bit
    range of `high` is gone through in equal parts, each read from every slice once.
    """
    parts = max(1, -(-sum(map(len, keys)) // rows_at_once))
    found: list[list[NDArray[np.uint32]]] = [[] for _ in keys]
    for part in range(parts):
        low, high = part * (1 << 64) // parts, (part + 1) * (1 << 64) // parts - 1
        for number, row in _later(keys, low, high):
            found[number].append(row)
    empty = np.empty(0, np.uint32)
    return [np.sort(np.concatenate([empty, *rows])) for rows in found]


def _later(keys: Sequence[NDArray[Any]], low: int, high: int) -> list[tuple[int, NDArray[np.uint32]]]:
    """(slice, later rows) of the keys with low <= high word <= high."""
    pieces, numbers = [], []
    for number, one in enumerate(keys):
        start = one["high"].searchsorted(np.uint64(low), "left")
        end = one["high"].searchsorted(np.uint64(high), "right")
        if end > start:
            pieces.append(np.asarray(one[start:end]))
            numbers.append(np.full(end - start, number, np.uint32))
    if not pieces:
        return []
    rows, slices = np.concatenate(pieces), np.concatenate(numbers)
    order = np.lexsort((rows["row"], slices, rows["low"], rows["high"]))
    rows, slices = rows[order], slices[order]
    again = np.flatnonzero((rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])) + 1
    return [(int(n), rows["row"][again[slices[again] == n]]) for n in np.unique(slices[again])]
