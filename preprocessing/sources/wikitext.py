"""Wiki markup as plain paragraphs, one a line: the words of the prose, link texts and headings, and nothing else."""

# ruff: noqa: SIM905 (lists of words are best read as words)
import html
import re
from typing import Any


class UnreadableMarkup(ValueError):
    """mwparserfromhell gave up."""


_HIDDEN_TAGS = frozenset(
    "ref references gallery math chem ce table timeline score syntaxhighlight source pre imagemap hiero graph mapframe "
    "maplink templatestyles style script inputbox categorytree section indicator".split()
)
_BLOCK_TAGS = frozenset("br hr p div center blockquote poem li dt dd ul ol dl h1 h2 h3 h4 h5 h6".split())
# Templates whose argument is part of the sentence: name -> number of the argument.
_TEXT_TEMPLATES = {"lang": 2, "transl": 2, "nowrap": 1, "nobr": 1, "em": 1, "quote": 1, "quotation": 1, "blockquote": 1}
_HIDDEN_LINK = re.compile(r"(file|image|media|category|[a-z]{2,3}|[a-z]{2,3}-[a-z-]+|simple):", re.IGNORECASE)
_HEADING = "\x01"  # a heading's line: this, its level, its text; XML can hold no such character

_SWITCH = re.compile(r"__[A-Z]+__")
_QUOTES = re.compile(r"'{2,}")
_LEFTOVER = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|\bthumb\||^[|!]|</?ref\b")
_FIXES = (
    (re.compile(r"\\?\|"), ""),  # a link's or a template's bar
    (re.compile(r"[ \t\u00a0\u200b-\u200e\ufeff]+"), " "),
    (re.compile(r"([(\[]) ?(?:[,;:/–—-]+ ?)+"), r"\1"),  # ( , born …
    (re.compile(r" ?(?:[,;:/–—-]+ ?)+([)\]])"), r"\1"),
    (re.compile(r" ?(?:\( ?\)|\[ ?\])"), ""),
    (re.compile(r"([,;])(?: ?[,;])+"), r"\1"),
    (re.compile(r"([(\[]) "), r"\1"),
    (re.compile(r" (?=[)\]]|[,.;:](?:\s|$))"), ""),
    (re.compile(r" {2,}"), " "),
)


def plain_text(wikitext: str) -> str:
    """The prose of a page: paragraphs, list items and headings, one a line. UnreadableMarkup: the parser fails."""
    import mwparserfromhell

    try:
        # Without style tags: '' and ''' are often unbalanced, and then drag what follows along.
        code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
        text = _text(code)
    except (mwparserfromhell.parser.ParserError, RecursionError) as error:
        raise UnreadableMarkup(" ".join(str(error).split())) from None
    lines = [_clean(line) for line in html.unescape(text).splitlines()]
    return "\n".join(_without_empty_sections([line for line in lines if line]))


def _text(code: Any) -> str:
    return "".join(map(_node_text, code.nodes)) if code is not None else ""


def _node_text(node: Any) -> str:
    kind = type(node).__name__
    if kind == "Text":
        return node.value
    if kind == "HTMLEntity":
        return node.normalize()
    if kind == "Wikilink":
        return _link_text(node)
    if kind == "ExternalLink":
        return _text(node.title) if node.brackets else ""
    if kind == "Heading":
        return f"\n{_HEADING}{node.level}{_text(node.title)}\n"
    if kind == "Template":
        return _template_text(node)
    if kind == "Tag":
        return _tag_text(node)
    return ""  # comments, {{{arguments}}}


def _link_text(node: Any) -> str:
    title = str(node.title).strip()
    if _HIDDEN_LINK.match(title):
        return ""
    return _text(node.text) if node.text is not None else _text(node.title).strip().removeprefix(":")


def _template_text(node: Any) -> str:
    name = str(node.name).strip().lower()
    if name == "convert" and node.has("1") and node.has("2"):
        return f"{_text(node.get('1').value).strip()} {_text(node.get('2').value).strip()}"
    argument = str(_TEXT_TEMPLATES.get(name, ""))
    return _text(node.get(argument).value).strip() if argument and node.has(argument) else ""


def _tag_text(node: Any) -> str:
    name = str(node.tag).strip().lower()
    if name in _HIDDEN_TAGS:
        return ""
    text = _text(node.contents)
    if node.wiki_markup in ("*", "#", ":", ";"):  # the mark of a list item; the text stands behind it
        return text
    return f"\n{text}\n" if name in _BLOCK_TAGS else text


def _clean(line: str) -> str:
    """A paragraph without leftovers; "" if it holds no word, or markup that could not be parsed."""
    line = _QUOTES.sub("", _SWITCH.sub("", line)).strip()
    if _LEFTOVER.search(line):
        return ""
    for pattern, replacement in _FIXES:
        line = pattern.sub(replacement, line)
    line = line.strip().lstrip("*#:;, ")  # the first word was a template's
    return line if any(map(str.isalpha, line)) else ""


def _without_empty_sections(lines: list[str]) -> list[str]:
    """Without the headings that nothing follows (a section of links or tables)."""
    kept: list[str] = []
    filled = [False] * 8  # for each level: is there text between here and the next heading of that level or above?
    for line in reversed(lines):
        if not line.startswith(_HEADING):
            kept.append(line)
            filled = [True] * 8
            continue
        level = int(line[1])
        if filled[level]:
            kept.append(line[2:].strip())
        filled[level:] = [False] * (8 - level)
    return kept[::-1]
