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
    # Footnote marks and closing quotes behind the stop; words that begin with a small letter.
    "He left.[3] | Then he came.[12][note 2] | Now.² | So it is.12 | The end. [4] | It is 3.5 Million.",
    "After.[citation needed] | Before.",
    "She went.* | He stayed.† | Er ging.“ | Sie blieb.» | A .45 Colt. | Fig.3 Shows it.",
    "He bought one. | iPhone sales rose. | eBay fell. de Gaulle said e.g. that.",
    "He left.(3) | Then he came.⁽⁴⁾ | Now.[1]:24 | So.[2]: 5–6 | It is.§ | It was.ᵃ | See Fig.(3) Of it. | The end.[5]",
    "Cells.12,13 | The rest.1–3 | More.[3],[4] | So.[5], [6] | Next.¹,² | No.1,2 Of it. | In 1.2,3 He paid 1.000,50 Euro.",
    "Er ging. | „Nein.“ | Sie sagte »Ja.« | Er blieb. | ‚So.‘ | ›Oui.‹ | Ende.",
    # Tokenized: spaces before punctuation.
    'He left . | The Dr . Who came at 3 . 5 . | " Why ? " | " I do n\'t . " | Mr. Smith left the U.S. . | It rained .',
    "It rained . . . and then ... it did n't .",
]
# As BookCorpus has it, and as people type.
LOWER = [
    "the man went home . | he was tired . | it rained !",
    "`` what ? '' she asked . | `` no . '' | he left . | `` stop ! '' | the dog ran .",
    '" we must go . " | he left . | " why ? " i asked . | ( see below . ) | she did .',
    "i met mr. smith and dr. j. r. jones . | he came at 5 p.m. on monday , e.g. by train . | he left the u.s. in 1990 .",
    "well . . . maybe . | oh ... perhaps . | it cost 3.5 million , i.e. no . 5 of 3 . 5 .",
    "so did i. | we went there. | he came in 1999. | pens, etc. are sold by smith inc. of ohio. | is it? | yes!",
    "i don't. | you do. | it was vitamin c. so they say.",
    "it rained.[2] | he left.3 | then he came.” | she did not. | the u.s. | he knew john. | John left.",
    "1. first of all. | he went on. | to jan. 5.",
    "he came .[ 1 ] | she left . [ 2 ] | er ging. | „nein.“ | sie blieb.",
    "1990 was bad . | 1991 was worse . | they left .",
    "она осталась. | и всё. | конец.",
]
# Stops that need no space; "|" alone stands where there is none.
WIDE = [
    "你好。|我是学生！|“真的？”他问。|“是的。”|我说。|走吧",
    "「行く。」と言った。|「来い！」と叫んだ。|とても良い。|終わり。",
    "今天很好!|我们走吧?|好。[3]|完",
    "यह एक वाक्य है। | यह दूसरा है॥ | तीसरा? | हाँ",
    "ይህ አንድ ነው፧ | ሁለት ነው፡፡ | ሦስት",
    "មួយ៕ | ពីរ",
    "ꯑꯃ꯫ | ꯑꯅꯤ",
    "ᱢᱤᱫ᱾ | ᱵᱟᱨ",
    "هل أنت بخير؟ | نعم. | جيد۔ | نعم",
    "འདི་གཅིག་ཡིན། | འདི་གཉིས་ཡིན། ། | རྫོགས་སོ༎ | ཨོཾ",
    "ꦱꦶꦗꦶ꧉ | ꦭꦺꦴꦫꦺꦴ",
    "Τι κάνεις; | Καλά. | «Πού είναι;» ρώτησε. | Πού; ρώτησε; | «Εσύ;»",
    "Really‼️ | Yes⁉ | What‽ | No.",
    "他来了。① | 她走了。[2]: 7 | 对。[3],[4]|完。|(1)好",
    "圆周率是３．１４。|对",
]


@pytest.mark.parametrize("marked", LOWER)
def test_lower_cased_sentences(marked: str) -> None:
    expected = marked.split(" | ")
    assert split_sentences(" ".join(expected)) == expected


@pytest.mark.parametrize("marked", WIDE)
def test_stops_that_need_no_space(marked: str) -> None:
    assert split_sentences(marked.replace(" | ", " ").replace("|", "")) == [part.strip() for part in marked.split("|")]


def test_a_small_letter_goes_on_where_sentences_begin_with_capitals() -> None:
    for text in (
        "It grows in approximat. five places, subspec. two of them. The end came.",
        "Oh! how grateful they were, alas! alas! and what a day.",
        "over the hills. The way is long approx. seven miles",
    ):
        assert all(sentence[0].isupper() for sentence in split_sentences(text)[1:])


@pytest.mark.parametrize("marked", SPLITS)
def test_sentences(marked: str) -> None:
    expected = marked.split(" | ")
    assert split_sentences(" ".join(expected)) == expected


def test_sentences_joined_are_the_paragraph(topics: list[dict[str, Any]]) -> None:
    for row in topics:
        for paragraph in paragraphs(row["text"]):
            assert " ".join(split_sentences(paragraph)) == paragraph


WIDE_TOO = "།༎༏༐༑༔‼‽⁇⁈⁉﹒﹖﹗؝؞⸮⸼࠷࠹࠽࠾᙮᜵᜶᪨᪩᪪᪫᭚᭛᭞᭟꓿꘎꘏꛳꛷꡶꡷꧈꧉"
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
    "。",
    "！」",
    "` ``",
    "[1]",
    ".2",
]


@given(st.lists(st.sampled_from(WORDS) | st.text(min_size=1, max_size=6), min_size=1))
def test_any_text_joined_is_the_paragraph(words: list[str]) -> None:
    paragraph = " ".join(" ".join(words).split())
    sentences = split_sentences(paragraph)
    assert "".join(sentences).replace(" ", "") == paragraph.replace(" ", "")
    assert all(sentences) or not paragraph
    assert all(sentence == sentence.strip() for sentence in sentences)
    if not set(paragraph) & set("。！？｡．।॥۔؟።፧፨፡။។៕։߹܀܁܂᠃᠉᥄᥅꫰꫱꯫᱾᱿᰻᰼꩝꩞꩟꤯꣎꣏" + WIDE_TOO):
        assert " ".join(sentences) == paragraph


@pytest.mark.parametrize(
    "text",
    [
        *("." * 500_000, '."' * 250_000, "A. " * 100_000, "!\"'" * 100_000, "a" * 1_000_000, ".-" * 250_000),
        *("a. " * 50_000, ". " * 200_000, ".[1]" * 100_000, '." " ' * 50_000, "[1] " * 100_000, "? '' " * 50_000),
        *(".[1],[1]" * 50_000, ".1,1" * 100_000, "." + "-1" * 200_000, "[ 1 ] " * 50_000, ".[1]: 1 " * 50_000),
        *(".1" * 250_000, "。" * 500_000, "。」" * 100_000, "a.。[" * 100_000),
    ],
)
def test_odd_text_takes_linear_time(text: str) -> None:
    started = time.process_time()
    split_sentences(text)
    split_sentences(text + " A")
    split_sentences(text + " a")
    assert time.process_time() - started < 5  # quadratic time would be minutes


def test_lower_cased_prose_is_split_where_it_was(topics: list[dict[str, Any]]) -> None:
    """F1 of the boundaries of prose in lower case against those of the same prose as it was; measured: 0.984."""
    from benchmarks.sentences import boundaries, score

    lines = [p for row in topics for p in paragraphs(row["text"]) if p[0].isupper() and p[-1] == "." and ">>>" not in p]
    cased, lower = (
        {(i, at) for i, line in enumerate(one) for at in boundaries(split_sentences(line))}
        for one in (lines, [line.lower() for line in lines])
    )
    assert len(cased) > 200
    assert score(lower, cased)[2] > 0.95, score(lower, cased)


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
