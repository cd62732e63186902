"""From raw text to clean paragraphs: normalise, drop the lines that are no prose, count words, fingerprint.

The rules for lines are in the spirit of C4 (Raffel et al. 2020, section 2.2), but C4's "keep a line only if it ends in
punctuation" would take verse, and dialogue cut at a comma, out of novels. When in doubt a line stays.

Speed: a line that is printable needs no character mended, and str.isprintable says so at gigabytes a second; only the
others go through the slow steps.
"""

# ruff: noqa: SIM905 (lists of words are best read as words)
import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from typing import NamedTuple

CLEANING_VERSION = 4
"""Raise it when a rule changes what a corpus holds: a corpus cleaned by other rules is another corpus."""

# Unicode's category Cf, which shows nothing: soft hyphens, zero-width spaces, marks of direction, tags. Without the two
# joiners, which decide how letters look and what an emoji is, and stay where they do (`LOOSE_JOINER`).
_FORMAT = (
    *(0xAD, *range(0x600, 0x606), 0x61C, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x180E, 0x200B, 0x200E, 0x200F),
    *(*range(0x202A, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC), 0x110BD, 0x110CD),
    *(*range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), 0xE0001, *range(0xE0020, 0xE0080)),
)
CONTROLS = dict.fromkeys((*range(9), *range(14, 32), 127, *_FORMAT))
# A joiner behind anything but a letter or mark of Hebrew, Arabic, Syriac, N'Ko, an Indic script, Tibetan, Burmese, Khmer,
# Mongolian, Balinese, Javanese and their like, or an emoji.
LOOSE_JOINER = re.compile(
    "(?<![\u0590-\u08ff\u0900-\u109f\u1700-\u18af\u1900-\u1c7f\ua800-\uabff\ufb1d-\ufdff\ufe70-\ufefc\ufe0f"
    "\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\U00010a00-\U00011fff\U0001f000-\U0001faff])[\u200c\u200d]+"
)
# Scripts written without spaces: Han and kana, of which a word has two on average; Thai, Lao, Khmer and Burmese, with four.
_UNSPACED = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
    "|([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+)"
)
_IS_UNSPACED = re.compile(_UNSPACED.pattern.replace("]+|([", "").replace("]+)", "]"))
_UNSPACED_WORD, _UNSPACED_WORD_ALPHABETIC = 2, 4
_WORDLIKE = re.compile(r"[^\W_]")

NO_LETTER, HEADING, BOILERPLATE = "no letter", "heading", "boilerplate"

# Titles of sections that stand at least 15 times as a line, most with a full stop ("History."), in 15,136 articles of
# English Wikipedia and never in 60 novels, without those that a novel could say ("Death.", "Family.", "Final.").
_TITLES = frozenset(
    "history; career; biography; early life; background; personal life; plot; reception; references; education; "
    "early life and education; awards; production; overview; early years; critical reception; aftermath; "
    "political career; geography; development; international career; legacy; early career; external links; location; "
    "release; synopsis; professional career; plot summary; music video; see also; early life and career; works; design; "
    "club career; later life; demographics; construction; controversy; publications; life and career; playing career; "
    "track listing; politics; distribution; gameplay; world war i; world war ii; taxonomy; features; origins; honours; "
    "honors; notes; etymology; research; architecture; critical response; characters; college career; "
    "distribution and habitat; personnel; early history; bibliography; athletics; recognition; soundtrack; singles; "
    "structure; military career; economy; composition; format; coaching career; chart performance; results; summary; "
    "later years; criticism; ecology; facilities; life and work; in popular culture; popular culture; sources; cast; "
    "television; scoring summary; exhibitions; origin; operations; sports; activities; publication history; "
    "death and legacy; casting; themes; route description; organization; transportation; uses; honors and awards; "
    "education and career; conservation; content; contents; discography; box office; causes; products; campus; climate; "
    "promotion; controversies; filming; academic career; administration; media; philanthropy; equipment; "
    "characteristics; culture; further reading; services; style; impact; treatment; reviews; formation; "
    "design and development; habitat; transport; demography; funding; filmography; recordings; recreation; premise; "
    "classification; awards and recognition; awards and nominations; awards and honors; awards and honours; influences; "
    "albums; home media; rugby career; high school career; academics; military service; operational history; "
    "introduction; later career; citations; live performances; route; applications; ratings; definition; "
    "notes and references; references and notes; footnotes; works cited; external pages; image gallery; gallery".split("; ")
)
_LONGEST_TITLE = max(map(len, _TITLES)) + 1
_NUMERAL = r"(?:\d{1,4}|(?=[ivxlc])c{0,3}(?:x[cl]|l?x{0,3})(?:i[xv]|v?i{0,3}))"
_ORDINAL = "one|two|three|four|five|six|seven|eight|nine|ten|(?:the )?(?:first|second|third|fourth|fifth|sixth|last)"
_CHAPTER = re.compile(
    rf"(?:chapter|book|part|volume|vol\.|act|scene|canto|phase|stave|section|appendix) (?:{_NUMERAL}|{_ORDINAL})\b"
    r"(?:\.?$|\.? ?(?:--?|[—–:.]) ?(?=\S).{1,80}$)"  # the number alone, or a separator and the chapter's name
    rf"|{_NUMERAL}\.?$|[12]\d\d0s\.?$"
    r"|(?-i:[IVXLC]+\. (?=[A-Z])[^.]{1,60}$)",  # "XII. The Fellow of Delicacy"
    re.IGNORECASE,
)
_FIRST_OF_NUMERALS = "0123456789IVXLCivxlc"
_CHAPTERS = frozenset("boo par vol act sce pha sta sec app".split())
# A line that holds one of these says something: "Nan replied with decision", "in which", "The energy is".
_PROSE_WORDS = frozenset(
    "i he she we you they it me him us them is are was were be been am has have had do does did will would shall should "
    "can could may might must said says say cried replied answered asked thought went came comes goes gives gave get got "
    "make made take took see saw know knew think want let not which who whom that this these those return returns if "
    "when while where because as than or so thus then".split()
)
_UNFINISHED = frozenset("a an the and or but of to in on at by for from with as is are was into upon notably following".split())
_HEADING_WORDS, _HEADING_WORDS_CAPITALS = 6, 12
_LONGEST_HEADING = 120

_GUTENBERG_START = r"\*{2,3}[ ]?START[ ]OF[ ](?:TH[EI]S?[ ])?PROJECT[ ]GUTENBERG|\*END\*?[ ]?THE[ ]SMALL[ ]PRINT"
_GUTENBERG_END = (
    r"\*{2,3}[ ]?END[ ]OF[ ](?:TH[EI]S?[ ])?PROJECT[ ]GUTENBERG|End[ ]of[ ](?:the[ ]|this[ ])?Project[ ]Gutenberg(?:'s|’s)?[ ]"
)
_GUTENBERG_LINES = 500
"""Neither a header nor the licence after the text is longer; a mark with more lines before it heads nothing."""

# What pages add around the text. Each alternative is tried at the beginning of a line only; what repeats can be read one way,
# lest a long row of addresses or bars takes exponential time. (No possessive quantifiers: Python 3.11.2 gets them wrong.)
_BOILERPLATE = re.compile(
    rf"""(?i:(?P<start>{_GUTENBERG_START})|(?P<end>{_GUTENBERG_END}))
    |\[?\[?(?:Category|File|Image):\S
    |\[?(?:(?:https?|ftp)://|www\.)\S+(?:[ ](?:and[ ]|[|][ ])?\[?(?:https?://|www\.)\S+)*$
    |(?i:(?:this|the)[ ](?:ebook|etext)[ ]is[ ]for[ ]the[ ]use[ ]of[ ]anyone)
    |(?i:(?:the[ ])?project[ ]gutenberg(?:['’]s)?[ ](?:ebook|etext|license|literary[ ]archive[ ]foundation)\b)
    |(?i:(?:e-?text[ ])?(?:produced|prepared|transcribed)[ ]by[ ].{{1,160}}(?:distributed[ ]proofread|pgdp\.net|gutenberg))
    |(?i:jump[ ]to[ ](?:navigation|search|content)|skip[ ]to[ ](?:main[ ])?content|back[ ]to[ ]top)
    |Retrieved[ ]from[ ]["“]?https?:|From[ ]Wikipedia,[ ]the[ ]free[ ]encyclopedia\.?$
    |This[ ].{{1,80}}[ ]is[ ]a[ ]stub\.[ ]You[ ]can[ ]help[ ]Wikipedia
    |(?i:all[ ]rights[ ]reserved\.?$|(?:terms[ ]of[ ](?:use|service)|privacy[ ]policy|cookie[ ]policy)(?:[ ]?[|•·]|\.?$))
    |[^\s|»]+(?:[ ][^\s|»]+){{0,2}}(?:[ ][|»][ ][^\s|»]+(?:[ ][^\s|»]+){{0,2}}){{2,}}$""",  # Home | News | About us
    re.VERBOSE,
)
# How a line that the expression may match begins, "|" and "»" aside: to look here first takes half the time of clean.
_BEGINNINGS = frozenset(
    "*** **s **e *en end cat fil ima [ca [fi [im [[c [[f [[i htt ftp www [ht [ft [ww thi the pro e-t ete pre tra "
    "jum ski bac ret fro all ter pri coo".split()
)
_EDIT_MARK = re.compile(r" ?\[ ?edit(?: ?\| ?edit source)? ?\]$", re.IGNORECASE)
_LONGEST_EDIT_MARK = len(" [ edit | edit source ]")


class Cleaned(NamedTuple):
    """A document's paragraphs, and how many lines each rule dropped (only rules that dropped one)."""

    paragraphs: list[str]
    dropped_lines: dict[str, int]


def clean(text: str) -> Cleaned:
    """The text's paragraphs (as `paragraphs`), without headings and boilerplate: see this file's rules."""
    kept: list[str] = []
    dropped: Counter[str] = Counter()
    marks: list[tuple[int, bool]] = []  # Project Gutenberg's: how many lines are kept before it, does the text start here?
    bars = "|" in text or "»" in text
    for line in _lines(text):
        if not line[0].isalnum() and not _WORDLIKE.search(line):
            dropped[NO_LETTER] += 1
            continue
        if line[-1] == "]":
            line = _without_edit_marks(line)
        mark = _BOILERPLATE.match(line) if bars or line[:3].lower() in _BEGINNINGS else None
        if mark or not line:
            dropped[BOILERPLATE] += 1
            if mark and (mark["start"] or mark["end"]):
                marks.append((len(kept), mark["start"] is not None))
        else:
            kept.append(line)
    if marks:
        body = _without_gutenberg(kept, marks)
        dropped[BOILERPLATE] += len(kept) - len(body)
        kept = body
    if headings := _headings(kept):
        dropped[HEADING] = len(headings)
        kept = [line for i, line in enumerate(kept) if i not in headings]
    return Cleaned(kept, dict(dropped))


def paragraphs(text: str) -> list[str]:
    """The text's paragraphs (separated by any line break), NFC, one space between words.

    Controls and what shows nothing (category Cf) are dropped, but joiners where they carry meaning; lone surrogates (JSON
    can hold them, UTF-8 cannot) become U+FFFD; lines without a letter or digit (rules such as =====) are left out.
    """
    return [line for line in _lines(text) if line[0].isalnum() or _WORDLIKE.search(line)]


def count_words(document: list[str]) -> int:
    """Words of a document's paragraphs: what stands between spaces; of scripts without spaces, as many as would be usual."""
    words = "\n".join(document).count(" ") + len(document)
    for paragraph in document:
        if not paragraph.isascii() and _IS_UNSPACED.search(paragraph):
            words += _words_without_spaces(paragraph) - paragraph.count(" ") - 1
    return words


def _words_without_spaces(paragraph: str) -> int:
    words = 0
    for run in _UNSPACED.finditer(paragraph):
        words += -(-len(run[0]) // (_UNSPACED_WORD_ALPHABETIC if run[1] else _UNSPACED_WORD))
    return words + sum(any(map(str.isalnum, word)) for word in _UNSPACED.sub(" ", paragraph).split())


def digest(document: list[str]) -> bytes:
    """16 bytes that two documents share only if their paragraphs are the same."""
    return hashlib.blake2b("\n".join(document).encode(), digest_size=16).digest()


def _lines(text: str) -> list[str]:
    """The lines that are not empty, normalised."""
    if "\x1c" in text or "\x1d" in text or "\x1e" in text:  # controls to be dropped, but splitlines breaks at them
        text = unicodedata.normalize("NFC", _without_surrogates(text)).translate(CONTROLS)
    elif not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    # What _mended mends, and all white space but " ", is not printable. The text is asked first, then each line.
    if "  " not in text and text.replace("\n", "").isprintable():
        return [line for wide in text.splitlines() if (line := wide.strip(" "))]
    mended = (" ".join(line.split()) if line.isprintable() else _mended(line) for line in text.splitlines())
    return [line for line in mended if line]


def _mended(line: str) -> str:
    """The line without controls and lone surrogates, one space between words."""
    whole = _without_surrogates(line)
    if whole != line:
        whole = unicodedata.normalize("NFC", whole)  # two surrogates may have become one character
    whole = whole.translate(CONTROLS)
    if "\u200c" in whole or "\u200d" in whole:
        whole = LOOSE_JOINER.sub("", whole)
    return " ".join(whole.split())


def _without_surrogates(text: str) -> str:
    """The text with pairs of surrogates joined and lone ones replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _without_edit_marks(line: str) -> str:
    while mark := _EDIT_MARK.search(line, max(0, len(line) - _LONGEST_EDIT_MARK)):
        line = line[: mark.start()]
    return line


def _without_gutenberg(lines: list[str], marks: list[tuple[int, bool]]) -> list[str]:
    """The lines without the header before the first mark, if that is a start, and the licence after each end."""
    body: list[str] = []
    begin, after_end = 0, False
    for i, (end, is_start) in enumerate([*marks, (len(lines), False)]):
        piece = lines[begin:end]
        if after_end:
            piece = piece[_GUTENBERG_LINES:]
        elif i == 0 and is_start and len(piece) <= _GUTENBERG_LINES:
            piece = []
        body += piece
        begin, after_end = end, not is_start
    return body


def _headings(lines: list[str]) -> set[int]:
    """Which lines are headings: known titles, chapters' numbers, and one to three short lines that stand open before prose."""
    short = [i for i, line in enumerate(lines) if len(line) <= _LONGEST_HEADING and line[0].isalnum()]
    sure = {i for i in short if _is_title(lines[i])}
    opened = [i for i in short if i not in sure and lines[i][-1].isalnum()]
    found = set(sure)
    for _, neighbours in itertools.groupby(enumerate(opened), key=lambda pair: pair[1] - pair[0]):
        run = [i for _, i in neighbours]
        if _stand_alone(run, lines, sure):
            found.update(run)
    return found


def _is_title(line: str) -> bool:
    """Whether the line by itself is a heading: a known section title or a chapter's number."""
    if len(line) <= _LONGEST_TITLE and line.rstrip(".:").lower() in _TITLES:
        return True
    return (line[0] in _FIRST_OF_NUMERALS or line[:3].lower() in _CHAPTERS) and _CHAPTER.match(line) is not None


def _stand_alone(run: list[int], lines: list[str], sure: set[int]) -> bool:
    """Whether these open lines, one after the other, are headings, and not verse, a list, or prose cut in two."""
    before, after = run[0] - 1, run[-1] + 1
    if before >= 0 and before not in sure and (lines[before][-1].isalnum() or lines[before][-1] in ",;:—–-"):
        return False
    capitals = all(lines[i].isupper() for i in run)
    if after < len(lines) and after not in sure and len(lines[after]) <= _LONGEST_HEADING and not capitals:
        return False
    few = all(lines[i].count(" ") < 3 for i in run)
    return all(_is_title_like(lines[i]) for i in run) and (len(run) == 1 or (len(run) <= 3 and (few or capitals)))


def _is_title_like(line: str) -> bool:
    """Whether an open line names something and says nothing."""
    words = line.lower().split()
    if not (line[0].isupper() or line[0].isdigit()) or words[-1] in _UNFINISHED or not _PROSE_WORDS.isdisjoint(words):
        return False
    if line.isupper():
        return len(words) <= _HEADING_WORDS_CAPITALS
    verbs = any(word.endswith("ed") for word in line.split()[1:] if word.islower())
    return len(words) <= _HEADING_WORDS and not verbs and not re.search(r"[,;!?|=<>]", line)
