"""Split a paragraph into sentences: one regular expression finds the stops, a page of rules judges them. English.

Next sentence prediction needs a boundary at which one thought ends; a boundary missed now and then costs nothing, so the
rules stay silent when in doubt. `python -m benchmarks.sentences` measures them beside pysbd and blingfire.
"""

# ruff: noqa: SIM905 (lists of words are best read as words)
import re

# The last stop of a row, the quotes that close with it, a space, the quotes that open, and the word after (1), which does
# not begin with a-z. No two neighbours share a character, so a row of a million dots takes linear time. (No possessive
# quantifiers: Python 3.11.2 gets some of them wrong.)
_STOPS = ".!?…"
_STOP = re.compile(r"""[.!?…]["'”’»)\]—–-]* (?=["'“‘«(\[¿¡]*([^\Wa-z_][^\W\d_]*))""")
_LAST_TOKEN = re.compile(r"[^\s\"'“‘«(\[—–:/]*$")
_LONGEST_TOKEN = 32

# Titles and the like: a name or a number follows, the sentence goes on.
_NEVER_LAST = frozenset(
    "mr mrs ms mx dr drs prof rev hon rt ste mt gen col maj brig capt cmdr comdr lt lieut sgt cpl pvt adm gov sen rep pres "
    "messrs mme mlle wm fr vs v cf viz approx ca eg ie e.g i.e nos vol ed eds fig eq sec ch chap pp op ser trans tr dir det "
    "syn".split()
)
# Abbreviations that are words or may end a sentence: the sentence goes on only before a number.
_BEFORE_NUMBER = frozenset("no etc p pg ep art rs stat pub jan feb mar apr jun jul aug sep sept oct nov dec pt c b d r".split())
# After these ("Inc.", "U.S.", "J.") a sentence ends only if a word follows that seldom starts a name.
_MAYBE_LAST = frozenset(
    "inc ltd co corp bros jr sr esq dept govt univ assn est ave blvd rd ph.d st ft al figs eqs vols phys chem sect".split()
)
_STARTERS = frozenset(
    "the a an this that these those it its he she they we you i his her their our my in on at by for from with as "
    "after before during when while where if though although since because but and or so yet however then there thus "
    "what who how why not no one some many most all each both another other also since until upon".split()
)
_ABBREVIATIONS = _NEVER_LAST | _BEFORE_NUMBER | _MAYBE_LAST


def split_sentences(paragraph: str) -> list[str]:
    """The sentences, in order, of a paragraph with one space between words; joined by one space they are the paragraph."""
    sentences, start = [], 0
    for match in _STOP.finditer(paragraph):
        stop, end = match.span()
        following = match[1]
        if following > "z" and following[0].islower():  # in another alphabet than a-z
            continue
        if stop and paragraph[stop - 1] in _STOPS:
            stop = _first_of_row(paragraph, stop)
        if paragraph[stop] == "." and paragraph[stop + 1] != ".":  # "!", "?", "…" and "..." abbreviate nothing
            token = paragraph[max(start, paragraph.rfind(" ", start, stop) + 1) : stop]
            plain = len(token) > 1 and token.isalpha() and token.lower() not in _ABBREVIATIONS
            if not plain and _is_abbreviated(token, start, stop, following):
                continue
        sentences.append(paragraph[start : end - 1])
        start = end
    sentences.append(paragraph[start:])
    return sentences


def _first_of_row(paragraph: str, stop: int) -> int:
    """Where the row of stops begins that ends at `stop`."""
    while stop and paragraph[stop - 1] in _STOPS:
        stop -= 1
    return stop


def _is_abbreviated(token: str, start: int, stop: int, following: str) -> bool:
    """Whether the stop after `token` is part of an abbreviation, an initial or a list number.

    `start` is where the sentence begins, `stop` where the stop is.
    """
    match = _LAST_TOKEN.search(token[-_LONGEST_TOKEN:])
    assert match is not None  # it may match nothing, but it matches
    token = match[0].rpartition("--")[2]
    if token.isdigit():  # "1. First": the number of an item, not a sentence
        return stop - start == len(token) < 4
    folded = token.lower()
    if folded in _NEVER_LAST:
        return True
    if folded in _BEFORE_NUMBER and following[0].isdigit():
        return True
    initial = len(token) == 1 and token.isupper()
    dotted = "." in token and all(len(part) <= 2 and not part.isdigit() for part in token.split("."))
    if initial or dotted or folded in _MAYBE_LAST:
        next_word = following.lower()
        if next_word == "i":  # "J. I. Smith", but "No more do I. I know."
            return initial and token != "I"
        return next_word not in _STARTERS or (initial and next_word == "a")
    return False
