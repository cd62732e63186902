"""Bounds on what degenerates without an error: `build` warns beyond them, `audit` fails. Each has its reason beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Half of the sentence pairs are drawn "not next", and every lone sentence must be. Above this, more than half of the samples
# begin with one, and a model that never reads is right three times in four.
NOT_NEXT_MOST = 0.75
# A pair takes two sentences: with fewer in the mean document, the rest come from elsewhere. Wikipedia has 20.
SENTENCES_LEAST = 2.0
# English has 20 to 30 tokens a sentence, 70 with a vocabulary of hundreds. Shorter ones are no sentences (a stop behind every
# word), longer ones fill a sequence of 128 alone: the text has other stops than the rules know, or none.
TOKENS_LEAST, TOKENS_MOST = 3.0, 128.0
# No sequence of 512 holds such a sentence. Lists and tables are; a tenth of a source's tokens are not.
LONG_TOKENS, LONG_MOST = 512, 0.1
# Wikipedia has 0.1% [UNK] with a vocabulary of 8192. At one in a hundred the tokenizer does not know the source's script.
UNKNOWN_MOST = 0.01
# When one reason takes more than half of a source, it decides what the corpus is, not the source. What was asked for by an
# option may take more; and a dump is mostly redirects and pages that are no articles.
DROPPED_MOST, ASKED_FOR_MOST = 0.5, 0.9
ASKED_FOR = ("not in language", "near duplicate")
NO_TEXT = ("redirect", "not an article")


@dataclass(frozen=True)
class SourceShape:
    """A source as the bounds look at it. `tokens` are those of its text, without [SEP]; the shares are of these."""

    name: str
    documents_read: int
    dropped: Mapping[str, int]
    documents: int
    sentences: int
    tokens: int
    unknown_share: float
    long_share: float
    """In sentences of more than LONG_TOKENS."""


class Judgement(NamedTuple):
    """One bound over all sources; `found` and `expected` are sentences for people."""

    name: str
    passed: bool
    found: str
    expected: str


def judge_sources(sources: Sequence[SourceShape]) -> list[Judgement]:
    """Every bound that a source has to keep to."""
    kept = [source for source in sources if source.sentences and source.tokens]
    return [
        _judged(
            "sentences a document",
            kept,
            lambda s: s.sentences / s.documents >= SENTENCES_LEAST,
            lambda s: f"{s.sentences / s.documents:,.2f}",
            f"at least {SENTENCES_LEAST:g} in the mean of a source: a pair takes two",
        ),
        _judged(
            "tokens a sentence",
            kept,
            lambda s: TOKENS_LEAST <= s.tokens / s.sentences <= TOKENS_MOST and s.long_share <= LONG_MOST,
            lambda s: f"{s.tokens / s.sentences:,.1f} ({s.long_share:.2%} in sentences above {LONG_TOKENS})",
            f"{TOKENS_LEAST:g} to {TOKENS_MOST:g} in the mean of a source, at most {LONG_MOST:.0%} of its tokens in sentences "
            f"of more than {LONG_TOKENS}: else its stops are not those of the rules",
        ),
        _judged(
            "unknown pieces",
            kept,
            lambda s: s.unknown_share <= UNKNOWN_MOST,
            lambda s: f"{s.unknown_share:.4%} [UNK]",
            f"at most {UNKNOWN_MOST:.0%} of the tokens of a source: else the tokenizer does not know its script",
        ),
        _dropped(sources),
    ]


def judge_not_next(share: float, of: str) -> Judgement:
    """The bound on the labels of sentence pairs; `of` says what they are the share of."""
    return Judgement(
        "pairs: labels",
        share <= NOT_NEXT_MOST,
        f'{share:.2%} are "not next" of {of}',
        f"at most {NOT_NEXT_MOST:.0%}: half are drawn so, and all that begin with a document's last or a very long sentence",
    )


def _judged(
    name: str,
    sources: Sequence[SourceShape],
    keeps: Callable[[SourceShape], bool],
    say: Callable[[SourceShape], str],
    expected: str,
) -> Judgement:
    """The offenders first."""
    order = sorted(sources, key=keeps)
    return Judgement(name, all(map(keeps, sources)), ", ".join(f"{s.name} {say(s)}" for s in order) or "no text", expected)


def _dropped(sources: Sequence[SourceShape]) -> Judgement:
    shares = [
        (source.name, reason, count / source.documents_read)
        for source in sources
        for reason, count in source.dropped.items()
        if source.documents_read and reason not in NO_TEXT
    ]
    bad = [one for one in shares if one[2] > (ASKED_FOR_MOST if one[1].startswith(ASKED_FOR) else DROPPED_MOST)]
    named = bad or sorted(shares, key=lambda one: -one[2])[:1]
    return Judgement(
        "documents dropped",
        not bad,
        ", ".join(f"{name} {share:.1%} {reason}" for name, reason, share in named) or "none",
        f"at most {DROPPED_MOST:.0%} of a source's documents for one reason ({ASKED_FOR_MOST:.0%} for one that an option asked "
        f"for; {' and '.join(NO_TEXT)} do not count)",
    )
