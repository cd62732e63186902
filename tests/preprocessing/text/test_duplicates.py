"""Duplicates over slices, beside a dictionary's word for it; where slices join up; how sources are mixed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.base.arrays import StoredArray, write_array
from preprocessing.build.mixing import check_mixing, epochs
from preprocessing.build.plan import Gates, Plan, cut
from preprocessing.build.settings import Settings
from preprocessing.build.slices import _sorted_keys
from preprocessing.build.spans import check_spans
from preprocessing.sources.parse import parse_sources
from preprocessing.sources.read import Reader
from preprocessing.text.duplicates import later_rows

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


def test_stored_keys_are_read_like_arrays(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    slices = [[bytes([b]) * 16 for b in generator.integers(0, 256, 300)] for _ in range(4)]
    keys = [_sorted_keys(b"".join(one)) for one in [*slices, []]]
    for number, one in enumerate(keys):
        write_array(tmp_path / f"{number}.npy", one)
    stored = [StoredArray(tmp_path / f"{number}.npy") for number in range(len(keys))]
    assert [rows.tolist() for rows in later_rows(stored, 100)] == [*by_dictionary(slices), []]


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
    found = epochs(TOKENS, times, weights)
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
        epochs({"a": 0, "b": 5}, {}, {"a": 1, "b": 1})
    assert np.isfinite(list(epochs(TOKENS, {}, {"books": 0.5, "wiki": 0.5}).values())).all()


def planned(tmp_path: Path, text_rows: int = 400) -> Plan:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(text_rows)))
    sources = parse_sources([str(path)])
    checked = Settings(slice_mb=0.001).check(sources)
    return Plan(sources, checked, {}, Gates(), cut(sources, 0.001), {"a": 5}, "f" * 64)


def spans_of(plan: Plan) -> list[list[tuple[int, int, int]]]:
    reader, spans = Reader(plan.sources, 1000), []
    for one in plan.slices:
        list(reader.read(one))
        spans.append(reader.spans)
    return spans


def test_spans_must_join_up(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    spans = spans_of(plan)
    assert len(spans) > 3
    check_spans(plan, spans)
    for broken in ((0, spans[1][0][1] + 1, spans[1][0][2]), (0, spans[1][0][1] - 1, spans[1][0][2])):  # a gap, an overlap
        with pytest.raises(ValueError, match=r"slice 1 of source a began at .* the file changed between two tasks"):
            check_spans(plan, [spans[0], [broken], *spans[2:]])


def test_all_rows_must_be_read(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    spans = spans_of(plan)
    units = (dataclasses.replace(plan.sources[0].units[0], rows=spans[-1][0][2] + 1),)
    with pytest.raises(ValueError, match=r"a\.jsonl: [\d,]+ of [\d,]+ rows were read"):
        check_spans(dataclasses.replace(plan, sources=(dataclasses.replace(plan.sources[0], units=units),)), spans)


def test_a_plans_identity_is_all_that_shapes_the_corpus(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    changes: list[dict[str, Any]] = [
        {"heldout_limits": {"a": 6}},
        {"tokenizer_sha256": "e" * 64},
        {"settings": plan.settings.model_copy(update={"min_words": 3})},
        {"versions": {"numpy": "1"}},
        {"sources": planned(tmp_path, 401).sources},
    ]
    identities = {plan.identity, *(dataclasses.replace(plan, **change).identity for change in changes)}
    assert len(identities) == 6
    assert dataclasses.replace(plan, gates=Gates(max_bad=3)).identity == plan.identity
