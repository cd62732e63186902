"""Duplicates over slices, beside a dictionary's word for it; where slices join up; how sources are mixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.duplicates import later_rows
from preprocessing.mixing import check_mixing, epochs
from preprocessing.slices import _sorted_keys

texts = st.binary(min_size=1, max_size=1).map(lambda b: b * 16)  # 256 hashes over the whole range: many meet


def by_dictionary(slices: list[list[bytes]]) -> list[list[int]]:
    seen: set[bytes] = set()
    later = []
    for one in slices:
        later.append([row for row, text in enumerate(one) if text in seen or seen.add(text)])  # type: ignore[func-returns-value]
    return later


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(texts, max_size=30), max_size=6), st.sampled_from([1, 7, 1000]))
def test_later_rows_are_a_dictionarys(slices: list[list[bytes]], rows_at_once: int) -> None:
    keys = [_sorted_keys(b"".join(one)) for one in slices]
    assert [rows.tolist() for rows in later_rows(keys, rows_at_once)] == by_dictionary(slices)


def test_half_a_hash_is_not_enough() -> None:
    keys = [_sorted_keys(b"a" * 8 + b"b" * 8 + b"a" * 8 + b"c" * 8 + b"c" * 8 + b"b" * 8)]
    assert [rows.tolist() for rows in later_rows(keys)] == [[]]


TOKENS = {"books": 100, "wiki": 400}


@pytest.mark.parametrize(
    ("times", "weights", "expected"),
    [
        ({}, {}, {"books": 1, "wiki": 1}),
        ({"books": 2.5}, {}, {"books": 2.5, "wiki": 1}),
        ({}, {"books": 1, "wiki": 1}, {"books": 4, "wiki": 1}),
        ({}, {"books": 1, "wiki": 9}, {"books": 1, "wiki": 2.25}),
    ],
)
def test_epochs_by_hand(times: dict[str, float], weights: dict[str, float], expected: dict[str, float]) -> None:
    found = epochs(TOKENS, {"epochs": times, "weights": weights})
    assert found == pytest.approx(expected)
    if weights:  # the shares are met
        read = {name: found[name] * TOKENS[name] for name in TOKENS}
        assert read["books"] / read["wiki"] == pytest.approx(weights["books"] / weights["wiki"])


def test_mixing_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="give one of the two"):
        check_mixing(["a"], {"a": 1}, {"a": 1})
    with pytest.raises(ValueError, match="--weight: none for b"):
        check_mixing(["a", "b"], {}, {"a": 1})
    with pytest.raises(ValueError, match="--weight a: the source has no tokens"):
        epochs({"a": 0, "b": 5}, {"epochs": {}, "weights": {"a": 1, "b": 1}})
    assert np.isfinite(list(epochs(TOKENS, {"epochs": {}, "weights": {"books": 0.5, "wiki": 0.5}}).values())).all()
