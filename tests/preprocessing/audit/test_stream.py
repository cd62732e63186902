"""Damage to the text itself, of which the corpus says what it holds: each kind fails the check that is meant for it, alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing.audit.audit import table
from preprocessing.build.figures import figures as build_figures
from preprocessing.build.figures import table as build_table
from preprocessing.corpus.reader import MASK_ID, SEP_ID, open_corpus
from tests.helpers.audited_corpora import (
    HOSTILE,
    VOCAB_SIZE,
    Edit,
    Material,
    Text,
    build,
    edit_manifest,
    failures,
    look,
    shared_out,
)


def put(shard: str, at: int, token: int) -> Edit:
    def edit(name: str, tokens: np.ndarray, sentence_ends: np.ndarray) -> None:
        if name == shard:
            tokens[at] = token

    return edit


def late_sentence_end(name: str, tokens: np.ndarray, sentence_ends: np.ndarray) -> None:
    if name == "train-00001.arrow":
        sentence_ends[-1] += 5


def empty_sentence(name: str, tokens: np.ndarray, sentence_ends: np.ndarray) -> None:
    if name == "train-00000.arrow":
        place = int(np.nonzero(np.diff(sentence_ends) > 0)[0][-1])
        sentence_ends[place] = sentence_ends[place + 1]


def missing_sep(name: str, tokens: np.ndarray, sentence_ends: np.ndarray) -> None:
    if name == "train-00001.arrow":
        tokens[-1] = 99


EDITS: dict[str, tuple[Edit, str]] = {
    "[MASK] in the text": (put("train-00000.arrow", -9, MASK_ID), "special pieces"),
    "[PAD] in the text": (put("heldout-00002.arrow", -9, 0), "special pieces"),
    "[SEP] in the text": (put("train-00000.arrow", -9, SEP_ID), "[SEP]"),
    "no [SEP] at the end": (missing_sep, "[SEP]"),
    "an id beyond the vocabulary": (put("train-00001.arrow", -9, VOCAB_SIZE), "ids"),
    "a sentence end past its document": (late_sentence_end, "sentence ends"),
    "an empty sentence": (empty_sentence, "sentence ends"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_damage_to_the_text_fails_its_check(tmp_path: Path, material: Material, kind: str) -> None:
    edit, expected = EDITS[kind]
    found = look(build(tmp_path / "corpus", material, shared_out(material.texts), edit))
    assert failures(found) == {expected}


# What degenerates without an error.


def merged(text: Text) -> Text:
    """All of its sentences as one."""
    return dataclasses.replace(text, sentences=[[token for sentence in text.sentences for token in sentence]])


def split_up(text: Text) -> Text:
    """Two tokens a sentence."""
    flat = [token for sentence in text.sentences for token in sentence]
    return dataclasses.replace(text, sentences=[flat[i : i + 2] for i in range(0, len(flat), 2)])


def endless(text: Text) -> Text:
    return dataclasses.replace(text, sentences=[*text.sentences, (text.sentences[-1] * 2000)[:2000]])


LIMITS: dict[str, tuple[Callable[[list[Text]], list[Text]], set[str]]] = {
    "one sentence a document": (lambda texts: list(map(merged, texts)), {"sentences a document", "pairs: labels"}),
    "two tokens a sentence": (lambda texts: list(map(split_up, texts)), {"tokens a sentence"}),
    "a few endless sentences": (lambda texts: [*map(endless, texts[:10]), *texts[10:]], {"tokens a sentence"}),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_text_that_degenerated_is_found(tmp_path: Path, material: Material, kind: str) -> None:
    change, expected = LIMITS[kind]
    prose, terms, heldout = shared_out(material.texts)
    prose[3], prose[40] = prose[103], prose[140]  # the documents of samples.jsonl say what their sentences are
    shards = [change(prose), change(terms), change(heldout)]
    found = look(build(tmp_path / "corpus", material, shards))
    assert failures(found) - {"documents and their source text", "duplicate documents"} == expected
    figures = build_figures(open_corpus(tmp_path / "corpus"))
    assert {
        warning.split(": ")[0] if "pairs" not in warning else "pairs: labels" for warning in figures["warnings"]
    } == expected
    assert build_table(figures).splitlines()[-len(expected) :] == [f"WARNING: {warning}" for warning in figures["warnings"]]
    assert figures["not_next_share"] == pytest.approx(found.figures["pairs"]["not_next_share"], abs=0.05)


@pytest.mark.parametrize(
    ("dropped", "passed"),
    [
        ({"too short": 200}, True),
        ({"too short": 1700}, False),
        ({"duplicate": 900, "too short": 900}, True),
        ({"not in language en": 5000, "redirect": 20_000}, True),
        ({"near duplicate": 20_000}, False),
    ],
)
def test_a_reason_that_decides_what_the_corpus_is_is_found(sound: Path, dropped: dict[str, int], passed: bool) -> None:
    def drop(manifest: dict[str, Any]) -> None:
        source = manifest["sources"][1]
        source["dropped"] = dropped
        source["documents_read"] = source["documents_kept"] + sum(dropped.values())

    edit_manifest(sound, drop)
    assert failures(look(sound)) == (set() if passed else {"documents dropped"})
    warnings = build_figures(open_corpus(sound))["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == ([] if passed else ["documents dropped"])


def test_duplicates_are_found(tmp_path: Path, material: Material) -> None:
    prose, terms, heldout = shared_out(material.texts)
    found = look(build(tmp_path / "corpus", material, [prose, [*terms, *prose[50:53]], heldout]))
    assert failures(found) == {"duplicate documents"}


def test_an_older_corpus_without_digests_is_audited(tmp_path: Path, material: Material) -> None:
    prose, terms, heldout = shared_out(material.texts)
    assert look(build(tmp_path / "sound", material, [prose, terms, heldout], digests=False)).passed
    found = look(build(tmp_path / "leak", material, [prose, [*terms, heldout[100]], heldout], digests=False))
    assert failures(found) == {"held-out documents in train"}


@pytest.mark.parametrize(("other", "expected"), [("语", set()), ("語", {"held-out documents in train"})])
def test_unknown_pieces_are_told_apart_by_their_text(
    tmp_path: Path, material: Material, other: str, expected: set[str]
) -> None:
    prose, terms, heldout = shared_out(material.texts)
    texts = [f"The {character} is a character of some language." for character in ("語", other)]
    encoded = [Text(HOSTILE, text, material.encode(tmp_path / "model", text)) for text in texts]
    assert encoded[0].sentences == encoded[1].sentences
    found = look(build(tmp_path / "corpus", material, [prose, [*terms, encoded[0]], [*heldout, encoded[1]]]))
    assert failures(found) == expected


def test_one_heldout_document_in_train_is_found(tmp_path: Path, material: Material) -> None:
    prose, terms, heldout = shared_out(material.texts)
    found = look(build(tmp_path / "corpus", material, [prose, [*terms, heldout[100]], heldout]))
    assert failures(found) == {"held-out documents in train"}
    assert "1 of 200" in table(found)


def test_text_of_unknown_pieces_is_found(tmp_path: Path, material: Material) -> None:
    prose, terms, heldout = shared_out(material.texts)
    for i in range(100, 300):
        text = terms[i].text + "\n" + "語 " * 20
        terms[i] = Text(terms[i].title, text, material.encode(tmp_path / "model", text))
    found = look(build(tmp_path / "corpus", material, [prose, terms, heldout]))
    assert failures(found) == {"unknown pieces"}
