"""Cleaning: real cases of every rule, and the fast code beside a slow, readable reference of the same rules."""

import gzip
import json
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preprocessing.text import clean as rules
from preprocessing.text.clean import Cleaned, clean, count_words, digest, paragraphs
from tests.helpers.reference_cleaning import reference_clean, reference_paragraphs

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
SAMPLES = ["wiki/wikipedia_en_sample.jsonl.gz", "books/books_pd_sample.jsonl.gz"]
PROSE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity."
)
assert len(PROSE) > rules._LONGEST_HEADING


def check(text: str) -> None:
    assert paragraphs(text) == reference_paragraphs(text)
    kept, dropped = clean(text)
    assert kept == reference_clean(text)
    assert all(n > 0 for n in dropped.values())
    assert len(kept) + sum(dropped.values()) - dropped.get("no letter", 0) == len(paragraphs(text))


BREAKS = ["\n", "\n\n", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029", "\x1c", "\x1d", "\x1e"]
ODD = [
    "\xa0",
    "\t",
    "  ",
    " ",
    "\u3000",
    "\u200b",
    "\xad",
    "\ufeff",
    "\x00",
    "\ud83d",
    "\ude00",
    "e\u0301",
    "\u0301",
    "\u212b",
    "\u200c",
    "\u200d",
    "\u0645",
    "\u202e",
]
PIECES = [
    *(
        "History.",
        "References",
        "CHAPTER IV",
        "XII. The Fellow",
        "Early work",
        "THE END",
        "Roses are red,",
        "she said",
        "1987.",
    ),
    *(
        "Category:Ships",
        "http://a.b/c",
        "[edit]",
        "Plot [edit]",
        "=====",
        "* * *",
        "“Yes,” he said.",
        PROSE,
        "Home | News | Us",
    ),
    *("*** START OF THE PROJECT GUTENBERG EBOOK X ***", "*** END OF THIS PROJECT GUTENBERG EBOOK X ***"),
]


@given(st.lists(st.sampled_from(PIECES + BREAKS + ODD) | st.text(max_size=8)).map("".join))
@settings(max_examples=300, deadline=None)
@example("e\x1c\u0301")
def test_any_characters(text: str) -> None:
    check(text)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=30), max_size=12).map("\n".join))
@settings(max_examples=300, deadline=None)
def test_any_lines(text: str) -> None:
    check(text)


def test_every_character() -> None:
    """What is printable needs no mending: the fast path's ground."""
    for code in range(0x110000):
        character = chr(code)
        if character.isprintable() and character != " ":
            assert not character.isspace()
            assert code not in rules.CONTROLS
            assert not 0xD800 <= code < 0xE000
            assert len(character.splitlines()) == 1


@pytest.mark.parametrize("name", SAMPLES)
def test_real_text_as_the_reference(name: str) -> None:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"no real sample here: {path}")
    dropped_words = words = 0
    with gzip.open(path) as file:
        for number, line in enumerate(file):
            if number % (40 if "wiki" in name else 20) == 0:
                text = json.loads(line)["text"]
                check(text)
                words += count_words(paragraphs(text))
                dropped_words += count_words(paragraphs(text)) - count_words(clean(text).paragraphs)
    assert dropped_words / words < 0.004  # measured: 0.20 % of Wikipedia, 0.12 % of books, headings nearly all


def test_builtin_text_as_the_reference(topics: list[dict[str, Any]]) -> None:
    for row in topics:
        check(row["text"])


HEADINGS = [
    *("History.", "History", "EXTERNAL LINKS", "See also", "References:", "World War II.", "Early life and education."),
    *(
        "CHAPTER I",
        "Chapter 12.",
        "CHAPTER XX - THE FLIGHT IN THE HEATHER: THE ROCKS",
        "CHAPTER 30. A LOSS",
        "VII",
        "3",
        "1990s.",
    ),
    *("XII. The Fellow of Delicacy", "Book the First: Recalled to Life", "BOOK FIRST", "Saturday", "DR. SEWARD'S DIARY"),
    *("Phase the Fourth: The Consequence", "Distribution in Europe", "CHAPTER FIVE", "THE PUBLIC BEREAVEMENT"),
]


@pytest.mark.parametrize("heading", HEADINGS)
def test_headings_go(heading: str) -> None:
    assert clean(f"{PROSE}\n\n{heading}\n\n{PROSE}\n") == Cleaned([PROSE, PROSE], {"heading": 1})


STAYING = [
    ['"Yes."', "“Why not?”", "'No.'", "No answer.", "Death.", "I shook my head.", "Silence", '"Good heavens'],
    ["Roses are red", "Violets are blue,", "Sugar is sweet", "And so are you."],
    ["The woods are lovely dark and deep", "But I have promises to keep", "And miles to go before I sleep", PROSE],
    ["I says:", PROSE],
    [PROSE, "Nan replied that she would", PROSE],
    [PROSE, "He left", PROSE],
    [PROSE, "The railroad of modern construction and", PROSE],
    [PROSE, "Seven words of prose about the harbour", PROSE],
    [PROSE, "Then the total mechanical energy of the droplet is", "in which V is the volume."],
    ["It was used by", "The Chapter 1 of his book, he said, was long.", "Part of it was burnt."],
    ["Image is everything.", "The project gutenberged on.", "Chapter and verse.", "I. I know.", "See also the next page."],
    ["Categories: they are many.", "www. is how it began.", "End of the day.", "This is a stub."],
    ["first item", "second item", "third item", "fourth item", PROSE],
]


@pytest.mark.parametrize("lines", STAYING)
def test_prose_verse_and_dialogue_stay(lines: list[str]) -> None:
    expected = [line for line in lines if line != "Silence"]  # one word that stands open before a long line may go
    assert [line for line in clean("\n".join(lines)).paragraphs if line != "Silence"] == expected


BOILERPLATE = [
    *(
        "Category:1852 novels",
        "[[Category:Ships]]",
        "File:Ship.jpg|thumb|A ship",
        "http://www.example.org/a?b=c",
        "[https://a.b/c]",
    ),
    *("Jump to navigation", "Retrieved from “https://en.wikipedia.org/x”", "From Wikipedia, the free encyclopedia", "[edit]"),
    *(
        "This article about a ship is a stub. You can help Wikipedia by expanding it.",
        "Home | About us | Contact",
        "Privacy policy",
    ),
    *(
        "The Project Gutenberg EBook of Emma, by Jane Austen",
        "Produced by A. Reader and the Online Distributed Proofreading Team",
    ),
    *("This eBook is for the use of anyone anywhere at no cost.", "All rights reserved."),
]


@pytest.mark.parametrize("line", BOILERPLATE)
def test_boilerplate_goes(line: str) -> None:
    assert clean(f"{PROSE}\n{line}\n{PROSE}") == Cleaned([PROSE, PROSE], {"boilerplate": 1})


def test_edit_marks_are_stripped() -> None:
    assert clean("He was born in 1852.[edit]\nHe said [edit] it.[ edit | edit source ]").paragraphs == [
        "He was born in 1852.",
        "He said [edit] it.",
    ]


def test_gutenberg_headers_and_licences_go() -> None:
    text = """The Project Gutenberg EBook of Emma\nTitle: Emma\nProduced by A. Reader.
*** START OF THIS PROJECT GUTENBERG EBOOK EMMA ***\nFirst text.\nEnd of Project Gutenberg's Emma, by Jane Austen
*** END OF THIS PROJECT GUTENBERG EBOOK EMMA ***\nLicence text.\nTitle: Persuasion
***START OF THE PROJECT GUTENBERG EBOOK PERSUASION***\nSecond text.\n*** END OF THE PROJECT GUTENBERG EBOOK ***\nLicence."""
    assert clean(text) == Cleaned(["First text.", "Second text."], {"boilerplate": 11})


def test_a_mark_far_into_a_text_heads_nothing() -> None:
    book = [f"{PROSE} {i}." for i in range(2 * rules._GUTENBERG_LINES)]
    text = [*book, "*** START OF THE PROJECT GUTENBERG EBOOK ***", *book, "*** END OF THE PROJECT GUTENBERG EBOOK ***", *book]
    assert clean("\n".join(text)).paragraphs == [*book, *book, *book[rules._GUTENBERG_LINES :]]


@pytest.mark.parametrize(
    "line",
    [
        "[http://a.b] " * 5000 + "x y",
        "Word | " * 5000,
        "w" * 9 + " | wwwwwwwww" * 5000 + " a b c d",
        "x" + "[edit]" * 20_000,
        "x\n" * 50_000,
    ],
)
def test_odd_lines_take_linear_time(line: str) -> None:
    started = time.process_time()
    clean(line)
    assert time.process_time() - started < 2  # what goes back over its steps takes minutes


def test_paragraphs_are_normalised() -> None:
    text = "  One\ttwo\u00a0 three \r\n\r\n=====\n***\n cafe\u0301 \ufeffso\u00adft\x00 \u2028 last\n\n"
    assert paragraphs(text) == ["One two three", "café soft", "last"]
    assert clean(text).dropped_lines == {"no letter": 2}
    assert count_words(paragraphs(text)) == 6
    assert count_words([]) == 0
    assert paragraphs(" one \n two\nthree ") == ["one", "two", "three"]


def test_lone_surrogates_become_replacement_characters() -> None:
    assert paragraphs("a \ud800 b \U0001f600") == ["a \ufffd b \U0001f600"]
    assert paragraphs("a\ud83d\ude00") == ["a\U0001f600"]


def test_the_digest_is_of_the_text_not_of_its_layout() -> None:
    assert digest(paragraphs("One  two\n\n\nthree")) == digest(paragraphs("One two\nthree\n"))
    assert digest(paragraphs("One two three")) != digest(paragraphs("One two\nthree"))
    assert len(digest([])) == 16


def test_all_that_shows_nothing_goes_and_joiners_stay_where_they_mean_something() -> None:
    invisible = [chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) == "Cf" and i not in (0x200C, 0x200D)]
    assert paragraphs("a" + "".join(invisible) + "b") == ["ab"]
    kept = ["می\u200cروم", "क्\u200dष", "ന്\u200d", "ශ්\u200dරී", "👩\u200d👩\u200d👧 family", "❤\ufe0f\u200d🔥 x"]
    assert [paragraphs(text) for text in kept] == [[text] for text in kept]
    assert paragraphs("fi\u200cnd \u200dit\u200c \u202eright\u202c \u2067to\u2069 left\u200f") == ["find it right to left"]
    assert paragraphs("م\u200c\u200c\u200dر") == ["م\u200cر"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (["two words", "and three more"], 5),
        (["我们今天去学校。"], 4),
        (["昨日は東京へ行きました。", "はい"], 7),
        (["ผมไปโรงเรียน"], 3),
        (["我用 Python 写代码, ok"], 5),
        (["Ça va très bien – merci"], 6),
        ([], 0),
    ],
)
def test_words_are_counted_where_a_language_has_no_spaces(document: list[str], words: int) -> None:
    assert count_words(document) == words
