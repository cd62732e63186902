"""Wiki markup read once, from left to right, with a stack of what is open: templates, links, tables, language variants.

As MediaWiki's preprocessor does, in time linear in the page's size, whatever is left unbalanced: what is never closed is put
back as text, without its marks. The result is text whose lines are still to be laid out (preprocessing.sources.wikitext).

Longer than a room should be: the stack and what opens and closes on it are one machine, and a page is read in one pass.
"""

import re
from collections import Counter
from collections.abc import Callable

from preprocessing.sources.wiki.arguments import Arguments
from preprocessing.sources.wiki.leftovers import NAMES, closes_single, counted_name, ends_with_digit, unclosed
from preprocessing.sources.wiki.links import link_text
from preprocessing.sources.wiki.marks import GAP, KEEP, NOTE, SEAM
from preprocessing.sources.wiki.names import Site, folded
from preprocessing.sources.wiki.removed import Removed
from preprocessing.sources.wiki.tags import BLOCK, HIDDEN, LITERAL, Closings, Tag, end_of_gallery, is_inline_code, tag_at
from preprocessing.sources.wiki.templates import FRACTIONS, is_note, is_silent, shown_by
from preprocessing.sources.wiki.variants import variant_text

DEEPEST = 100
"""More open marks than this are text: MediaWiki itself gives up at 40 templates inside one another."""
MOST_MARKS = 3_000_000
"""A page of more marks is given up: at about a million a second it would hold everybody up."""

_MARK = re.compile(
    r"<!--|<[/A-Za-z]|\{\{+|\}\}+|\[\[+|\]\]+|\||-\{(?!\{)|\}-|\n[ \t:]*\{\||\n[ \t]*\|\}(?!\})|\n[^\S\n]*(?=\n)"
)
_TABLE = re.compile(r"[ \t:]*\{\|")  # at the beginning of a line, of which a comment is no part
_COMMENT_END = re.compile(r"\n[^\S\n]*(?=\n)|\n(?==)")


_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "formatnum": lambda argument: argument.strip(),
    "lc": str.lower,
    "uc": str.upper,
    "lcfirst": lambda argument: argument[:1].lower() + argument[1:],
    "ucfirst": lambda argument: argument[:1].upper() + argument[1:],
    "int": lambda argument: "",
    "ns": lambda argument: "",
}


class TooManyMarks(ValueError):
    """A page that would take too long."""


class _Open:
    """Something that was opened: `parts` between its bars, each a list of strings; what was removed inside it."""

    __slots__ = ("braces", "counted", "kind", "parts", "templates", "width")

    def __init__(self, kind: str, width: int = 2) -> None:
        self.kind = kind  # "page", "{{", "[[", "{|", "-{"
        self.width = width  # braces or brackets
        self.parts: list[list[str]] = [[]]
        self.templates: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()

    def texts(self) -> list[str]:
        """The parts, joined."""
        return ["".join(part) for part in self.parts]


def scan(text: str, site: Site, removed: Removed, kept: list[str]) -> str:
    """The page's text with marks (see `marks`) instead of markup; `kept` gets what KEEP numbers stand for."""
    return _Scanner(text, site, kept).run(removed)


class _Scanner:
    def __init__(self, text: str, site: Site, kept: list[str]) -> None:
        self._text = text
        self._site = site
        self._kept = kept
        self._stack = [_Open("page")]
        self._closings = Closings(text)
        self._comments_end = text.rfind("-->")
        self._handlers: dict[str, Callable[[str, int, int], int]] = {
            "<!": self._comment,
            "{{": self._open_braces,
            "}}": self._close_braces,
            "[[": self._open_link,
            "]]": self._close_link,
            "-{": self._open_variant,
            "}-": self._close_variant,
        }

    def run(self, removed: Removed) -> str:
        text, at, marks = self._text, 0, 0
        search = _MARK.search
        while found := search(text, at):
            marks += 1
            if marks > MOST_MARKS:
                raise TooManyMarks(f"more than {MOST_MARKS:,} marks of markup")
            start, mark = found.start(), found[0]
            if start > at:
                self._stack[-1].parts[-1].append(text[at:start])
            at = self._meet(mark, start, found.end())
        self._stack[-1].parts[-1].append(text[at:])
        self._flush(1)
        page = self._stack[0]
        removed.templates.update(page.templates)
        removed.markup.update(page.counted)
        return "".join(page.parts[0])

    def _meet(self, mark: str, start: int, end: int) -> int:
        """Deal with one mark; returns where to go on."""
        first = mark[0]
        if first == "|":
            top = self._stack[-1]
            if top.kind in ("page", "{|"):
                top.parts[-1].append("|")
            else:
                top.parts.append([])
            return end
        if first == "\n":
            return self._line(mark, end)
        handler = self._handlers.get(mark[:2])
        return handler(mark, start, end) if handler else self._tag(mark, start, end)

    # Text

    def _add(self, text: str) -> None:
        self._stack[-1].parts[-1].append(text)

    def _show(self, text: str) -> None:
        """Add what a link or template shows. Inside another template its "=" names no argument."""
        self._add(text.replace("=", "&#61;") if self._stack[-1].kind == "{{" else text)

    def _drop(self, kind: str, mark: str = GAP) -> None:
        """Leave a mark for something that is not shown."""
        top = self._stack[-1]
        top.counted[kind] += 1
        top.parts[-1].append(mark)

    def _keep(self, text: str) -> None:
        self._kept.append(text)
        self._add(f"{KEEP}{len(self._kept) - 1}{KEEP}")

    def _push(self, opened: _Open) -> None:
        if len(self._stack) > DEEPEST:
            self._add(SEAM)
        else:
            self._stack.append(opened)

    def _into(self, above: _Open) -> None:
        """Count in what is open now what was removed inside something shown."""
        top = self._stack[-1]
        for name in ("templates", "counted"):
            small, large = sorted((getattr(above, name), getattr(top, name)), key=len)
            if small:
                large.update(small)
            setattr(top, name, large)

    def _flush(self, depth: int) -> None:
        """Put everything from stack[depth] on back as text: it is never closed."""
        opened = self._stack[depth:]
        del self._stack[depth:]
        for one in opened:
            self._into(one)
            self._stack[-1].counted[f"{NAMES[one.kind]} without an end"] += 1
            self._add(unclosed(one.kind, one.texts()))

    def _depth_of(self, kind: str) -> int:
        """Where the innermost open one of a kind is, with nothing but links above it; 0: nowhere."""
        for depth in range(len(self._stack) - 1, 0, -1):
            if self._stack[depth].kind == kind:
                return depth
            if self._stack[depth].kind not in ("[[", "-{"):
                return 0
        return 0

    # Comments and tags

    def _comment(self, mark: str, start: int, end: int) -> int:
        self._stack[-1].counted["comment"] += 1
        if start <= self._comments_end:
            close = self._text.find("-->", end)
            if close >= 0:
                end = close + 3
                table = _TABLE.match(self._text, end) if self._text[start - 1] == "\n" else None
                return self._line(table[0], table.end()) if table else end
        found = _COMMENT_END.search(self._text, end)  # never closed: the paragraph it stands in is all it may take
        self._stack[-1].counted["comment without an end"] += 1
        return found.start() if found else len(self._text)

    def _tag(self, mark: str, start: int, end: int) -> int:
        tag = tag_at(self._text, start)
        if tag is None:
            self._add("<")
            return start + 1
        if tag.closing or tag.empty or (tag.name not in HIDDEN and tag.name not in LITERAL):
            if tag.name in HIDDEN and not tag.closing and tag.attributes.endswith("/"):
                self._drop_tag(tag)  # <ref name="a" />
            else:
                self._add("\n" if tag.name in BLOCK else SEAM)
            return tag.end
        found = self._closings.find(tag)
        if found is None:
            return self._without_end(tag)
        content = self._text[tag.end : found[0]]
        if tag.name in LITERAL or is_inline_code(tag):
            self._keep(content)
        else:
            self._drop_tag(tag)
        return found[1]

    def _drop_tag(self, tag: Tag) -> None:
        self._drop(HIDDEN[tag.name], NOTE if tag.name == "ref" else GAP)

    def _without_end(self, tag: Tag) -> int:
        self._stack[-1].counted["tag without an end"] += 1
        self._add("\n" if HIDDEN.get(tag.name) in ("gallery", "table") else SEAM)
        return end_of_gallery(self._text, tag.end) if tag.name == "gallery" else tag.end

    # Lines

    def _line(self, mark: str, end: int) -> int:
        if mark.endswith("{|"):
            if self._stack[-1].kind in ("page", "{|"):
                self._add("\n")
                self._push(_Open("{|"))
                return end
            self._add("\n")  # in an argument: a brace, and a bar
            return end - 2
        if mark.endswith("|}"):
            return self._close_table(mark, end)
        self._add(mark)  # a blank line: no link goes on behind it
        while self._stack[-1].kind == "[[":
            self._flush(len(self._stack) - 1)
        return end

    def _close_table(self, mark: str, end: int) -> int:
        depth = next((d for d in range(len(self._stack) - 1, 0, -1) if self._stack[d].kind == "{|"), 0)
        if not depth:
            if self._stack[-1].kind == "page":
                self._add(mark)
                return end
            self._add("\n")
            return end - 2  # a bar, then a brace
        self._flush(depth + 1)
        self._stack.pop()
        self._add("\n")
        self._drop("table")
        return end

    # Templates

    def _open_braces(self, mark: str, start: int, end: int) -> int:
        self._push(_Open("{{", end - start))
        return end

    def _close_braces(self, mark: str, start: int, end: int) -> int:
        left = len(mark)
        while left >= 2:
            depth = self._depth_of("{{")
            if not depth:
                self._add("}" * left if closes_single(self._text, start, "{", "}") else SEAM)
                return end
            self._flush(depth + 1)
            opened = self._stack.pop()
            taken = 3 if left >= 3 and opened.width >= 3 else 2
            left -= taken
            self._close_one(opened, taken)
        at = end - left
        if left and self._text.startswith("-", end) and self._stack[-1].kind == "-{":
            return at
        if left:
            self._add("}")
        return end

    def _close_one(self, opened: _Open, taken: int) -> None:
        rest = opened.width - taken
        if rest >= 2:  # {{{{a}}|b}}: what is closed was the beginning of another
            outer = _Open("{{", rest)
            self._stack.append(outer)
        elif rest == 1:
            self._add("{")
        texts = opened.texts()
        if taken == 3:
            self._parameter(texts, opened)
        else:
            self._template(texts, opened)

    def _parameter(self, texts: list[str], opened: _Open) -> None:
        if len(texts) > 1 and texts[1].strip():
            self._into(opened)
            self._show(texts[1])
        else:
            self._drop("parameter")

    def _template(self, texts: list[str], opened: _Open) -> None:
        written = texts[0].replace(SEAM, "").replace(GAP, "").replace(NOTE, "").strip()
        name = folded(written.removeprefix(":"))
        for prefix in ("template:", "subst:", "safesubst:"):
            name = name.removeprefix(prefix).strip()
        function, colon, argument = written.partition(":")
        if colon and (shown := _FUNCTIONS.get(function.strip().lower())):
            self._into(opened)
            self._show(shown(argument))
            return
        if show := shown_by(name):
            text = show(Arguments.of(texts[1:]))
            if text is not None:
                self._into(opened)
                if name in FRACTIONS and ends_with_digit(self._stack[-1].parts[-1]):
                    text = f" {text}"
                self._show(text)
                return
            self._drop("template without text")
        elif is_note(name):
            self._drop("template without text", NOTE)
        elif not name or is_silent(name):
            self._drop("template without text")
        else:
            self._drop("unknown template")
            self._stack[-1].templates[counted_name(name)] += 1

    # Links and variants

    def _open_link(self, mark: str, start: int, end: int) -> int:
        if len(mark) > 2:
            self._add("[" * (len(mark) - 2))
        self._push(_Open("[["))
        return end

    def _close_link(self, mark: str, start: int, end: int) -> int:
        if self._stack[-1].kind != "[[":
            self._add(mark if closes_single(self._text, start, "[", "]") else SEAM)
            return end
        opened = self._stack.pop()
        texts = opened.texts()
        outer = len(mark) > 2 and texts[-1].count("[") > texts[-1].count("]")  # [[a|b [http://c d]]]
        if outer:
            texts[-1] += "]"
        text, kind = link_text(texts, self._site)
        if text is None:
            self._drop(kind)
        else:
            self._into(opened)
            self._show(text)
        return start + 2 + outer

    def _open_variant(self, mark: str, start: int, end: int) -> int:
        self._push(_Open("-{"))
        return end

    def _close_variant(self, mark: str, start: int, end: int) -> int:
        depth = self._depth_of("-{")
        if not depth:
            self._add(mark)
            return end
        self._flush(depth + 1)
        opened = self._stack.pop()
        text = variant_text(opened.texts())
        if text is None:
            self._drop("rule of variants")
        else:
            self._into(opened)
            self._show(text)
        return end
