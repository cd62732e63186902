"""Text to tokens to windows to labels to answers: offsets are of the original text, whatever the folding makes of it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import TaskConfig
from pipeline.tasks import metrics
from pipeline.tasks.examples import Answer, Question
from pipeline.tasks.offsets import Tokens, tokenize
from pipeline.tasks.samples import Windows, cut
from pipeline.tasks.spans import answers, window_answers
from pipeline.tasks.squad import read_squad
from pipeline.tasks.windows import answer_tokens, label, text_of, windows
from preprocessing.text.aligned import aligned
from preprocessing.text.clean import paragraphs
from preprocessing.text.tokenizer import load
from tests.helpers.running import ROOT

SQUAD = ROOT.parent / "shared" / "data" / "squad"
FILES = sorted(SQUAD.glob("*.json.gz"))
LIMIT = 0.005  # of the gold answers may be lost
TASK = TaskConfig(question_tokens=300, answer_tokens=100)  # the tests' vocabulary has 1024 pieces, so that texts are long


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> sentencepiece.SentencePieceProcessor:
    return load(corpus / "tokenizer.model")


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("The ﬁsh and the ﬂag", "ﬁsh"),  # a ligature that becomes two letters
        ("add ½ cup", "½"),  # one character that becomes 1⁄2
        ("add x½y cup", "½"),
        ("İstanbul is in Türkiye", "İstanbul"),
        ("a cafe\u0301 here", "cafe\u0301"),  # decomposed
        ("a\u0323\u0301 b", "a\u0323\u0301"),
        ("to 😀 or 👩\u200d🚀 be", "👩\u200d🚀"),
        ("in 東京 of", "東京"),
        ("the 한국 of", "한국"),  # Hangul, decomposed
        ("so\u00adft hy\u00adphens\u200b here", "hy\u00adphens"),
        ("two  spaces\n\nand\tlines", "spaces\n\nand"),
        ("wide ＡＢＣ letters", "ＡＢＣ"),
        ("ẞ and ß", "ß"),
        ("  leading", "leading"),
        ("a \ud83d\ude00 b \ud800 c", "\ud83d\ude00"),  # a pair of surrogates, as JSON may hold
    ],
)
def test_an_answer_comes_back_as_it_stands_in_the_original(
    tokenizer: sentencepiece.SentencePieceProcessor, context: str, answer: str
) -> None:
    tokens = tokenize(tokenizer, context)
    span = answer_tokens(Answer(answer, context.index(answer)), tokens)
    assert span is not None
    assert text_of(Question("1", "?", context), tokens, span) == answer


def test_an_answer_ends_where_its_last_word_does(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    """A lone "▁" before a character that has no piece stands for nothing, and takes no white space into an answer."""
    context = "the cat  東京"
    tokens = tokenize(tokenizer, context)
    lone = tokenizer.encode(aligned(context).text, out_type=str).index("▁")
    assert text_of(Question("1", "?", context), tokens, (0, lone)) == "the cat"
    assert text_of(Question("1", "?", context), tokens, (lone, lone)) == ""
    assert text_of(Question("1", "?", context), tokens, (lone, lone + 1)) == "東京"


POOL = "abé \u0301\u0323ﬁ½İı\u00ad\u200b\u200d👨👩\ud83d\ude00 \t\n\u3000東京\u1112\u1161\u11ab\u09c7\u09be\x1c\x00\u0344ÅK."


@given(st.text(POOL, max_size=12))
def test_the_aligned_text_has_the_words_of_a_cleaned_corpus(text: str) -> None:
    clean = aligned(text)
    assert len(clean.text) == len(clean.starts) == len(clean.ends)
    assert clean.starts == sorted(clean.starts)
    assert all(0 <= start < end <= len(text) for start, end in zip(clean.starts, clean.ends, strict=True))
    letters = f"x{text.replace(chr(10), ' ')}"  # a line without a letter is no paragraph
    assert [" ".join(aligned(letters).text.split())] == paragraphs(letters)


@given(st.text(POOL, max_size=12))
def test_offsets_ascend_and_the_ids_are_those_of_a_corpus(tokenizer: sentencepiece.SentencePieceProcessor, text: str) -> None:
    tokens = tokenize(tokenizer, text)
    assert tokens.ids_N.tolist() == tokenizer.encode(aligned(text).text)
    assert (np.diff(tokens.starts_N) >= 0).all()
    assert (tokens.starts_N <= tokens.ends_N).all()
    assert not len(tokens.ids_N) or 0 <= tokens.starts_N[0] <= tokens.ends_N[-1] <= len(text)


def test_windows_overlap_by_the_stride_and_each_token_has_one_best_window() -> None:
    found = windows(0, question_tokens=3, context_tokens=30, seq_len=16, stride=4)
    assert [(w.first, w.stop) for w in found] == [(0, 10), (4, 14), (8, 18), (12, 22), (16, 26), (20, 30)]
    best = Counter(t for w in found for t, is_best in zip(range(w.first, w.stop), w.best, strict=True) if is_best)
    assert best == Counter(range(30))
    middle = found[1]
    assert [t for t, is_best in zip(range(4, 14), middle.best, strict=True) if is_best] == [7, 8, 9, 10]
    assert middle.place(7) == 1 + 3 + 1 + 3
    assert label(middle, (7, 9)) == (8, 10)
    assert label(middle, (12, 14)) == (0, 0)  # its end is in the next window
    with pytest.raises(ValueError, match="no room for a context"):
        windows(0, 13, 5, 16, 4)


def test_the_n_best_of_two_windows() -> None:
    """Places by hand: question of 1 token, so that the context begins at place 3."""
    context = "a b c d e f"
    question = Question("1", "?", context)
    first, second = windows(0, 1, 6, 8, 2)
    assert ((first.first, first.stop), (second.first, second.stop)) == ((0, 4), (2, 6))
    low = np.full(8, -9.0)
    start, end = low.copy(), low.copy()
    start[[0, 3, 4]], end[[0, 4, 3]] = [1.0, 5.0, 6.0], [1.0, 3.0, 4.0]
    said = window_answers(0, first, start, end, n_best=2, longest=2)
    assert said.null_score == 2
    assert said.candidates == ((9.0, 0, 0), (9.0, 1, 1))  # (4, 3) would have 10, but ends before it starts
    nowhere = window_answers(1, second, low, low, n_best=2, longest=2)
    tokens = tokenize_words(context)
    found = answers(question, tokens, [said, nowhere], n_best=2)
    assert (found.text, found.null_odds) == ("a", -18.0 - 9.0)  # the least null score of the two windows
    assert [entry["text"] for entry in found.n_best] == ["a", "b", ""]
    assert found.at(-28.0) == ""
    assert found.at(-27.0) == "a"
    assert sum(entry["probability"] for entry in found.n_best) == pytest.approx(1)


def tokenize_words(context: str) -> Tokens:
    starts = np.arange(0, len(context), 2)
    return Tokens(starts, starts, starts + 1)


def test_logits_that_are_no_numbers_are_refused() -> None:
    (window,) = windows(0, 1, 3, 8, 2)
    logits = np.zeros(8)
    logits[4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        window_answers(0, window, logits, np.zeros(8), 2, 2)


def test_bad_questions_are_named(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    with pytest.raises(ValueError, match=r"'q' has \d+ tokens, more than task.question_tokens = 3"):
        cut([Question("q", "who was it that sat?", "cats")], tokenizer, 64, TaskConfig(question_tokens=3))
    with pytest.raises(ValueError, match="its context has no token"):
        cut([Question("q", "who?", "\u200b")], tokenizer, 64, TASK)


def lost(data: Windows, seq_len: int) -> tuple[int, Counter[str]]:
    """(gold answers, reasons of those that do not survive label and decode)."""
    of_question: dict[int, list[int]] = {}
    for number, window in enumerate(data.windows):
        of_question.setdefault(window.question, []).append(number)
    total, reasons = 0, Counter[str]()
    for number, question in enumerate(data.questions):
        for answer in dict.fromkeys(question.answers):
            total += 1
            span, said = answer_tokens(answer, data.contexts[number]), []
            for window in of_question[number]:
                start, end = np.zeros(seq_len), np.zeros(seq_len)
                first, last = label(data.windows[window], span)
                start[first], end[last] = (9.0, 9.0) if last else (1.0, 1.0)
                said.append(window_answers(window, data.windows[window], start, end, 5, TASK.answer_tokens))
            got = answers(question, data.contexts[number], said, 5).at(0.0)
            if metrics.exact(answer.text, got) != 1:
                reasons[_reason(question, answer, span, data)] += 1
    return total, reasons


def _reason(question: Question, answer: Answer, span: tuple[int, int] | None, data: Windows) -> str:
    tokens = data.contexts[data.questions.index(question)]
    if span is None:
        return "no token has a character of it"
    if span[1] - span[0] >= TASK.answer_tokens:
        return "longer than task.answer_tokens"
    if metrics.exact(answer.text, text_of(question, tokens, span)) != 1:
        return "shares a piece with its neighbours"
    return "in no window as a whole"


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("file", FILES or [pytest.param(Path("none"), marks=pytest.mark.skip(reason=f"{SQUAD} is not there"))])
def test_gold_answers_survive(file: Path, every: int, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    questions = read_squad(file, "squad2" if "v2" in file.name else "squad1")[::every]
    total, reasons = lost(cut(questions, tokenizer, 384, TASK), 384)
    assert total >= len(questions) // 2
    assert reasons.total() < LIMIT * total, reasons
    assert set(reasons) <= {"longer than task.answer_tokens", "shares a piece with its neighbours"}, reasons
