"""From raw text to sentences: normalise, cut into paragraphs, fingerprint, split into sentences.

Sentence splitting is a page of rules here; they have not been measured against a library (pysbd, blingfire) yet. Next
sentence prediction needs a boundary at which one thought ends; a boundary missed now and then costs nothing, so the
rules stay silent when in doubt. English.
"""

# ruff: noqa: SIM905 (lists of words are best read as words)
import hashlib
import re
import unicodedata

CLEANING_VERSION = 1
"""Raise it when a rule changes what a corpus holds: a corpus cleaned by other rules is another corpus."""

_LINE_BREAKS = re.compile(r"[\n\r\v\f\x85\u2028\u2029]+")
_CONTROLS = dict.fromkeys((*range(9), *range(14, 32), 127, 0xAD, 0x200B, 0x2060, 0xFEFF))
_WORDLIKE = re.compile(r"[^\W_]")

# The look-behind keeps a row of a million dots linear.
_BOUNDARY = re.compile(r"""(?<![.!?…])[.!?…]+["'”’»)\]]*\s+(?=["'“‘«(\[¿¡]*(\w))""")
_LAST_TOKEN = re.compile(r"[^\s\"'“‘«(\[—–]*$")
_NEXT_WORD = re.compile(r"[^\W\d_]+")

# Titles and the like: a name or a number follows, the sentence goes on.
_NEVER_LAST = frozenset(
    "mr mrs ms mx dr prof rev hon st ste mt ft gen col maj capt cmdr lt sgt cpl pvt adm gov sen rep pres messrs mme "
    "mlle fr vs v cf viz al approx ca eg ie e.g i.e nos vol vols ed eds fig figs eq sec ch chap pp op ser trans".split()
)
# Abbreviations that are words or may end a sentence: the sentence goes on only before a number.
_BEFORE_NUMBER = frozenset("no p art jan feb mar apr jun jul aug sep sept oct nov dec pt c b d r".split())
# After these ("Inc.", "U.S.", "J.") a sentence ends only if a word follows that seldom starts a name.
_MAYBE_LAST = frozenset("inc ltd co corp bros jr sr etc esq dept univ assn est ave blvd rd ph.d".split())
_STARTERS = frozenset(
    "the a an this that these those it its he she they we you i his her their our my in on at by for from with as "
    "after before during when while where if though although since because but and or so yet however then there thus "
    "what who how why not no one some many most all each both another other also since until upon".split()
)


def paragraphs(text: str) -> list[str]:
    """The text's paragraphs (separated by any line break), NFC, one space between words.

    Control and zero-width characters and soft hyphens are dropped, lone surrogates (JSON can hold them, UTF-8 cannot)
    become U+FFFD, and lines without a letter or digit (rules such as =====) are left out.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = unicodedata.normalize("NFC", text).translate(_CONTROLS)
    lines = (" ".join(line.split()) for line in _LINE_BREAKS.split(text))
    return [line for line in lines if _WORDLIKE.search(line)]


def count_words(document: list[str]) -> int:
    """White-space words of a document's paragraphs."""
    return sum(paragraph.count(" ") + 1 for paragraph in document)


def digest(document: list[str]) -> bytes:
    """16 bytes that two documents share only if their paragraphs are the same."""
    return hashlib.blake2b("\n".join(document).encode(), digest_size=16).digest()


def split_sentences(paragraph: str) -> list[str]:
    """The paragraph's sentences, in order; joined by one space they are the paragraph."""
    sentences, start = [], 0
    for match in _BOUNDARY.finditer(paragraph):
        if _ends_sentence(paragraph, start, match):
            sentences.append(paragraph[start : match.end()].rstrip())
            start = match.end()
    sentences.append(paragraph[start:])
    return sentences


def _ends_sentence(paragraph: str, start: int, match: re.Match[str]) -> bool:
    """Whether the stop at `match` ends the sentence that began at `start`."""
    following = match[1]
    if following.islower() or following == "_":
        return False
    if match[0][0] != "." or match[0].startswith(".."):  # "!", "?", "…", "..." abbreviate nothing
        return True
    word = _NEXT_WORD.match(paragraph, match.start(1))
    return not _is_abbreviated(paragraph[start : match.start()], following, word[0] if word else "")


def _is_abbreviated(before: str, following: str, next_word: str) -> bool:
    """Whether the stop after `before` is part of an abbreviation, an initial or a list number."""
    token_match = _LAST_TOKEN.search(before[-32:])
    token = token_match[0] if token_match else ""
    if token.isdigit():  # "1. First": the number of an item, not a sentence
        return token == before.strip() and len(token) < 4
    folded = token.lower()
    if folded in _NEVER_LAST:
        return True
    if folded in _BEFORE_NUMBER and following.isdigit():
        return True
    initial = len(token) == 1 and token.isupper()
    dotted = "." in token and all(len(part) <= 2 for part in token.split("."))
    if initial or dotted or folded in _MAYBE_LAST:
        return next_word.lower() not in _STARTERS or (initial and next_word.lower() in ("a", "i"))
    return False
