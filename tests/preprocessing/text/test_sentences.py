"""Splitting into sentences: real cases, agreement with pysbd, linear time."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.text.clean import paragraphs
from preprocessing.text.sentences import split_sentences

SPLITS = [
    "He moved to the U.S. | The next year he left.",
    "He serves in the U.S. Navy. | It pays.",
    "Mr. J. R. Smith met Dr. Who. | They spoke at 5 p.m. | He left at 6 a.m. Monday.",
    "It costs 3.5 million. | No. 5 is alive. | No. | He said so.",
    'He said "No." | Then he left.',
    '"Go to the U.S." | The man left.',
    "“Stop!” he cried. | “Go.” | She went.",
    "'Weak?' said Mr. Dick.",
    "Apple Inc. announced it. | It was Apple Inc. | The end.",
    "See Fig. 3. | Next, see p. 55 and vol. 2 of it.",
    "1. First item. | 2. Second item.",
    "Is it? | Yes! | Well... | Maybe.",
    "He was born c. 1850. | St. Louis is big.",
    "She has a Ph.D. in law, i.e. Something, e.g. Another.",
    "It was I. | We knew.",
    "He came in 1999. | He left on Jan. 5.",
    "It grew by 5%. | 20 people came (see above.) | Washington, D.C. | In 1990 it rained.",
    "Élan is a word. | Émile said so. | ¿Qué? | Nothing.",
    "ends without a stop",
    # What disagreements with blingfire showed: benchmarks/sentences.py.
    "No more do I. | I know. | So said J. I. Smith.",
    "The ratio is 1.59. | Despite this it ran. | Version 2.0. | Nothing else.",
    "He saw--Mr. Smith, and wrote in the Times:Mr. Cohen came. | 2/Lt. Chase left.",
    "She sold jobs, etc. | Consequently it closed. | See the list etc. 3 of them.",
    "It cost Rs. 250 to the Rt. Hon. Henley. | Lieut. James kept it (tr. Groot 1910).",
    "He built in George St. | He left by St. James. | So say Smith et al. | Since then it ran.",
    "She is gone.-- | Her merits remain. | Он ушёл. да. | Нет.",
    "He saw J... | Smith came. | Is it Mr.? Smith asked.",
    "A stop that another follows?! | Yes.. | Well, yes.",
]


@pytest.mark.parametrize("marked", SPLITS)
def test_sentences(marked: str) -> None:
    expected = marked.split(" | ")
    assert split_sentences(" ".join(expected)) == expected


def test_sentences_joined_are_the_paragraph(topics: list[dict[str, Any]]) -> None:
    for row in topics:
        for paragraph in paragraphs(row["text"]):
            assert " ".join(split_sentences(paragraph)) == paragraph


WORDS = [
    "Mr.",
    "I.",
    "No.",
    "5",
    "etc.",
    '"Yes!"',
    "he",
    "She",
    "...",
    ".",
    "U.S.",
    "(c.",
    "--Dr.",
    "Ünd.",
    "Я.",
    "?!",
    "”",
    "_a",
]


@given(st.lists(st.sampled_from(WORDS) | st.text(min_size=1, max_size=6), min_size=1))
def test_any_text_joined_is_the_paragraph(words: list[str]) -> None:
    paragraph = " ".join(" ".join(words).split())
    sentences = split_sentences(paragraph)
    assert " ".join(sentences) == paragraph
    assert all(sentences) or not paragraph


@pytest.mark.parametrize(
    "text", ["." * 500_000, '."' * 250_000, "A. " * 100_000, "!\"'" * 100_000, "a" * 1_000_000, ".-" * 250_000]
)
def test_odd_text_takes_linear_time(text: str) -> None:
    started = time.process_time()
    split_sentences(text)
    split_sentences(text + " A")
    assert time.process_time() - started < 5  # quadratic time would be minutes


def test_agreement_with_pysbd(topics: list[dict[str, Any]]) -> None:
    """Over prose of the language reference: F1 of our boundaries against pysbd's; measured: 0.969."""
    from pysbd import Segmenter

    from benchmarks.sentences import boundaries, score

    segmenter = Segmenter(language="en", clean=False)
    ours, theirs = set(), set()
    lines = [p for row in topics[:20] for p in paragraphs(row["text"]) if p[0].isupper() and p[-1] == "." and ">>>" not in p]
    for i, paragraph in enumerate(lines):
        ours |= {(i, at) for at in boundaries(split_sentences(paragraph))}
        theirs |= {(i, at) for at in boundaries(segmenter.segment(paragraph))}
    assert len(theirs) > 100
    assert score(ours, theirs)[2] > 0.95, score(ours, theirs)
