"""Building a corpus: the same bytes every time, all or nothing, nothing lost, nothing touched."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing.__main__ import training_loader
from preprocessing.audit.audit import audit
from preprocessing.build.build import build
from preprocessing.build.finalize import unigram_entropies_nats
from preprocessing.build.plan import cut
from preprocessing.build.settings import Settings
from preprocessing.corpus.reader import Corpus
from preprocessing.sources.parse import parse_sources
from preprocessing.text.clean import clean, count_words
from preprocessing.text.sentences import split_sentences
from preprocessing.text.tokenizer import load
from tests.helpers.running import ROOT
from tests.helpers.small_corpora import VOCAB_SIZE, build_small, content, titles, write_rows

SAMPLE = ROOT.parent / "shared" / "data"
Rows = list[dict[str, Any]]


def test_two_builds_give_the_same_bytes(corpus: Corpus, articles: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / articles.name
    moved.parent.mkdir()
    moved.write_bytes(articles.read_bytes())
    again = build_small(tmp_path / "again", f"articles={moved}", slice_mb=0.02)
    assert content(again.directory) == content(corpus.directory)


def test_the_manifest_names_no_place_and_no_time(corpus: Corpus, articles: Path) -> None:
    text = (corpus.directory / "manifest.json").read_text()
    assert str(articles.parent) not in text
    assert str(corpus.directory) not in text
    assert "building" not in text


def test_the_order_of_sources_and_of_rows_is_without_effect(topics: Rows, tmp_path: Path) -> None:
    one, two = write_rows(tmp_path / "one.jsonl", topics[:20]), write_rows(tmp_path / "two.jsonl", topics[20:])
    straight = build_small(tmp_path / "straight", str(one), str(two))
    swapped = build_small(tmp_path / "swapped", str(two), str(one))
    assert content(straight.directory) == content(swapped.directory)
    write_rows(one, topics[:20][::-1])
    reversed_rows = build_small(tmp_path / "reversed", str(one), str(two))
    for split in ("train", "heldout"):
        assert sorted(titles(reversed_rows, split)) == sorted(titles(straight, split))
    assert reversed_rows.manifest.tokenizer_sha256 == straight.manifest.tokenizer_sha256


def test_the_seed_chooses_what_is_held_out(corpus: Corpus, articles: Path, tmp_path: Path) -> None:
    other = build_small(tmp_path / "other", f"articles={articles}", seed=1)
    assert 1 <= len(titles(other, "heldout")) <= 10
    assert set(titles(other, "heldout")) != set(titles(corpus, "heldout"))


def test_what_is_held_out_does_not_depend_on_the_other_documents(topics: Rows, tmp_path: Path) -> None:
    def held_out(name: str, rows: Rows) -> set[str]:
        path = write_rows(tmp_path / f"{name}.jsonl", rows)
        return set(titles(build_small(tmp_path / name, str(path), vocab_size=200, heldout_fraction=0.3), "heldout"))

    whole, half = held_out("whole", topics), held_out("half", topics[::2])
    assert half
    assert half == whole & {row["title"] for row in topics[::2]}


def test_every_kept_text_is_in_the_stream_once(corpus: Corpus, topics: Rows) -> None:
    """Decoding each document gives its text back, up to what the tokenizer folds."""
    tokenizer = load(corpus.tokenizer_path)
    rows = {row["title"]: row["text"] for row in topics}
    seen = Counter(titles(corpus, "train") + titles(corpus, "heldout"))
    assert seen == Counter(rows.keys())
    for shard in (*corpus.shards("train"), *corpus.shards("heldout")):
        for i in range(len(shard)):
            expected = [s for p in clean(rows[shard.title(i)]).paragraphs for s in split_sentences(p)]
            start, ends = shard.document_start(i), shard.sentence_ends(i)
            assert len(ends) == len(expected)
            for end, sentence in zip(ends, expected, strict=True):
                assert shard.tokens[start:end].tolist() == tokenizer.encode(sentence)
                start = end


def test_a_slice_is_a_shard(corpus: Corpus, articles: Path) -> None:
    shards = [shard for shard in corpus.manifest.shards if shard.split == "train"]
    assert [shard.file for shard in shards] == [f"train-{i:05d}.arrow" for i in range(len(shards))]
    assert len(shards) == len(cut(parse_sources([str(articles)]), 0.02)) > 2
    assert {shard.source for shard in corpus.manifest.shards} == {"articles"}


def test_duplicates_and_short_documents_are_dropped_and_counted(topics: Rows, tmp_path: Path) -> None:
    respaced = {**topics[0], "text": topics[0]["text"].replace("\n\n", "\n\n\n ") + "\n"}
    one = write_rows(tmp_path / "one.jsonl", [*topics[:20], topics[3], {"text": "too short"}, {"text": "=== ***"}])
    two = write_rows(tmp_path / "two.jsonl", [respaced, *topics[20:]])
    manifest = build_small(tmp_path / "out", str(one), str(two)).manifest
    first, second = manifest.sources
    assert (first.documents_read, first.documents_kept, first.dropped) == (23, 20, {"too short": 2, "duplicate": 1})
    assert (second.documents_read, second.documents_kept, second.dropped) == (21, 20, {"duplicate": 1})
    assert (first.duplicate_ids, second.duplicate_ids) == (0, 0)
    for split in ("train", "heldout"):
        assert sum(source.documents[split] for source in manifest.sources) == manifest.documents(split)
        assert sum(source.tokens[split] for source in manifest.sources) == manifest.tokens(split)
    assert first.words == sum(count_words(clean(row["text"]).paragraphs) for row in topics[:20])


def test_different_texts_of_unknown_characters_are_no_duplicates(topics: Rows, tmp_path: Path) -> None:
    """Their tokens are the same row of [UNK]; the same text twice is a duplicate still."""
    rare = [{"title": f"rare {i}", "text": "".join(chr(0xAC00 + 40 * i + j) for j in range(30))} for i in range(8)]
    path = write_rows(tmp_path / "a.jsonl", [*topics, *rare, {**rare[0], "title": "copy"}])
    corpus = build_small(tmp_path / "out", str(path), min_words=0, heldout_fraction=0.3)
    found = titles(corpus, "train") + titles(corpus, "heldout")
    assert sorted(found) == sorted(row["title"] for row in [*topics, *rare])
    assert corpus.manifest.sources[0].dropped == {"duplicate": 1}
    tokens = {
        shard.title(i): tuple(shard.tokens[shard.document_start(i) : shard.document_ends[i]].tolist())
        for split in ("train", "heldout")
        for shard in corpus.shards(split)
        for i in range(len(shard))
    }
    assert len({tokens[row["title"]] for row in rare}) < len(rare)
    checks = {check.name: check for check in audit(corpus.directory, training_loader, positions=5000).checks}
    assert checks["duplicate documents"].passed
    assert checks["held-out documents in train"].passed


def test_a_duplicate_leaves_the_shard_it_stood_in(topics: Rows, tmp_path: Path) -> None:
    """Over slices and sources, in both splits; the corpus is the one without it, but for what the manifest tells."""
    rows = [*topics, *topics[5:15]]
    new = {"title": "new", "text": "A document that only this source has. " * 5}
    one, two = write_rows(tmp_path / "a.jsonl", rows), write_rows(tmp_path / "b.jsonl", [*topics[:30], new])
    corpus = build_small(tmp_path / "out", str(one), str(two), slice_mb=0.01, min_words=0)
    found = titles(corpus, "train") + titles(corpus, "heldout")
    assert sorted(found) == sorted(row["title"] for row in [*topics, new])
    a, b = corpus.manifest.sources
    assert (a.dropped, b.dropped) == ({"duplicate": 10}, {"duplicate": 30})
    found = audit(corpus.directory, training_loader, positions=5000)  # the samples, too, are found where they stand now
    assert [check.name for check in found.checks if not check.passed] == ["documents dropped"]  # 30 of b's 31
    for split in range(2):
        streams = [shard.tokens for shard in corpus.shards(("train", "heldout")[split])]
        counts = np.bincount(np.concatenate(streams), minlength=corpus.vocab_size)
        assert (corpus.unigram_counts(("train", "heldout")[split]) == counts).all()


def test_a_second_build_is_a_no_operation(articles: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", []
    build_small(out, f"articles={articles}")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    sources = parse_sources([f"articles={articles}"])
    build(sources, out, Settings(vocab_size=VOCAB_SIZE, heldout_fraction=0.1), say=said.append)
    assert said == [f"{out}: already built with these sources and settings"]
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_different_build_names_the_difference_and_touches_nothing(articles: Path, topics: Rows, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_small(out, f"articles={articles}")
    before = content(out)
    with pytest.raises(ValueError, match=r"made with seed 0, now it is 3; choose another --out"):
        build_small(out, f"articles={articles}", seed=3)
    fewer = write_rows(tmp_path / "articles.jsonl", topics[:30])
    with pytest.raises(ValueError, match=r"made with source articles articles\.jsonl \d+ bytes sha256"):
        build_small(out, f"articles={fewer}")
    with pytest.raises(ValueError, match=r"made with source articles .* now it is \(none\)"):
        build_small(out, f"zoo={articles}")
    assert content(out) == before


def test_what_is_no_corpus_is_not_touched(articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("the only copy")
    with pytest.raises(ValueError, match=r"not a finished corpus.*move it away"):
        build_small(out, str(articles))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert content(out) == {"thesis.txt": b"the only copy"}
    (out / "thesis.txt").unlink()
    assert build_small(out, str(articles)).vocab_size == VOCAB_SIZE  # an empty directory is free


def test_the_work_folder_is_ours_alone(articles: Path, tmp_path: Path) -> None:
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "thesis.txt").write_text("the only copy")
    with pytest.raises(ValueError, match=r"thesis\.txt: not a build's file.*move it away"):
        build_small(tmp_path / "out", str(articles))
    assert content(tmp_path / "out.work") == {"thesis.txt": b"the only copy"}


def test_a_finished_build_leaves_the_corpus_alone(articles: Path, tmp_path: Path) -> None:
    build_small(tmp_path / "out", str(articles))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heldout_fraction": 0.0}, "--heldout-fraction 0.0: expected a fraction above 0 and below 1"),
        ({"heldout_fraction": 1.0}, "--heldout-fraction 1.0"),
        ({"vocab_size": 5}, "--vocab-size 5"),
        ({"vocab_size": 100_000}, "--vocab-size 100000: the text yields at most"),
        ({"slice_mb": 0.0}, "--slice-mb 0.0"),
        ({"language": "english"}, "--language english: expected a code of two letters"),
        ({"near_duplicates": 1.5}, "--near-duplicates 1.5"),
        ({"epochs": {"wiki": 2.0}}, "--epochs wiki: no such source; the sources are articles"),
        ({"weights": {"articles": 0.0}}, "--weight articles=0: expected a number above 0"),
        ({"min_words": 100_000}, r"all 40 documents were dropped \(40 too short\); lower --min-words"),
    ],
)
def test_settings_that_cannot_be_are_refused(articles: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_small(tmp_path / "out", str(articles), **settings)
    assert not (tmp_path / "out").exists()


def test_one_document_cannot_be_held_out_from_itself(topics: Rows, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", topics[:1])
    with pytest.raises(ValueError, match=r"1 document kept.*give at least 2"):
        build_small(tmp_path / "out", str(path))
    assert not (tmp_path / "out").exists()


def test_two_documents_are_one_each(topics: Rows, tmp_path: Path) -> None:
    manifest = build_small(tmp_path / "out", str(write_rows(tmp_path / "a.jsonl", topics[:2])), vocab_size=90).manifest
    assert (manifest.documents("train"), manifest.documents("heldout")) == (1, 1)


def test_unigram_entropies_by_hand() -> None:
    train, heldout = np.array([9, 9, 9, 9, 9, 2, 0]), np.array([7, 7, 7, 7, 7, 1, 3])
    entropy, cross_entropy = unigram_entropies_nats(train, heldout)
    assert entropy == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    assert cross_entropy == pytest.approx(-(0.25 * np.log(3 / 4) + 0.75 * np.log(1 / 4)))


def test_the_real_sample(tmp_path: Path) -> None:
    """Real Wikipedia articles and a real book, a slice of each."""
    if not SAMPLE.is_dir():
        pytest.skip(f"no sample of real data at {os.path.relpath(SAMPLE, ROOT)}")

    def first_rows(path: Path, count: int, characters: int) -> Rows:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(file.readline()) for _ in range(count)]
        return [{**row, "text": row["text"][:characters]} for row in rows]

    wiki = first_rows(SAMPLE / "wiki" / "wikipedia_en_sample.jsonl.gz", 150, 4000)
    books = first_rows(SAMPLE / "books" / "books_pd_sample.jsonl.gz", 3, 100_000)
    corpus = build_small(
        tmp_path / "out",
        f"wiki={write_rows(tmp_path / 'w.jsonl.gz', wiki)}",
        f"books={write_rows(tmp_path / 'b.jsonl.gz', books)}",
        vocab_size=2000,
    )
    manifest = corpus.manifest
    assert [source.name for source in manifest.sources] == ["books", "wiki"]
    assert manifest.sources[0].documents["heldout"] == 1  # no draw of three books is low: the lowest
    assert 5 <= manifest.sources[1].documents["heldout"] <= 28  # 15 expected
    words = sum(source.words for source in manifest.sources)
    tokens = manifest.tokens("train") + manifest.tokens("heldout")
    sentences = manifest.sentences("train") + manifest.sentences("heldout")
    assert 1.2 < tokens / words < 2
    assert 8 < words / sentences < 30
    assert 4 < manifest.heldout_unigram_entropy_nats < manifest.heldout_unigram_cross_entropy_nats < 8
