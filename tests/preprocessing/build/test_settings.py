"""The settings and gates of a build: what they refuse and in which words; plans and markers of earlier versions stay valid."""

import json
from typing import Any

import pytest

from preprocessing.build.marker import Marker
from preprocessing.build.options import parse_build_options, settings_of
from preprocessing.build.plan import Gates, Plan, differences_of_settings
from preprocessing.build.settings import PlannedSettings, Settings, Strict
from preprocessing.corpus.reader import Corpus

# As it was written before settings and gates had a type, and the identity that it had then.
PLAN = """{"format": "sibert-plan-1", "gates": {"least": {"b": {"documents": 3, "words": 10}}, "max_bad": 2}, "heldout_limits":
{"b": 5}, "settings": {"epochs": {"b": 2.5}, "heldout_fraction": 0.1, "language": null, "max_document_mb": 20.0, "min_words": 5,
"near_duplicates": 0.8, "sample_characters": 20000000, "seed": 0, "slice_mb": 8.0, "vocab_size": 300, "weights": {}}, "slices":
[{"first_unit": 0, "last_unit": 0, "part": 0, "parts": 1, "source": "b"}], "sources": [{"declared_rows": 0, "kind": "builtin",
"location": "", "name": "b", "origin": {"kind": "builtin", "version": "Python 3.11.9"}, "units": [{"bytes": 0, "mtime_ns": 0,
"path": "", "rows": 0, "sha256": ""}]}], "tokenizer_sha256": "ff", "versions": {"numpy": "2.4.6"}}"""
IDENTITY = "1df51533091651f7d84fb2e655d123030ea95faededf3bd1ea9c9a723e04eb47"
MARKER: dict[str, Any] = {
    "plan": "ab",
    "files": {"00000.counts.npy": {"bytes": 7, "sha256": "cd"}},
    "shards": [
        {
            "file": "00000.train.arrow",
            "split": "train",
            "source": "b",
            "documents": 1,
            "sentences": 2,
            "tokens": 3,
            "bytes": 4,
            "sha256": "ef",
        }
    ],
    "tally": {
        "read": 2,
        "dropped": {"too short": 1},
        "dropped_lines": {},
        "skipped": {"not JSON": 1},
        "examples": ["b@1: not JSON"],
    },
    "spans": [[0, 0, 9]],
    "samples": [[17, {"row": 0, "source": "b", "id": "1", "title": "t", "text": "x"}]],
}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Settings, {"vocab_size": 5}, "--vocab-size 5: expected 6 to 1048575 pieces"),
        (Settings, {"vocab_size": "300"}, "--vocab-size '300': expected 6 to 1048575 pieces"),
        (Settings, {"vocab_size": True}, "--vocab-size True: expected 6 to 1048575 pieces"),
        (Settings, {"heldout_fraction": float("nan")}, "--heldout-fraction nan: expected a fraction above 0 and below 1"),
        (Settings, {"min_words": -1}, "--min-words -1: expected 0 words or more"),
        (Settings, {"sample_characters": 0}, "--sample-characters 0: expected at least 1 character"),
        (Settings, {"near_duplicates": 0.3}, "--near-duplicates 0.3: expected a similarity above 0.3 and below 1"),
        (Settings, {"language": "EN"}, "--language EN: expected a code of two letters, such as en"),
        (
            Settings,
            {"slice_mb": 2001.0},
            "--slice-mb 2001.0: expected more than 0 and at most 2000 (a shard holds less than 2^31",
        ),
        (Settings, {"epochs": {"a": 0.001}}, "--epochs a=0.001: expected at least 0.01"),
        (Settings, {"weights": {"a": 0.0}}, "--weight a=0: expected a number above 0"),
        (Settings, {"epoch": {}}, "epoch: no such setting; did you mean 'epochs'? legal: epochs, heldout_fraction"),
        (PlannedSettings, {}, "slice_mb: missing"),
        (Gates, {"max_bad": -1}, "--max-bad -1: expected 0 or more"),
        (Gates, {"least": {"a": {"words": -1}}}, "--expect a:words=-1: expected 0 or more"),
    ],
)
def test_what_is_refused_is_one_line(kind: type[Strict], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind(**values)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().vocab_size = 7  # type: ignore[misc]


def test_a_source_is_named_once_in_an_option() -> None:
    words = ["--source", "builtin", "--out", "x", "--epochs", "a=1", "--epochs", "a=2"]
    with pytest.raises(ValueError, match="--epochs: a is given twice"):
        settings_of(parse_build_options(words))


def test_a_plan_of_before_is_the_same_plan() -> None:
    plan = Plan.from_json(json.loads(PLAN))
    assert plan.settings == Settings(
        vocab_size=300, heldout_fraction=0.1, min_words=5, near_duplicates=0.8, epochs={"b": 2.5}, slice_mb=8.0
    ).check(plan.sources)
    assert plan.identity == IDENTITY
    assert json.dumps(plan.as_json(), sort_keys=True) == PLAN.replace("\n", " ")


def test_a_marker_of_before_is_the_same_marker() -> None:
    found = Marker.from_json(json.loads(json.dumps(MARKER))).as_json()
    assert (found["tally"].pop("dropped_markup"), found["tally"].pop("unknown_templates")) == (
        {},
        {},
    )  # nobody counted them then
    assert json.dumps(found) == json.dumps(MARKER)


def test_settings_of_another_version_are_named(corpus: Corpus) -> None:
    manifest = corpus.manifest
    asked = Settings(vocab_size=manifest.vocab_size, heldout_fraction=0.1)
    assert differences_of_settings(manifest, asked) == []
    manifest.settings["colour"] = "red"
    try:
        assert differences_of_settings(manifest, asked) == [("colour", "red", None)]
        (first, second) = differences_of_settings(manifest, Settings(heldout_fraction=0.1))
        assert (first.name, second.name) == ("vocab_size", "colour")
    finally:
        del manifest.settings["colour"]
