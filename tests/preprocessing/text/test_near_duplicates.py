"""Near duplicates: planted ones are found, however the documents are cut into slices."""

import random
import time
from typing import Any

import numpy as np
import pytest

from preprocessing.text import near_duplicates as near
from preprocessing.text.clean import paragraphs
from preprocessing.text.near_duplicates import N_HASHES, SHINGLE_WORDS, bands_for, near_duplicates, signature

THRESHOLD = 0.8


Shingles = set[tuple[str, ...]]


def shingles(words: list[str]) -> Shingles:
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)}


def jaccard(a: Shingles, b: Shingles) -> float:
    return len(a & b) / len(a | b)


def edited(words: list[str], rng: random.Random, rate: float) -> list[str]:
    """The words, each replaced with this probability."""
    return [f"edit{rng.randrange(10**9)}" if rng.random() < rate else word for word in words]


@pytest.fixture(scope="module")
def planted(topics: list[dict[str, Any]]) -> tuple[list[Shingles], np.ndarray]:
    """Real articles, each followed by edits of it, as their shingles; and their signatures."""
    rng = random.Random(5)
    documents = []
    for row in topics:
        words = " ".join(paragraphs(row["text"])).casefold().split()
        documents += [words, *(edited(words, rng, rate) for rate in (0, 0.003, 0.01, 0.02, 0.03, 0.05, 0.2))]
    return [shingles(words) for words in documents], np.stack([signature([" ".join(words)]) for words in documents])


def cut(values: np.ndarray, places: list[int]) -> list[np.ndarray]:
    return np.split(values, places)


def found(signatures: np.ndarray, threshold: float = THRESHOLD, alive: np.ndarray | None = None) -> np.ndarray:
    (flags,) = near_duplicates([signatures], [np.ones(len(signatures), bool) if alive is None else alive], threshold)
    return flags


def test_the_signature_estimates_the_jaccard_similarity(planted: tuple[list[Shingles], np.ndarray]) -> None:
    documents, signatures = planted
    errors = [
        (signatures[i] == signatures[i + k]).mean() - jaccard(documents[i], documents[i + k])
        for i in range(0, len(documents), 8)
        for k in range(1, 8)
    ]
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05


def test_planted_near_duplicates_are_found(planted: tuple[list[Shingles], np.ndarray]) -> None:
    """Beyond the estimate's error of two standard deviations nothing is missed and nothing else is dropped."""
    documents, signatures = planted
    flags = found(signatures)
    staying = [i for i in range(len(documents)) if not flags[i]]
    best = [max((jaccard(documents[i], documents[k]) for k in staying if k < i), default=0.0) for i in range(len(documents))]
    positive = np.array(best) >= THRESHOLD
    precision = (flags & positive).sum() / flags.sum()
    recall = (flags & positive).sum() / positive.sum()
    assert precision > 0.9, (precision, recall)
    assert recall > 0.9, (precision, recall)
    assert flags[np.array(best) >= THRESHOLD + 0.08].all()
    assert not flags[np.array(best) <= THRESHOLD - 0.1].any()
    print(f"precision {precision:.3f}, recall {recall:.3f} of {positive.sum()} planted")


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_the_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = bands_for(threshold)
    assert bands * rows <= N_HASHES
    assert 1 - (1 - threshold**rows) ** bands >= 0.95


@pytest.mark.parametrize("places", [[0], [1], [3, 3, 90], [8 * i for i in range(1, 40)], list(range(1, 320))])
def test_cuts_change_nothing(planted: tuple[list[Shingles], np.ndarray], places: list[int]) -> None:
    _, signatures = planted
    alive = np.random.default_rng(0).random(len(signatures)) < 0.9
    parts = near_duplicates(cut(signatures, places), cut(alive, places), THRESHOLD)
    assert [len(p) for p in parts] == [len(p) for p in cut(alive, places)]
    np.testing.assert_array_equal(np.concatenate(parts), found(signatures, alive=alive))


def test_chunks_change_nothing(planted: tuple[list[Shingles], np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found(planted[1])
    monkeypatch.setattr(near, "_CHUNK_ROWS", 7)
    np.testing.assert_array_equal(found(planted[1]), whole)


def test_the_earliest_living_one_stays(planted: tuple[list[Shingles], np.ndarray]) -> None:
    same = planted[1][[0, 0, 8, 0, 8]]
    assert found(same).tolist() == [False, True, False, True, True]
    assert found(same, alive=np.array([False, True, True, True, False])).tolist() == [False, False, False, True, False]


def test_collisions_are_verified(planted: tuple[list[Shingles], np.ndarray]) -> None:
    """Two that share a band, and little else, are no near duplicates."""
    pair = planted[1][[0, 8]].copy()
    _, rows = bands_for(THRESHOLD)
    pair[1, :rows] = pair[0, :rows]
    assert not found(pair).any()


def test_only_documents_that_share_a_band_are_compared(planted: tuple[list[Shingles], np.ndarray]) -> None:
    pair = planted[1][[0, 0]].copy()
    bands, rows = bands_for(THRESHOLD)
    pair[1, rows - 1 :: rows] ^= 1
    assert (pair[0] == pair[1]).mean() > THRESHOLD
    assert not found(pair).any()
    pair[1, bands * rows - 1] = pair[0, bands * rows - 1]
    assert found(pair).tolist() == [False, True]


def test_a_crowd_takes_linear_time() -> None:
    rng = np.random.default_rng(0)
    crowd = np.repeat(rng.integers(0, 2**32, (1, N_HASHES), np.uint32), 50_000, 0)
    crowd[:, 64:] = rng.integers(0, 2**32, (50_000, 64), np.uint32)  # all share half their bands, none is alike
    started = time.process_time()
    assert not found(crowd).any()
    assert time.process_time() - started < 30  # a pair at a time would be hours


def test_the_signature_is_of_words(planted: tuple[list[Shingles], np.ndarray]) -> None:
    """Case and cuts into paragraphs change nothing; short and empty documents have signatures too; the values are fixed."""
    one = signature(["One two three four", "five SIX seven"])
    np.testing.assert_array_equal(one, signature(["one Two three four five six seven"]))
    assert one.dtype == np.uint32
    assert one.shape == (N_HASHES,)
    assert one[:3].tolist() == PINNED
    assert (signature(["a b"]) != signature(["a c"])).any()
    assert signature([]).shape == (N_HASHES,)


PINNED = [3571084926, 3253319057, 3297034676]
"""What another version of rensa, or another platform, must compute too."""


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="as many of each"):
        near_duplicates([np.zeros((2, N_HASHES), np.uint32)], [np.ones(3, bool)], THRESHOLD)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        bands_for(0)
    assert near_duplicates([], [], THRESHOLD) == []


def test_another_algorithm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_ALGORITHM_VERSION", 99)
    with pytest.raises(RuntimeError, match="expected 99"):
        signature(["text"])
