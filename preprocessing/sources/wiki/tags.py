"""HTML and extension tags: which show what they hold, which hide it, where they end, and what is left of broken ones.

Shown, as text: formatting (i, span, code, tt, kbd, samp, var, …), blocks (p, div, blockquote, poem), nowiki (as it is
written). Hidden: references, galleries, formulas (math, chem), music, maps, and code that stands in blocks (pre,
syntaxhighlight, source; with `inline` its text is part of the sentence and shown). What is hidden is counted by kind.
"""

# ruff: noqa: SIM905 (lists of words are best read as words)
import re
from typing import NamedTuple

from preprocessing.sources.wiki import units

BLOCK = frozenset("p div center blockquote poem li dt dd ul ol dl br hr h1 h2 h3 h4 h5 h6 tabber td tr th caption".split())
INLINE = frozenset(
    "b i u s em strong strike del ins small big sub sup span font code tt kbd samp var cite dfn abbr q bdi bdo ruby rb rp rt "
    "rtc mark time data wbr nobr a noinclude onlyinclude translate tvar languages langconvert tbody thead tfoot col "
    "colgroup nowiki section table labelledlist dynamicpagelist acronym noautolinks".split()
)
# Tags whose content is no wiki markup, or is not shown, by what the account calls them.
_KINDS = {
    "reference": "ref references",
    "gallery": "gallery",
    "formula": "math chem ce",
    "graphic": "timeline score hiero graph chart imagemap mapframe maplink phonos",
    "code": "syntaxhighlight source pre",
    "form": "inputbox categorytree indicator templatedata listing templatestyles style script",
    "table": "table",
    "template part": "includeonly",
}
HIDDEN = {tag: kind for kind, tags in _KINDS.items() for tag in tags.split()}
LITERAL = frozenset(["nowiki"])
KNOWN = BLOCK | INLINE | HIDDEN.keys()

_OPEN = re.compile(r"<(?:(/)[^\S\n]*)?([A-Za-z][A-Za-z0-9:-]*)((?:[\s/][^<>]*)?)>")
_BROKEN = re.compile(
    r"""<(?:/[^\S\n]*)?([A-Za-z][A-Za-z0-9]*)(?=[\s/=<]|$)(?P<attributes>(?:\s*[\w-]+\s*=\s*(?:"[^"<>\n]*"|'[^'<>\n]*'|["']?[^\s<>"']+))*)"""
    r"[^\S\n]*/?"
)
_EXTENSION = re.compile(r"\.(?:jpe?g|png|svg|gif|tiff?|webp|webm|og[gv]|pdf|djvu)[^\S\n]*(?:\||$)", re.IGNORECASE)
_INDEX = re.compile(r"\s*([-−–+]?\d+)\s*</su[bp]\s*>", re.IGNORECASE)
_INLINE_CODE = re.compile(r"\binline\b", re.IGNORECASE)


class Tag(NamedTuple):
    """One tag: its name in small letters, where it ends, what kind it is."""

    name: str
    end: int
    closing: bool = False
    empty: bool = False
    attributes: str = ""


def tag_at(text: str, at: int) -> Tag | None:
    """The tag, whole or broken off, that begins at text[at] == "<"; None: no tag that MediaWiki knows, so author's text."""
    found = _OPEN.match(text, at)
    if found:
        name = found[2].lower()
        attributes = found[3]
        if name not in KNOWN:
            return None
        return Tag(name, found.end(), found[1] == "/", attributes.endswith("/"), attributes)
    broken = _BROKEN.match(text, at)
    if broken is None or broken[1].lower() not in KNOWN:
        return None
    if broken["attributes"] or text[broken.end() : broken.end() + 1] in ("", "<", "\n"):
        return Tag(broken[1].lower(), broken.end(), text[at + 1] == "/", True, broken["attributes"])
    return None


_MOST_SEARCHES = 20  # to the end of a page, for tables in tables that are not all closed


def _edge(name: str) -> re.Pattern[str]:
    name = re.escape(name)
    return re.compile(rf"<(?:(/)[^\S\n]*{name}\s*(?:>|(?=[<\n]|$))|{name}(?=[\s/>])[^<>]*>?)", re.IGNORECASE)


_EDGES = {name: _edge(name) for name in (*HIDDEN, *LITERAL)}


class Closings:
    """Where extension tags of one text end. Linear: what is not found from somewhere on is not looked for again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._none: set[str] = set()
        self._searches = 0

    def find(self, tag: Tag) -> tuple[int, int] | None:
        """Where the tag's content ends, and where what closes it does. None: it is never closed, or only after another of
        its name has been opened (a table's own, nested, are counted)."""
        if tag.name in self._none:
            return None
        depth, at = 1, tag.end
        while edge := _EDGES[tag.name].search(self._text, at):
            at = edge.end()
            if edge[1]:
                depth -= 1
                if depth == 0:
                    return edge.start(), edge.end()
            elif not edge[0].rstrip(">").endswith("/"):
                if tag.name not in ("table", *LITERAL):
                    return None
                depth += tag.name == "table"
        self._searches += 1
        if depth == 1 or self._searches > _MOST_SEARCHES:  # nothing closes any that follow, either
            self._none.add(tag.name)
        return None


def index_behind_digit(text: str, tag: Tag) -> tuple[str, int] | None:
    """Behind a digit, what <sup>6</sup> or <sub>2</sub> is shown as, and where it ends: 10⁶ is not 106. None: no number."""
    index = _INDEX.match(text, tag.end) if tag.name in ("sup", "sub") and not tag.closing and not tag.empty else None
    return (units.power(index[1]) if tag.name == "sup" else units.lowered(index[1]), index.end()) if index else None


def is_inline_code(tag: Tag) -> bool:
    """<syntaxhighlight inline>, <source inline>."""
    return tag.name in ("syntaxhighlight", "source") and _INLINE_CODE.search(tag.attributes) is not None


_LONGEST_ENTRY = 4000  # characters of a gallery's line: a page that is one line takes no long time


def end_of_gallery(text: str, at: int) -> int:
    """Behind a gallery's tag that is never closed: where the lines that name files end."""
    reached = at
    while at < len(text):
        begin = at + 1 if text.startswith("\n", at) else at
        end = text.find("\n", begin, begin + _LONGEST_ENTRY)
        end = min(len(text), begin + _LONGEST_ENTRY) if end < 0 else end
        line = text[begin:end]
        if _EXTENSION.search(line):
            reached = end
        elif line.strip():
            break
        at = max(end, at + 1)
    return reached
