"""Near duplicates by MinHash: two documents that share most of their word 5-grams, one word changed here and there.

A signature holds, for each of 128 random orders of all shingles, the first of the document's own (Broder 1997); two
signatures agree in as large a part of their places as their documents share shingles (the Jaccard similarity), give or
take 0.04. Documents are compared only if all places of one band agree (locality sensitive hashing).

Signatures come from rensa (compiled, no dependencies, 0.07 ms for 3,000 words; joining the shingles takes 1 ms), whose
algorithm carries a version number, which is checked: signatures of different versions do not compare. (datasketch would
need scipy too.)
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from preprocessing.base.arrays import StoredArray

N_HASHES = 128
SHINGLE_WORDS = 5
_SEED = 1
_ALGORITHM_VERSION = 2
_CHUNK_ROWS = 1 << 16

Signature = NDArray[np.uint32]
Flags = NDArray[np.bool_]


def signature(paragraphs: list[str]) -> Signature:
    """uint32 [128] of a document: of its case-folded 5-grams of words, or of all its words if there are fewer.

    ModuleNotFoundError: rensa is not installed. RuntimeError: this rensa computes other signatures.
    """
    import rensa  # here, for only near duplicates need it

    if rensa.RMinHash.ALGORITHM_VERSION != _ALGORITHM_VERSION:
        raise RuntimeError(
            f"rensa computes signatures of version {rensa.RMinHash.ALGORITHM_VERSION}, expected {_ALGORITHM_VERSION}; "
            f"install the version that requirements.txt names"
        )
    words = " ".join(paragraphs).casefold().split()
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    sketch = rensa.RMinHash(num_perm=N_HASHES, seed=_SEED)
    sketch.update([" ".join(words[i : i + SHINGLE_WORDS]) for i in range(count)])
    return np.array(sketch.digest(), np.uint32)


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, rows of each): the most rows with which a pair at the threshold shares a band with probability 0.95."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold of near duplicates: got {threshold}, expected above 0 and at most 1, such as 0.8")
    for rows in range(N_HASHES, 1, -1):
        bands = N_HASHES // rows
        if 1 - (1 - threshold**rows) ** bands >= 0.95:
            return bands, rows
    return N_HASHES, 1


def near_duplicates(signatures: Sequence[Signature | StoredArray], alive: Sequence[Flags], threshold: float) -> list[Flags]:
    """For each slice, which documents are near duplicates of an earlier (slice, row) one that stays.

    `signatures` uint32 [n_i, 128] (in memory or stored: they are read band by band, a chunk of rows at a time), `alive` bool
    [n_i], false for documents that are dropped already and count for nothing. Two documents are near duplicates if they
    share a band and at least `threshold` of their signatures. Memory: some 40 bytes a document.

    In each band the documents with the same values are a group, compared with its first only: linear, however many they
    are. What one band drops the next ones leave out. So a document is dropped only if it is like an earlier one that
    stays, or like one that a later band drops for being like a still earlier one; the first of all is never dropped.
    The result depends on the documents' order, not on where the slices are cut. ValueError: the lengths differ.
    """
    sizes = [len(part) for part in signatures]
    if sizes != [len(part) for part in alive]:
        raise ValueError(
            f"got signatures of {sizes} documents and flags of {[len(a) for a in alive]}; expected as many of each"
        )
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    dead = ~np.concatenate([np.zeros(0, bool), *alive])
    dropped = np.zeros(len(dead), bool)
    bands, rows = bands_for(threshold)
    for band in range(bands):
        living = np.flatnonzero(~(dead | dropped))
        keys = _band_keys(signatures, band * rows, rows)[living]
        first, others = _groups(keys)
        for a, b in _chunks(living[first], living[others]):
            alike = (_rows(signatures, starts, a) == _rows(signatures, starts, b)).sum(axis=1) >= threshold * N_HASHES
            dropped[b[alike]] = True
    return [dropped[begin:end] for begin, end in itertools.pairwise(starts)]


def _groups(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, other): the index of each group's first, for each other one of the group. Groups have equal keys."""
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    if not same.any():
        return order[:0], order[:0]
    head = np.concatenate([[True], ~same])
    first_of = order[np.flatnonzero(head)][np.cumsum(head) - 1]
    return first_of[~head], order[~head]


def _band_keys(signatures: Sequence[Signature | StoredArray], begin: int, rows: int) -> NDArray[np.uint64]:
    """A 64-bit hash of the band's places for every document; a chance collision costs a comparison, no more."""
    keys = [np.zeros(0, np.uint64)]
    for part in signatures:
        for at in range(0, len(part), _CHUNK_ROWS):
            key = np.full(len(part[at : at + _CHUNK_ROWS]), 0xCBF29CE484222325, np.uint64)
            for value in part[at : at + _CHUNK_ROWS][:, begin : begin + rows].T:
                key = (key ^ value) * np.uint64(0x9E3779B97F4A7C15)  # wraps round
                key ^= key >> np.uint64(32)
            keys.append(key)
    return np.concatenate(keys)


def _rows(signatures: Sequence[Signature | StoredArray], starts: NDArray[np.int64], documents: NDArray[np.int64]) -> Signature:
    """The signatures of these documents, numbered over all slices."""
    found = np.empty((len(documents), N_HASHES), np.uint32)
    slices = np.searchsorted(starts, documents, side="right") - 1
    for i in np.unique(slices):
        here = slices == i
        found[here] = signatures[i][documents[here] - starts[i]]
    return found


def _chunks(a: NDArray[np.int64], b: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return [(a[i : i + _CHUNK_ROWS], b[i : i + _CHUNK_ROWS]) for i in range(0, len(a), _CHUNK_ROWS)]
