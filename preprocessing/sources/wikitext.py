"""Wiki markup as plain paragraphs, one a line: the words of the prose, link texts and headings, and nothing else.

`wiki.scan` takes templates, links, tables and tags out and leaves marks; here the lines are laid out: headings, lists,
apostrophes, addresses, entities (decoded once, last), and punctuation, which is repaired beside marks only.
"""

import html.entities
import re
from collections.abc import Iterator

from preprocessing.sources.wiki.marks import CONTROLS, GAP, HEADING, KEEP, NOTE, SEAM
from preprocessing.sources.wiki.names import Site, is_switch
from preprocessing.sources.wiki.quotes import without_quotes
from preprocessing.sources.wiki.removed import Removed
from preprocessing.sources.wiki.repair import without_gaps, without_notes
from preprocessing.sources.wiki.scan import TooManyMarks, scan


class UnreadableMarkup(ValueError):
    """A page whose markup would take too long."""


_SCHEMES = "https?|ftps?|sftp|ircs?|gopher|telnet|nntp|news|svn|git|ssh|mailto|tel|sms|urn|geo|magnet|xmpp|sips?|mms"
_ADDRESS = rf"[^\s\[\]<>\"{GAP}{NOTE}{SEAM}{KEEP}]"
_LINK = re.compile(rf"\[(?:(?:{_SCHEMES}):|//)([^\]\n]{{0,600}})\]", re.IGNORECASE)
_FIRST_ADDRESS = re.compile(rf"{_ADDRESS}*")
_BARE = re.compile(rf"\[?\b(?:https?|ftps?)://{_ADDRESS}*[^\s\[\]<>\"{GAP}{NOTE}{SEAM}{KEEP},.;:!?)'”»](\)*)", re.IGNORECASE)
_SWITCH = re.compile(r"__(\w+?)__")
_KEPT = re.compile(f"{KEEP}(\\d+){KEEP}")
_ENTITY = re.compile(r"&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z][A-Za-z0-9]{1,31}));")
_HEADING = re.compile(r"(={1,6})(.+?)(={1,6})$")
_LIST = re.compile(rf"[{GAP}{SEAM}\s]*([*#:;]+)")
_PROSE = re.compile(rf"[{GAP}{NOTE}{SEAM}]*[\"“”‘’'«»„(\[{KEEP}]*(?!\d{{1,3}}[.)])[^\W_]")  # a line of it begins like this
_RULE = re.compile(rf"[{GAP}{NOTE}{SEAM}]*-{{4,}}")
_LEFT_OVER = re.compile(r"\|(?:[-}+]|[^|]*\|\||[^|=]{0,60}=[^|]*\|)|\{\||![^!\n]*!!")
_TERM = re.compile(r":\s")


def plain_text(wikitext: str, site: Site | None = None, removed: Removed | None = None) -> str:
    """The prose of a page: paragraphs, list items and headings, one a line. `removed` gets the account of what is left out.

    UnreadableMarkup: the page has more markup than can be read in seconds.
    """
    removed = Removed() if removed is None else removed
    kept: list[str] = []
    try:
        text = scan("\n" + CONTROLS.sub("", wikitext), site or Site(), removed, kept)
    except TooManyMarks as error:
        raise UnreadableMarkup(str(error)) from None
    text = _without_addresses(text, removed)
    if "__" in text:
        text = _SWITCH.sub(lambda found: SEAM if is_switch(found[1]) else found[0], text)
    lines: list[str] = []
    for raw in _blocks(text):
        if raw and not raw.isspace():
            lines += _laid_out(raw, kept, removed)
    return "\n".join(_without_empty_sections(lines, removed))


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, list items, headings: a line of prose goes on with the next one, as a reader of the page sees it, unless an
    empty line or markup (BREAK) parts them. Apostrophes are balanced line by line."""
    block: list[str] = []
    goes_on = False
    for raw in text.split("\n"):
        is_prose = _PROSE.match(raw) is not None
        if block and not (goes_on and is_prose):
            yield " ".join(block)
            block = []
        block.append(without_quotes(raw) if "''" in raw else raw)
        goes_on = is_prose
    yield " ".join(block)


def _without_addresses(text: str, removed: Removed) -> str:
    if "[" in text:
        text = _LINK.sub(lambda found: _FIRST_ADDRESS.sub("", found[1], count=1).strip() or GAP, text)
    if "://" in text:
        text, count = _BARE.subn(_behind_address, text)
        removed.markup["address"] += count
    return text


def _behind_address(found: re.Match[str]) -> str:
    """Of the brackets that close behind an address, those that close none in it are the sentence's: (see http://x.org/a_(b))."""
    address, closing = found[0][: found.start(1) - found.start()], found[1]
    return GAP + closing[max(0, address.count("(") - address.count(")")) :]


def _laid_out(raw: str, kept: list[str], removed: Removed) -> list[str]:
    """The paragraph of a line of markup, or several, or none."""
    bare = raw.strip(f"{GAP}{NOTE}{SEAM} \t")
    if bare.startswith("=") and (heading := _HEADING.match(bare)):
        level = min(len(heading[1]), len(heading[3]))
        title = heading[1][level:] + heading[2] + heading[3][level:]
        shown = _paragraph(title, kept)
        return [f"{HEADING}{level}{shown}"] if shown else []
    if bare.startswith(("|", "!", "{|")) and _LEFT_OVER.match(bare):
        removed.lines["row of a broken table"] += 1
        return []
    parts = [raw]
    if listed := _LIST.match(raw):
        parts = [raw[listed.end() :]]
        if listed[1].endswith(";"):
            parts = _TERM.split(parts[0], maxsplit=1)
    elif rule := _RULE.match(raw):
        parts = [raw[rule.end() :]]
    shown_parts = [_paragraph(part, kept) for part in parts]
    if dropped := sum(bool(part) and not any(map(str.isalpha, part)) for part in shown_parts):
        removed.lines["no letter"] += dropped
    return [part for part in shown_parts if any(map(str.isalpha, part))]


def _paragraph(line: str, kept: list[str]) -> str:
    """One block's text."""
    line = line.replace(SEAM, "")
    if KEEP in line:
        line = _KEPT.sub(lambda found: kept[int(found[1])], line)
    if "&" in line:
        line = _ENTITY.sub(_character, line)
    if NOTE in line:
        line = without_notes(line)
    if GAP in line:
        line = without_gaps(line)
    return " ".join(line.split())


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; itself, if it stands for nothing."""
    decimal, hexadecimal, name = entity.groups()
    if name:
        return html.entities.html5.get(f"{name};", entity[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    if code in (9, 10, 13) or 0x20 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0x10000 <= code <= 0x10FFFF:
        return "" if 0x7F <= code < 0xA0 else chr(code)
    return entity[0]


def _without_empty_sections(lines: list[str], removed: Removed) -> list[str]:
    """Without the headings that nothing follows (a section of links or tables)."""
    kept: list[str] = []
    filled = [False] * 8  # for each level: is there text between here and the next heading of that level or above?
    for line in reversed(lines):
        if not line.startswith(HEADING):
            kept.append(line)
            filled = [True] * 8
            continue
        level = int(line[1])
        if filled[level]:
            kept.append(line[2:].strip())
        else:
            removed.lines["heading of an empty section"] += 1
        filled[level:] = [False] * (8 - level)
    return kept[::-1]
