"""The rules of cleaning once more, slow and readable, each over all lines in turn."""

import re
import unicodedata
from itertools import pairwise

from preprocessing.text import clean as rules


def reference_paragraphs(text: str) -> list[str]:
    """All of the text, character by character, before any line is looked at."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = unicodedata.normalize("NFC", text)
    text = text.translate(dict.fromkeys((*range(9), *range(14, 32), 127)))
    shown: list[str] = []
    for character in text:
        joiner = character in "\u200c\u200d"
        if unicodedata.category(character) != "Cf" or (joiner and shown and takes_joiners(shown[-1])):
            shown.append(character)
    text = "".join(shown)
    lines = (" ".join(line.split()) for line in re.split(r"[\n\r\v\f\x85\u2028\u2029]+", text))
    return [line for line in lines if re.search(r"[^\W_]", line)]


def takes_joiners(character: str) -> bool:
    name = unicodedata.name(character, "")
    return name.startswith(("ARABIC", "DEVANAGARI", "SINHALA", "MALAYALAM")) or 0x1F000 <= ord(character) < 0x1FB00


def reference_clean(text: str) -> list[str]:
    """Each rule over all lines in turn, without the fast code's looks ahead."""
    lines = [re.sub(r"( ?\[ ?edit( ?\| ?edit source)? ?\])+$", "", line, flags=re.I) for line in reference_paragraphs(text)]
    kept: list[str] = []
    marks = []
    for line in filter(None, lines):
        match = rules._BOILERPLATE.match(line)
        if match and (match["start"] or match["end"]):
            marks.append((len(kept), bool(match["start"])))
        elif not match:
            kept.append(line)
    if marks:  # header [start] text [end] licence, header [start] text …
        edges = [(0, None), *marks, (len(kept), None)]
        pieces = []
        for number, ((begin, opened), (end, opens)) in enumerate(pairwise(edges)):
            header = number == 0 and opens and end - begin <= rules._GUTENBERG_LINES
            pieces += [] if header else kept[begin:end][rules._GUTENBERG_LINES if opened is False else 0 :]
        kept = pieces
    return [line for i, line in enumerate(kept) if not reference_is_heading(kept, i)]


def reference_is_heading(lines: list[str], i: int) -> bool:
    def short(k: int) -> bool:
        return len(lines[k]) <= 120

    def sure(k: int) -> bool:
        known = lines[k].rstrip(".:").lower() in rules._TITLES or rules._CHAPTER.match(lines[k])
        return short(k) and lines[k][0].isalnum() and bool(known)

    def stands_open(k: int) -> bool:
        return 0 <= k < len(lines) and short(k) and lines[k][0].isalnum() and lines[k][-1].isalnum() and not sure(k)

    if sure(i) or not stands_open(i):
        return sure(i)
    first, last = i, i
    while stands_open(first - 1):
        first -= 1
    while stands_open(last + 1):
        last += 1
    run = lines[first : last + 1]
    goes_on = first > 0 and not sure(first - 1) and (lines[first - 1][-1].isalnum() or lines[first - 1][-1] in ",;:—–-")
    before_prose = last + 1 == len(lines) or sure(last + 1) or not short(last + 1) or all(line.isupper() for line in run)
    few = all(len(line.split()) <= 3 for line in run) or all(line.isupper() for line in run)
    titles = all(rules._is_title_like(line) for line in run)
    return titles and not goes_on and before_prose and (len(run) == 1 or (len(run) <= 3 and few))
