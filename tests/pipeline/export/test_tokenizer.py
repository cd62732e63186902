"""The fast tokenizer of an export beside SentencePiece itself."""

import gzip
import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import sentencepiece
from tokenizers import Tokenizer

from pipeline.export.tokenizer import tokenizer_config, tokenizer_json
from pipeline.tasks.offsets import tokenize
from preprocessing.text.tokenizer import load
from tests.helpers.running import ROOT

SHARED = ROOT.parent / "shared" / "data"
HARD = (
    "",
    " ",
    "Hello,  world!\tTabs\u00a0and\u2003spaces ",
    "ﬁne ﬂour, Straße, İstanbul, ΣΊΣΥΦΟΣ, Ａ１",
    "cafe\u0301 naïve ẞ a\u0323\u0307",
    "co\u00adop\u200ber\u200eate \ufeffzero width",
    "\ufeffThe first word of a file",
    "\u200f\u200d \u00adThe first word",
    "\u200e",
    "नमस्\u200dते स्\u200cत and a loose\u200djoiner \u200c here",
    "中文字符 かな 한국어",
    "emoji 👩\u200d👩\u200d👧 and 🤷🏽\u200d♀️ here",
    "[cls] {mask} ▁ under_score",
    "a\u2028b\u0085c\x1cd\x07e",
    "x" * 300,
    "…—“quotes” ‘single’ ™ №",
)


@pytest.fixture(scope="module")
def ours(corpus: Path) -> sentencepiece.SentencePieceProcessor:
    return load(corpus / "tokenizer.model")


@pytest.fixture(scope="module")
def theirs(ours: sentencepiece.SentencePieceProcessor) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(tokenizer_json(ours)))


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def compare(ours: sentencepiece.SentencePieceProcessor, theirs: Tokenizer, lines: list[str]) -> tuple[int, int, int]:
    """(lines with other pieces of the same score; tokens; tokens with other offsets). No line may have pieces of another score.

    0, 00 and 00, 0 are equally likely: which of them SentencePiece takes is left to its rounding in float32.
    """
    other = tokens = places = 0
    for line, found in zip(lines, theirs.encode_batch(lines, add_special_tokens=False), strict=True):
        wanted = tokenize(ours, line)
        tokens += len(found.ids)
        ids = [int(i) for i in wanted.ids_N]
        if ids != found.ids:
            scores = [sum(ours.get_score(i) for i in of) for of in (ids, found.ids)]
            assert len(ids) == len(found.ids), line
            assert scores[0] == pytest.approx(scores[1], abs=1e-3), line
            other += 1
            continue
        spans = zip(found.offsets, wanted.starts_N, wanted.ends_N, strict=True)
        places += sum((start, end) != (our_start, our_end) for (start, end), our_start, our_end in spans)
    return other, tokens, places


def test_the_same_ids_and_characters(ours: sentencepiece.SentencePieceProcessor, theirs: Tokenizer) -> None:
    """Every line of Python's documentation, and hand-made hard ones."""
    lines = [line.lstrip() for text in list(topics.values())[::4] for line in lines_of(text)]
    assert len(lines) > 1000
    other, tokens, places = compare(ours, theirs, lines)
    assert other <= 1e-3 * len(lines)
    assert tokens > 10_000
    assert places == 0
    assert compare(ours, theirs, list(HARD))[0] == 0


def test_offsets_are_of_the_original_text(theirs: Tokenizer) -> None:
    """A word's first piece begins where it does and its last one ends there, whatever is folded or left out."""
    text = "co\u00adoperate  ﬁne\tStraße e\u0301tude ½"
    found = theirs.encode(text, add_special_tokens=False)
    words: dict[int, list[tuple[int, int]]] = {}
    for word, span in zip(found.word_ids, found.offsets, strict=True):
        words.setdefault(word, []).append(span)
    spans = [text[part[0][0] : part[-1][1]] for part in words.values()]
    assert spans == ["co\u00adoperate", "ﬁne", "Straße", "e\u0301tude", "½"]


def test_special_tokens(ours: sentencepiece.SentencePieceProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their ids, where they stand, [MASK] within a text, and the longest sequence; through transformers' own class."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json(ours)))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(12)))
    fast = AutoTokenizer.from_pretrained(tmp_path)
    assert fast.is_fast
    assert [fast.pad_token_id, fast.unk_token_id, fast.cls_token_id, fast.sep_token_id, fast.mask_token_id] == [0, 1, 2, 3, 4]
    assert len(fast) == ours.get_piece_size()
    a, b = ours.encode(["the", "value is"])
    pair = fast("the", "value is")
    assert pair["input_ids"] == [2, *a, 3, *b, 3]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert fast("value is [MASK].", add_special_tokens=False)["input_ids"] == [*b, 4, *ours.encode("value is.")[len(b) :]]
    assert fast("[MASK] value is", add_special_tokens=False)["input_ids"] == [4, *b]
    assert len(fast("the " * 99, truncation=True)["input_ids"]) == 12
    assert fast.decode(fast("The value, is", add_special_tokens=False)["input_ids"]) == "the value, is"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_real_text(ours: sentencepiece.SentencePieceProcessor, theirs: Tokenizer) -> None:
    """Every 400th document of Wikipedia and novels; docs/export.md has the count of all of it."""
    lines: list[str] = []
    for name in ("wiki/wikipedia_en_sample.jsonl.gz", "books/books_pd_sample.jsonl.gz"):
        with gzip.open(SHARED / name, "rt", encoding="utf-8") as file:
            lines += [line for i, row in enumerate(file) if i % 400 == 0 for line in lines_of(json.loads(row)["text"])[:200]]
    assert len(lines) > 200
    other, tokens, places = compare(ours, theirs, lines)
    assert other <= 2 + 1e-3 * len(lines)
    assert places <= 1e-3 * tokens
