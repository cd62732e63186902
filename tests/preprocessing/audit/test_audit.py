"""`audit`: a sound corpus passes every check, and each kind of damage fails the check that is meant for it, alone."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing.__main__ import training_loader
from preprocessing.audit.audit import audit, table
from preprocessing.audit.page import page
from preprocessing.base.files import file_sha256
from tests.helpers.audited_corpora import HOSTILE, Material, another_source_text, edit_manifest, failures, look


def test_a_sound_corpus_passes_every_check(sound: Path) -> None:
    lines: list[str] = []
    found = look(sound, say=lines.append)
    assert failures(found) == set(), table(found)
    assert found.passed
    assert len(found.checks) == 31
    assert found == look(sound)  # nothing is random but by the seed
    assert "masking" in lines
    assert found.figures["masking"]["predictions"] >= 20_000
    json.dumps(found.figures, allow_nan=False)
    text = table(found)
    assert all(check.name in text and check.found in text and check.expected in text for check in found.checks)
    assert text.endswith("31 checks, all passed")


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_passes_too(sound: Path, seed: int) -> None:
    assert failures(look(sound, seed=seed, seq_len=64)) == set()


def test_figures_are_those_of_the_corpus(sound: Path, material: Material) -> None:
    figures = look(sound).figures
    lengths = sorted(sum(map(len, text.sentences)) + 1 for text in material.texts)
    found = figures["document_tokens"]
    assert (found["count"], found["lowest"], found["highest"]) == (len(lengths), lengths[0], lengths[-1])
    assert found["quantiles"]["0.5"] == lengths[math.ceil(len(lengths) / 2) - 1]
    assert sum(found["bin_counts"]) == len(lengths)
    assert figures["sentence_tokens"]["count"] == sum(len(text.sentences) for text in material.texts)
    assert sum(row["token_share"] for row in figures["sources"].values()) == pytest.approx(1)
    assert figures["splits"]["heldout"]["documents"] == 200


# Damage to the files of a finished corpus. Hashes are made anew, unless they are the point.


def flip_a_byte(directory: Path) -> None:
    """In the title of a document that is no sample."""
    path = directory / "train-00001.arrow"
    content = bytearray(path.read_bytes())
    places = [match.start() for match in re.finditer(re.escape(HOSTILE.encode()), content)]
    content[places[100]] ^= 1
    path.write_bytes(content)


def lose_the_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.model").unlink()


def wrong_unigram_counts(directory: Path) -> None:
    path = directory / "unigram_counts.npy"
    counts = np.load(path)
    counts[0, 77] += 1
    np.save(path, counts)
    edit_manifest(directory, lambda m: m.update(unigram_counts_sha256=file_sha256(path)))


def no_samples(directory: Path) -> None:
    path = directory / "samples.jsonl"
    path.write_bytes(b"")
    edit_manifest(directory, lambda m: m.update(samples_sha256=file_sha256(path)))


def in_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda directory: edit_manifest(directory, change)


FILE_DAMAGES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "a flipped byte": (flip_a_byte, {"files"}),
    "no tokenizer": (lose_the_tokenizer, {"files", "tokenizer"}),
    "a shard's documents": (in_manifest(lambda m: m["shards"][0].update(documents=7)), {"counts of every shard"}),
    "a shard's tokens": (in_manifest(lambda m: m["shards"][2].update(tokens=7)), {"counts of every shard"}),
    "a shard's source": (in_manifest(lambda m: m["shards"][1].update(source="prose")), {"shards"}),
    "a source's tokens": (in_manifest(lambda m: m["sources"][0]["tokens"].update(train=7)), {"counts of every source"}),
    "documents read": (in_manifest(lambda m: m["sources"][0].update(documents_read=7)), {"documents read"}),
    "an entropy": (in_manifest(lambda m: m.update(heldout_unigram_entropy_nats=3.0)), {"unigram entropies"}),
    "unigram counts": (wrong_unigram_counts, {"unigram counts"}),
    "another source text": (another_source_text, {"documents and their source text"}),
    "no samples": (no_samples, {"documents and their source text"}),
}


@pytest.mark.parametrize("kind", FILE_DAMAGES)
def test_damage_to_files_fails_its_check(sound: Path, kind: str) -> None:
    damage, expected = FILE_DAMAGES[kind]
    damage(sound)
    found = failures(look(sound))
    if kind == "a shard's source":  # the shard is left out of everything that follows
        assert expected <= found
    else:
        assert found == expected


def test_a_truncated_shard_is_a_failed_check_and_the_others_are_looked_at(sound: Path) -> None:
    path = sound / "train-00000.arrow"
    path.write_bytes(path.read_bytes()[:5000])
    found = look(sound)
    assert {"files", "shards", "counts of every source"} <= failures(found)
    assert {"counts of every shard", "[SEP]", "sentence ends", "masking: 80 / 10 / 10"}.isdisjoint(failures(found))
    assert "train-00000.arrow" in page(found)


def test_nothing_readable_is_still_an_audit(sound: Path) -> None:
    for path in sound.glob("*.arrow"):
        path.write_bytes(b"")
    found = look(sound)
    assert failures(found) == {"files", "shards"}
    assert "no such" not in table(found)
    assert "failed" in page(found)


# What is no corpus.


def test_what_is_no_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such directory"):
        audit(tmp_path / "no", training_loader)
    with pytest.raises(ValueError, match="not a finished corpus"):
        audit(tmp_path, training_loader)


@pytest.mark.parametrize("option", [{"positions": 0}, {"seq_len": 4}, {"seed": -1}])
def test_arguments_out_of_range_are_errors(tmp_path: Path, option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected positions from 1"):
        audit(tmp_path, training_loader, **option)
