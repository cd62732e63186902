"""A corpus for a tokenizer that is there already: its pieces, whatever the text; and what is refused."""

from pathlib import Path

import pytest

from preprocessing.__main__ import main
from preprocessing.corpus.reader import Corpus, open_corpus
from preprocessing.text.tokenizer import load
from tests.helpers.small_corpora import VOCAB_SIZE, write_rows


def built(out: Path, text: str, *options: str | Path) -> int:
    """The exit code of a build of forty documents."""
    rows = [{"id": str(n), "text": f"Number {n} of them. {text}"} for n in range(40)]
    source = write_rows(out.with_suffix(".jsonl"), rows)
    words = ["build", "--source", source, "--heldout-fraction", "0.1", "--min-words", "2", "--out", out, *options]
    return main([str(word) for word in words])


def test_the_new_corpus_has_the_given_pieces(corpus: Corpus, tmp_path: Path) -> None:
    out, text = tmp_path / "new", "Words that the first corpus may never have seen: xylophone, quetzal."
    assert built(out, text, "--tokenizer", corpus.directory) == 0
    new = open_corpus(out)
    assert new.manifest.tokenizer_sha256 == corpus.manifest.tokenizer_sha256
    assert new.manifest.settings["vocab_size"] == VOCAB_SIZE
    tokens = new.shards("train")[0].tokens.tolist()
    assert "quetzal" in load(corpus.tokenizer_path).decode(tokens)


def test_the_same_command_again_finds_it_built(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, given = tmp_path / "new", ("--tokenizer", corpus.directory / "tokenizer.model")
    assert built(out, "It sat.", *given) == 0
    assert built(out, "It sat.", *given) == 0
    assert "already built" in capsys.readouterr().out
    assert built(out, "It sat.", "--vocab-size", str(VOCAB_SIZE)) == 2
    assert f"made with tokenizer '{corpus.manifest.tokenizer_sha256}', now it is (none)" in capsys.readouterr().err


def test_what_is_refused(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.model").write_bytes(b"no model")
    for options, line in (
        (("--tokenizer", corpus.directory, "--vocab-size", "99"), f"has {VOCAB_SIZE} pieces; leave --vocab-size out"),
        (("--tokenizer", tmp_path / "no.model"), "not a SentencePiece model"),
        (("--tokenizer", tmp_path), "tokenizer.model: no such file"),
    ):
        assert built(tmp_path / "new", "It sat.", *options) == 2
        assert line in capsys.readouterr().err
    assert not (tmp_path / "new.work").exists()
