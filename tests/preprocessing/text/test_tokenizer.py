"""The tokenizer: BERT's specials where they belong, the same bytes on any machine, readable refusals."""

import contextlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preprocessing.corpus.reader import FIRST_ORDINARY_ID, SPECIAL_PIECES, UNK_ID, Corpus
from preprocessing.text import tokenizer as tokenizer_module
from preprocessing.text.tokenizer import MAX_SENTENCE_BYTES, TextSample, _cut, _train, load, symbols_of, train
from tests.helpers.running import ROOT
from tests.helpers.small_corpora import VOCAB_SIZE


@pytest.fixture(scope="module")
def lines(topics: list[dict[str, Any]]) -> list[str]:
    return [line for row in topics for line in row["text"].splitlines()]


def test_specials_have_bert_ids(corpus: Corpus) -> None:
    tokenizer = load(corpus.tokenizer_path)
    assert tuple(tokenizer.id_to_piece(i) for i in range(5)) == SPECIAL_PIECES
    assert tokenizer.get_piece_size() == corpus.vocab_size == VOCAB_SIZE


@pytest.mark.parametrize("special", SPECIAL_PIECES)
def test_a_special_written_in_a_text_is_text(corpus: Corpus, special: str) -> None:
    tokenizer = load(corpus.tokenizer_path)
    for text in (f"a {special} b", special, f"x{special}", special.lower()):
        tokens = tokenizer.encode(text)
        assert all(i >= FIRST_ORDINARY_ID or i == UNK_ID for i in tokens)
        assert len(tokens) > 1


def test_case_and_compatibility_forms_are_folded(corpus: Corpus) -> None:
    tokenizer = load(corpus.tokenizer_path)
    assert tokenizer.encode("The FILE ﬁle") == tokenizer.encode("the file file")


def test_the_model_is_the_same_on_one_core_and_on_all(lines: list[str], tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core only")
    (tmp_path / "lines").write_text("\n".join(lines))
    program = (
        "import sys, pathlib; from preprocessing.text.tokenizer import train; "
        "sys.stdout.buffer.write(train(pathlib.Path(sys.argv[1]).read_text().split('\\n'), 300))"
    )

    def model(cpus: set[int]) -> bytes:
        return subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "lines")],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        ).stdout

    assert model({min(cores)}) == model(cores) == train(lines, 300)


def test_the_largest_vocabulary_is_named_and_true(lines: list[str]) -> None:
    few = lines[:60]
    with pytest.raises(ValueError, match=r"--vocab-size 9000: the text yields at most \d+ pieces; choose") as caught:
        train(few, 9000)
    largest = int(str(caught.value).split("at most ")[1].split()[0])
    assert train(few, largest)
    with pytest.raises(ValueError, match="at most"):
        train(few, largest + 1)


def test_a_vocabulary_below_the_alphabet_is_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError, match=r"--vocab-size 20: .* alone need \d+; raise it"):
        train(lines, 20)


def chinese(characters: int, length: int) -> list[str]:
    """Sentences of 16 random ideographs of so many different ones."""
    generator = random.Random(f"{characters} {length}")
    text = "".join(chr(0x4E00 + generator.randrange(characters)) for _ in range(length))
    return [f"{text[start : start + 16]}。" for start in range(0, length, 16)]


@pytest.mark.parametrize(("characters", "length"), [(3000, 9000), (300, 9000), (200, 600)])
def test_whichever_size_is_asked_one_line_says_all_that_can_be_had(characters: int, length: int) -> None:
    """Where hardly a word comes twice, the characters need nearly all that the text yields: both limits are in each refusal."""
    text = chinese(characters, length)
    limits = set()
    for size in (6, 100, 700, 8192, 100_000):
        with contextlib.suppress(ValueError):
            _train(text, size)
            continue
        with pytest.raises(ValueError) as refusal:
            _train(text, size)
        assert "\n" not in str(refusal.value)
        numbers = [int(number) for number in re.findall(r"\d+", str(refusal.value).partition(":")[2])]
        limits.add((min(numbers), max(numbers)))
    [(least, most)] = limits
    assert _train(text, least)
    assert _train(text, most)
    for size in (least - 1, most + 1):
        with pytest.raises(ValueError, match=f"{least}.*{most}|{most}.*{least}"):
            _train(text, size)


def test_the_non_joiner_of_persian_stays_where_it_is_no_rarity(tmp_path: Path) -> None:
    """SentencePiece's rule makes a space of it. One in an English text costs no piece, and the model is as it was."""
    word = "می\u200cخواهم"
    (tmp_path / "persian").write_bytes(_train([f"من {word} {other}." for other in ("بروم", "ببینم", "نروم") * 30], 18))
    persian = load(tmp_path / "persian")
    assert persian.decode(persian.encode(word)) == word
    assert persian.encode(word) != persian.encode(word.replace("\u200c", " "))
    assert persian.piece_to_id("\u200c") >= FIRST_ORDINARY_ID
    english = [f"The cat {verb} on the mat, and the dog {verb}, too." for verb in ("sat", "slept", "lay") * 300]
    assert symbols_of(english) == symbols_of([*english, word]) == []


def test_sentences_beyond_the_limit_are_trained_on(lines: list[str], tmp_path: Path) -> None:
    """Words that stand in endless sentences alone, with and without spaces, are pieces of the model; nothing is warned of."""
    words = ["".join(random.Random(i).choices("bcdfgh", k=5)) + "ymu" for i in range(40)]
    endless = " ".join(random.Random(0).choices(words, k=4000))
    letters = "пермь" * 8000
    said: list[str] = []
    (tmp_path / "model").write_bytes(train([*lines[:200], endless, letters], 400, said.append))
    tokenizer = load(tmp_path / "model")
    assert said == []
    assert len(endless.encode()) > MAX_SENTENCE_BYTES < len(letters.encode())
    assert UNK_ID not in tokenizer.encode(" ".join(words)) + tokenizer.encode("пермь")
    assert len(tokenizer.encode("ymu")) <= 2


def test_what_is_cut_is_all_there() -> None:
    for text in ("a" * 40_000, "ab ж語🙂" * 9_000, "語" * 9_000, "x" + "語" * 9_000, " ".join(["word"] * 9_000), "short", ""):
        pieces = list(_cut([text, "next"]))
        assert pieces.pop() == "next"
        assert all(len(piece.encode()) <= MAX_SENTENCE_BYTES for piece in pieces)
        assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
        assert sum(len(piece.encode()) for piece in pieces[:-1]) >= (len(pieces) - 1) * (MAX_SENTENCE_BYTES - 16)
    assert " ".join(_cut([" ".join(["word"] * 9_000)])) == " ".join(["word"] * 9_000)  # no word is cut


def test_no_sentence_is_left_out_for_a_reserved_character(lines: list[str]) -> None:
    """Text with bars drawn in it: SentencePiece would train on nothing, and say so of none of them."""
    drawn = [f"{line} ▁▂▅▇" if i % 2 else f"▅{line}" for i, line in enumerate(lines)]
    assert train(drawn, VOCAB_SIZE) == train([line.replace("▅", " ") for line in drawn], VOCAB_SIZE)


def test_sentencepieces_warnings_are_said(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence beyond the limit that is not cut is what SentencePiece warns of."""
    monkeypatch.setattr(tokenizer_module, "_cut", list)
    said: list[str] = []
    train([*lines, "word " * 5000, "word " * 6000], 300, said.append)
    assert said[0].startswith("WARNING: SentencePiece: Found too long line (25000 > 16384)")
    assert len(said) == len(set(said)) >= 2


def test_the_sample_is_bounded_and_independent_of_the_order(lines: list[str]) -> None:
    def sample(order: list[int], seed: int = 1, limit: int = 5000) -> list[str]:
        kept = TextSample(seed, limit)
        for i in order:
            kept.add(lines[i], ("source", i))
        return kept.paragraphs(without=lambda tag: False)

    order = list(range(len(lines)))
    straight = sample(order)
    random.Random(0).shuffle(order)
    assert sample(order) == straight
    assert sample(order, seed=2) != straight
    assert 5000 <= sum(map(len, straight)) < 5000 + max(map(len, lines))
    assert sorted(sample(order, limit=10**9)) == sorted(lines)  # room for all: all


def test_a_merged_sample_is_the_sample_of_all(lines: list[str]) -> None:
    whole, parts = TextSample(1, 5000), [TextSample(1, 5000) for _ in range(3)]
    for i, line in enumerate(lines):
        for sample in (whole, parts[i % 3]):
            sample.add(line, ("source", i))
    merged = TextSample(1, 5000)
    for part in parts:
        merged.merge(part)
    keep_all, keep_odd = (lambda tag: False), (lambda tag: tag[1] % 2 == 0)
    assert merged.paragraphs(keep_all) == whole.paragraphs(keep_all)
    assert set(merged.paragraphs(keep_odd)) <= set(lines[1::2])


def test_the_same_paragraph_in_two_documents_is_the_same_in_any_order() -> None:
    for order in (1, -1):
        sample = TextSample(0, 20)
        for tag in (("a", 1), ("a", 9))[::order]:
            sample.add("the same paragraph here", tag)
        assert sample.paragraphs(without=lambda tag: tag[1] <= 5) == ["the same paragraph here"]


def test_a_source_of_which_a_tenth_is_offered_keeps_its_share(lines: list[str]) -> None:
    """Two sources of the same size, one offered whole, one in a tenth of its lines."""
    sample = TextSample(1, sum(map(len, lines)) // 20)
    for i, line in enumerate(lines):
        sample.add(f"a {line}", ("a", i))
        if i % 10 == 0:
            sample.add(f"b {line}", ("b", i), fraction=0.1)
    shares = [len([p for p in sample.paragraphs(lambda tag: False) if p[0] == name]) for name in "ab"]
    assert 0.6 < shares[0] / shares[1] < 1.6, shares


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "no.model")
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"bad\.model: not a SentencePiece model"):
        load(tmp_path / "bad.model")
