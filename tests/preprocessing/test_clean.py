"""Normalising and splitting text: real cases."""

import time

import pytest

from preprocessing.clean import count_words, digest, paragraphs, split_sentences

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
]


@pytest.mark.parametrize("marked", SPLITS)
def test_sentences(marked: str) -> None:
    expected = marked.split(" | ")
    assert split_sentences(" ".join(expected)) == expected


def test_sentences_joined_are_the_paragraph(topics: list[dict[str, str]]) -> None:
    for row in topics:
        for paragraph in paragraphs(row["text"]):
            assert " ".join(split_sentences(paragraph)) == paragraph


@pytest.mark.parametrize("text", ["." * 500_000, '."' * 250_000, "A. " * 100_000, "!\"'" * 100_000, "a" * 1_000_000])
def test_odd_text_takes_linear_time(text: str) -> None:
    started = time.process_time()
    split_sentences(text)
    assert time.process_time() - started < 5  # quadratic time would be minutes


def test_paragraphs_are_normalised() -> None:
    text = "  One\ttwo\u00a0 three \r\n\r\n=====\n***\n cafe\u0301 \ufeffso\u00adft\x00 \u2028 last\n\n"
    assert paragraphs(text) == ["One two three", "café soft", "last"]
    assert count_words(paragraphs(text)) == 6


def test_lone_surrogates_become_replacement_characters() -> None:
    assert paragraphs("a \ud800 b \U0001f600") == ["a \ufffd b \U0001f600"]


def test_the_digest_is_of_the_text_not_of_its_layout() -> None:
    assert digest(paragraphs("One  two\n\n\nthree")) == digest(paragraphs("One two\nthree\n"))
    assert digest(paragraphs("One two three")) != digest(paragraphs("One two\nthree"))
