"""Split a paragraph into sentences: one regular expression finds the stops, a page of rules judges them. English.

Next sentence prediction needs a boundary at which one thought ends; a boundary missed now and then costs nothing, so the
rules stay silent when in doubt. Where sentences begin with capitals, a small letter behind a stop says that the sentence goes
on. In lower-cased text it says nothing: there the words around the stop decide. The stops of Chinese, Japanese, Hindi and
others abbreviate nothing and need no space: they always end a sentence. `python -m benchmarks.sentences` measures the rules
beside pysbd and blingfire, with `--lower` on lower-cased text.
"""

# ruff: noqa: SIM905 (lists of words are best read as words)
import re
from collections.abc import Iterator

SENTENCES_VERSION = 4
"""Raise it when a rule changes what a corpus holds: a corpus split by other rules is another corpus."""

# The last stop of a row, the quotes and footnote marks behind it, a space, the quotes and brackets on the way to the next
# word (1), which stand alone in tokenized text (" . '' she"), and that word (2). No two neighbours share a character, so a
# row of a million dots takes linear time. (No possessive quantifiers: Python 3.11.2 gets some of them wrong.)
_STOPS = ".!?…"
_CLOSERS = """["'”’“‘»«›‹)}\\]*†‡§¶⁰¹²³⁴-⁹⁽⁾ᵃ-ᵏⁱⁿ—–-]*"""
_BRACKETED = r"\[[^\[\].!?…]{1,20}\](?:: ?[0-9][0-9–-]{0,8}|)"  # [3], [note 2], [citation needed], [1]:24
_NOTE = rf"(?:{_BRACKETED}|\([0-9]{{1,3}}\))"  # (3), too
_STOP = re.compile(
    rf"[.!?…]{_CLOSERS}(?:{_NOTE}(?:(?:, ?|[–-]|){_NOTE})*{_CLOSERS}|)[0-9]{{0,3}}(?:[,–-][0-9⁰¹²³⁴-⁹]{{1,3}}){{0,9}} "
    r"""(?:\[ ?[0-9]{1,3} ?\][\[\]0-9 ]* |)(?=(["'`“”„‘’‚«»‹›()\[\]¿¡ ]*)([^\W_][^\W\d_]*))"""
)
_CLOSING = frozenset("\"'”’“‘»«›‹)")
_CLOSING_ALONE = frozenset(("''", "'", "”", "’", "»", ")", "]"))  # and every second of the straight double quotes
_LAST_TOKEN = re.compile(r"[^\s\"'“„‘‚«»‹›(\[—–:/]*$")
_LONGEST_TOKEN = 32
# What says how sentences begin here: the letter behind a word of three letters and a stop, or a stop that stands alone.
_BEGINNING = re.compile(
    rf"([.!?])(?:(?<=[^\W\d_]{{3}}.)|(?<=[^\W_] .)){_CLOSERS}(?:{_NOTE}|)[0-9]{{0,3}} "
    r"""["'`“„‘‚«»‹›(\[¿¡ ]*([^\W\d_])"""
)
_LETTER = re.compile(r"[^\W\d_]")

# Titles and the like: a name or a number follows, the sentence goes on.
_NEVER_LAST = frozenset(
    "mr mrs ms mx dr drs prof rev hon rt ste mt gen col maj brig capt cmdr comdr lt lieut sgt cpl pvt adm gov sen rep pres "
    "messrs mme mlle wm fr vs v cf viz approx ca eg ie e.g i.e nos vol ed eds fig eq sec ch chap pp op ser trans tr dir det "
    "syn".split()
)
# Abbreviations that are words or may end a sentence: the sentence goes on only before a number.
_BEFORE_NUMBER = frozenset(
    "no cap etc p pg ep art rs stat pub jan feb mar apr jun jul aug sep sept oct nov dec pt c b d r".split()
)
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
# The same in lower-cased text: abbreviations that go on before a small letter, too, and the few words that begin a sentence
# after "u.s." or "p.m." ("the u.s. in 1990 and …" says nothing).
_BEFORE_SMALL = frozenset("etc approx var subsp ssp spp sp cf incl esp resp max min lit orig al tel oz lb lbs hr hrs".split())
_STARTERS_SMALL = frozenset("he she it they we i you the this these there however meanwhile".split())
# "what?" he asked: behind a quoted question the sentence goes on to who says so.
_SPEAKER = re.compile(
    r"(?:[\w'’.-]+ ){0,3}?(?:said|says|asked|asks|cried|cries|replied|answered|shouted|yelled|screamed|whispered|muttered|"
    r"exclaimed|demanded|called|murmured|thought|added|began|continued|repeated|snapped|sighed|laughed|groaned|gasped|growled|"
    r"hissed|inquired|wondered|roared|shrieked|told|teased|joked|went)\b"
)

# Chinese and Japanese, Hindi and its neighbours, Urdu and Arabic, Amharic, Burmese, Khmer, Armenian; Tibetan; the doubled and
# mixed marks (!! as one character); then the rest of Unicode's Sentence_Terminal up to U+FFFF, from N'Ko to Javanese. Two word
# spaces are Amharic's stop, too. Between two characters of Chinese or Japanese, ASCII's stops do the same, and in Greek a
# semicolon asks.
_WIDE = "。！？｡．।॥۔؟።፧፨။។៕։།༎༏༐༑༔‼‽⁇⁈⁉﹒﹖﹗߹܀܁܂᠃᠉᥄᥅꫰꫱꯫᱾᱿᰻᰼꩝꩞꩟꤯꣎꣏؝؞⸮⸼࠷࠹࠽࠾᙮᜵᜶᪨᪩᪪᪫᭚᭛᭞᭟꓿꘎꘏꛳꛷꡶꡷꧈꧉"
_HAN = "\u3041-\u30ff\u3400-\u9fff"
_GREEK_QUESTION = r"""(?<=[\u0386-\u03ff\u1f00-\u1fff]);(?= ["'«“]*[\u0386-\u03ab])"""
_WIDE_STOP = re.compile(
    rf"(?:፡፡|{_GREEK_QUESTION}|[{_WIDE}!?.…]+(?:(?<=[{_WIDE}])|(?<=[{_HAN}][!?.])(?=[{_HAN}]))\ufe0f?)"
    rf"""([」』”’）】》〉〕"'»)\]]*)(?:[,，]?(?:{_BRACKETED}|[⁰¹²³⁴-⁹①-⑳]))*( ?)"""
)
_WIDE_TEXT = re.compile(f"[{_WIDE}፡{_HAN}]")
_GREEK_TEXT = re.compile(_GREEK_QUESTION)  # apart: seven times as fast where there is no semicolon
_NEVER_FIRST = frozenset("、，,；;：:）)」』”’】》།")  # the last one stands alone in Tibetan, too
_QUOTING = frozenset(
    "とっ他她它我你問问說说道喊叫"
)  # behind a quoted question, as a speaker is in English; と behind any quote


def split_sentences(paragraph: str) -> list[str]:
    """The sentences, in order, of a paragraph with one space between words: white space aside, joined they are the paragraph.

    A space that stood between two of them is in neither.
    """
    if not paragraph.isascii() and (_WIDE_TEXT.search(paragraph) or (";" in paragraph and _GREEK_TEXT.search(paragraph))):
        return [sentence for piece in _wide_pieces(paragraph) for sentence in _split(piece)]
    return _split(paragraph)


def _wide_pieces(paragraph: str) -> Iterator[str]:
    """The paragraph cut behind the stops that need no space."""
    start = 0
    for match in _WIDE_STOP.finditer(paragraph):
        end = match.end()
        if end == len(paragraph):
            break
        stop, first = paragraph[match.start(1) - 1], paragraph[end]
        quoted = match[1] and (first in "とっ" or (stop in "！？!?" and first in _QUOTING))
        if quoted or first in _NEVER_FIRST or (stop == "．" and first.isdigit()):
            continue
        yield paragraph[start : match.start(2)]
        start = end
    yield paragraph[start:]


def _split(paragraph: str, lower: bool = False) -> list[str]:
    """The sentences of a paragraph whose stops are followed by a space; lower: it is known to be lower-cased."""
    sentences, start = [], 0
    passed = capitals = 0  # stops before a small letter, and sentences that begin with none
    quotes, counted = 0, 0
    known = _ABBREVIATIONS | _BEFORE_SMALL if lower else _ABBREVIATIONS
    for match in _STOP.finditer(paragraph):
        between, following = match.groups()
        small = following > "Z" and following.islower()  # iPhone is not
        if small and not lower:
            passed += 1
            continue
        stop, end = match.span()
        if stop and paragraph[stop - 1] in _STOPS:
            stop = _first_of_row(paragraph, stop)
        if between and " " in between:
            quotes, counted = quotes + paragraph.count('"', counted, end), end
            end += _closed_alone(between, bool(quotes % 2))
        if small and _is_within(paragraph, stop, end, match.start(2)):
            continue
        if paragraph[stop] == "." and paragraph[stop + 1] != ".":  # "!", "?", "…" and "..." abbreviate nothing
            token = paragraph[max(start, paragraph.rfind(" ", start, stop) + 1) : stop]
            plain = len(token) > 1 and token.isalpha() and token.lower() not in known
            if not plain:
                noted = "0" <= paragraph[match.end() - 2] <= "9"  # ".455 Webley", "3.5 Million": no footnotes
                if noted or _is_abbreviated(paragraph, start, stop, following, lower):
                    continue
        sentences.append(paragraph[start : end - 1])
        capitals += not small and not following[0].isdigit()  # a number says nothing of how sentences begin
        start = end
    if passed > 2 * capitals and _is_lower_cased(paragraph):
        return _split(paragraph, lower=True)
    sentences.append(paragraph[start:])
    return sentences


def _is_lower_cased(paragraph: str) -> bool:
    """Whether more than twice as many sentences begin with a small letter as with a capital, the first one included.

    A small letter behind "!" or "?" says nothing ("Oh! how grateful").
    """
    small = capital = 0
    if first := _LETTER.search(paragraph):
        small, capital = int(first[0].islower()), int(not first[0].islower())
    for match in _BEGINNING.finditer(paragraph):
        word = paragraph[max(0, match.start() - _LONGEST_TOKEN) : match.start()].rpartition(" ")[2].lower()
        if word not in _ABBREVIATIONS and word not in _BEFORE_SMALL:
            small += match[2].islower() and match[1] == "."
            capital += not match[2].islower()
    return small > 2 * capital


def _first_of_row(paragraph: str, stop: int) -> int:
    """Where the row of stops begins that ends at `stop`."""
    while stop and paragraph[stop - 1] in _STOPS:
        stop -= 1
    return stop


def _closed_alone(between: str, is_quoted: bool) -> int:
    """How many characters of the marks between a stop and the next word are closing marks that stand alone.

    is_quoted: a straight double quote would close.
    """
    closed = 0
    for mark in between.split(" ")[:-1]:  # the last one, maybe "", is the word's
        if mark not in _CLOSING_ALONE and not (mark == '"' and is_quoted):
            break
        is_quoted &= mark != '"'
        closed += len(mark) + 1
    return closed


def _is_within(paragraph: str, stop: int, end: int, word: int) -> bool:
    """Whether the sentence goes on with the small letter at `word` in lower-cased text, whatever stands before the stop.

    It may after an ellipsis and after a question in brackets, and does after a quoted question if somebody then asks it.
    """
    alone = paragraph[max(0, stop - 3) : stop]  # before the last stop of " . . ."
    if (
        paragraph[stop] == "…"
        or paragraph[stop + 1] in _STOPS[0] + _STOPS[3]
        or (alone[-2:] == ". " and alone[:-2] in ("", " "))
    ):
        return True
    marks = frozenset(paragraph[stop:end])
    if paragraph[stop] == "." or not marks & _CLOSING:
        return False
    return ")" in marks or bool(_SPEAKER.match(paragraph, word))


def _is_abbreviated(paragraph: str, start: int, stop: int, following: str, lower: bool) -> bool:
    """Whether the stop is part of an abbreviation, an initial or a list number.

    start: where the sentence begins. following: the next word. lower: in lower-cased text.
    """
    alone = stop > start + 1 and paragraph[stop - 1] == " "
    end = stop - alone
    token = paragraph[max(start, paragraph.rfind(" ", start, end) + 1) : end]
    if alone and "." in token:  # "the U.S. ."
        return False
    match = _LAST_TOKEN.search(token[-_LONGEST_TOKEN:])
    assert match is not None  # it may match nothing, but it matches
    before, token = token[: -len(match[0])][-1:], match[0].rpartition("--")[2]
    if token.isdigit():  # "1. First": the number of an item, not a sentence
        return end - start == len(token) < 4 or (alone and following[0].isdigit())  # "3 . 5"
    folded = token.lower()
    if folded in _NEVER_LAST or (folded in _BEFORE_NUMBER and following[0].isdigit()):
        return True
    small = lower and following.islower()
    if small and folded in _BEFORE_SMALL:
        return True
    initial = len(token) == 1 and (token.isupper() or (lower and token.isalpha() and before not in ("'", "’")))  # "don't"
    dotted = "." in token and all(len(part) <= 2 and not part.isdigit() for part in token.split("."))
    if initial or dotted or folded in _MAYBE_LAST:
        next_word = following.lower()
        if small:
            return next_word not in _STARTERS_SMALL or (initial and next_word == "i" and folded != "i")
        if next_word == "i":  # "J. I. Smith", but "No more do I. I know."
            return initial and token != "I"
        return next_word not in _STARTERS or (initial and next_word == "a")
    return False
