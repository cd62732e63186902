"""Wiki markup read once, from left to right, with a stack of what is open: templates, links, tables, language variants.

As MediaWiki's preprocessor does, in time linear in the page's size, whatever is left unbalanced: what is never closed is put
back as text, without its marks. The result is text whose lines are still to be laid out (preprocessing.sources.wikitext).
"""

import re
from collections.abc import Callable

from preprocessing.sources.wiki.arguments import Arguments
from preprocessing.sources.wiki.leftovers import closes_single, counted_name, ends_with_digit
from preprocessing.sources.wiki.links import link_text
from preprocessing.sources.wiki.marks import BREAK, GAP, NOTE, SEAM
from preprocessing.sources.wiki.names import Site, folded
from preprocessing.sources.wiki.removed import Removed
from preprocessing.sources.wiki.shown import FUNCTIONS
from preprocessing.sources.wiki.stack import Open, Stack
from preprocessing.sources.wiki.tags import (
    BLOCK,
    HIDDEN,
    LITERAL,
    Closings,
    Tag,
    end_of_gallery,
    index_behind_digit,
    is_inline_code,
    tag_at,
)
from preprocessing.sources.wiki.templates import behind_digit, is_note, is_silent, shown_by
from preprocessing.sources.wiki.variants import variant_text

MOST_MARKS = 3_000_000
"""A page of more marks is given up: at about a million a second it would hold everybody up."""

_MARK = re.compile(
    r"<!--|<[/A-Za-z]|\{\{+|\}\}+|\[\[+|\]\]+|\||-\{(?!\{)|\}-|\n[ \t:]*\{\||\n[ \t]*\|\}(?!\})|\n[^\S\n]*(?=\n)"
)
_TABLE = re.compile(r"[ \t:]*\{\|")  # at the beginning of a line, of which a comment is no part
_COMMENT_END = re.compile(r"\n[^\S\n]*(?=\n)|\n(?==)")


class TooManyMarks(ValueError):
    """A page that would take too long."""


def scan(text: str, site: Site, removed: Removed, kept: list[str]) -> str:
    """The page's text with marks (see `marks`) instead of markup; `kept` gets what KEEP numbers stand for."""
    return _Scanner(text, site, kept).run(removed)


class _Scanner:
    def __init__(self, text: str, site: Site, kept: list[str]) -> None:
        self._text = text
        self._site = site
        self._in_verses = False  # between <poem> and </poem> each line is one
        self._english = site.language.partition("-")[0].lower() in ("", "en")
        self._stack = Stack(kept)
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
        search, opened = _MARK.search, self._stack.open
        while found := search(text, at):
            marks += 1
            if marks > MOST_MARKS:
                raise TooManyMarks(f"more than {MOST_MARKS:,} marks of markup")
            start, mark = found.start(), found[0]
            if start > at:
                between = text[at:start]
                opened[-1].parts[-1].append(between.replace("\n", BREAK) if self._in_verses else between)
            at = self._meet(mark, start, found.end())
        self._stack.add(text[at:])
        self._stack.flush(1)
        page = opened[0]
        removed.templates.update(page.templates)
        removed.markup.update(page.counted)
        return "".join(page.parts[0])

    def _meet(self, mark: str, start: int, end: int) -> int:
        """Deal with one mark; returns where to go on."""
        first = mark[0]
        if first == "|":
            top = self._stack.top
            if top.kind in ("page", "{|"):
                top.parts[-1].append("|")
            else:
                top.parts.append([])
            return end
        if first == "\n":
            return self._line(mark, end)
        handler = self._handlers.get(mark[:2])
        return handler(mark, start, end) if handler else self._tag(mark, start, end)

    # Comments and tags

    def _comment(self, mark: str, start: int, end: int) -> int:
        self._stack.top.counted["comment"] += 1
        if start <= self._comments_end:
            close = self._text.find("-->", end)
            if close >= 0:
                end = close + 3
                table = _TABLE.match(self._text, end) if self._text[start - 1] == "\n" else None
                return self._line(table[0], table.end()) if table else end
        found = _COMMENT_END.search(self._text, end)  # never closed: the paragraph it stands in is all it may take
        self._stack.top.counted["comment without an end"] += 1
        return found.start() if found else len(self._text)

    def _tag(self, mark: str, start: int, end: int) -> int:
        tag = tag_at(self._text, start)
        if tag is None:
            self._stack.add("<")
            return start + 1
        if ends_with_digit(self._stack.top.parts[-1]) and (index := index_behind_digit(self._text, tag)):
            self._stack.add(index[0])
            return index[1]
        if tag.closing or tag.empty or (tag.name not in HIDDEN and tag.name not in LITERAL):
            if tag.name in HIDDEN and not tag.closing and tag.attributes.endswith("/"):
                self._drop_tag(tag)  # <ref name="a" />
            else:
                if tag.name == "poem":
                    self._in_verses = not tag.closing
                self._stack.add(BREAK if tag.name in BLOCK else SEAM)
            return tag.end
        found = self._closings.find(tag)
        if found is None:
            return self._without_end(tag)
        content = self._text[tag.end : found[0]]
        if tag.name in LITERAL or is_inline_code(tag):
            self._stack.keep(content)
        else:
            self._drop_tag(tag)
        return found[1]

    def _drop_tag(self, tag: Tag) -> None:
        self._stack.drop(HIDDEN[tag.name], NOTE if tag.name == "ref" else GAP)

    def _without_end(self, tag: Tag) -> int:
        self._stack.top.counted["tag without an end"] += 1
        self._stack.add(BREAK if HIDDEN.get(tag.name) in ("gallery", "table") else SEAM)
        return end_of_gallery(self._text, tag.end) if tag.name == "gallery" else tag.end

    # Lines

    def _line(self, mark: str, end: int) -> int:
        if mark.endswith("{|"):
            if self._stack.top.kind in ("page", "{|"):
                self._stack.add(BREAK)
                self._stack.push(Open("{|"))
                return end
            self._stack.add("\n")  # in an argument: a brace, and a bar
            return end - 2
        if mark.endswith("|}"):
            return self._close_table(mark, end)
        self._stack.add(mark)  # a blank line: no link goes on behind it
        while self._stack.top.kind == "[[":
            self._stack.flush(len(self._stack.open) - 1)
        return end

    def _close_table(self, mark: str, end: int) -> int:
        depth = next((d for d in range(len(self._stack.open) - 1, 0, -1) if self._stack.open[d].kind == "{|"), 0)
        if not depth:
            if self._stack.top.kind == "page":
                self._stack.add(mark)
                return end
            self._stack.add("\n")
            return end - 2  # a bar, then a brace
        self._stack.flush(depth + 1)
        self._stack.open.pop()
        self._stack.add(BREAK)
        self._stack.drop("table")
        return end

    # Templates

    def _open_braces(self, mark: str, start: int, end: int) -> int:
        self._stack.push(Open("{{", end - start))
        return end

    def _close_braces(self, mark: str, start: int, end: int) -> int:
        left = len(mark)
        while left >= 2:
            depth = self._stack.depth_of("{{")
            if not depth:
                self._stack.add("}" * left if closes_single(self._text, start, "{", "}") else SEAM)
                return end
            self._stack.flush(depth + 1)
            opened = self._stack.open.pop()
            taken = 3 if left >= 3 and opened.width >= 3 else 2
            left -= taken
            self._close_one(opened, taken)
        at = end - left
        if left and self._text.startswith("-", end) and self._stack.top.kind == "-{":
            return at
        if left:
            self._stack.add("}")
        return end

    def _close_one(self, opened: Open, taken: int) -> None:
        rest = opened.width - taken
        if rest >= 2:  # {{{{a}}|b}}: what is closed was the beginning of another
            outer = Open("{{", rest)
            self._stack.open.append(outer)
        elif rest == 1:
            self._stack.add("{")
        texts = opened.texts()
        if taken == 3:
            self._parameter(texts, opened)
        else:
            self._template(texts, opened)

    def _parameter(self, texts: list[str], opened: Open) -> None:
        if len(texts) > 1 and texts[1].strip():
            self._stack.into(opened)
            self._stack.show(texts[1])
        else:
            self._stack.drop("parameter")

    def _template(self, texts: list[str], opened: Open) -> None:
        written = texts[0].replace(SEAM, "").replace(GAP, "").replace(NOTE, "").strip()
        name = folded(written.removeprefix(":"))
        for prefix in ("template:", "subst:", "safesubst:"):
            name = name.removeprefix(prefix).strip()
        function, colon, argument = written.partition(":")
        if colon and (shown := FUNCTIONS.get(function.strip().lower())):
            self._stack.into(opened)
            self._stack.show(shown(argument))
            return
        if show := shown_by(name, self._english):
            text = show(Arguments.of(texts[1:]))
            if text is not None:
                self._stack.into(opened)
                if ends_with_digit(self._stack.top.parts[-1]):
                    text = behind_digit(name, text)
                self._stack.show(text)
                return
            self._stack.drop("template without text")
        elif is_note(name):
            self._stack.drop("template without text", NOTE)
        elif not name or is_silent(name):
            self._stack.drop("template without text")
        else:
            self._stack.drop("unknown template")
            self._stack.top.templates[counted_name(name)] += 1

    # Links and variants

    def _open_link(self, mark: str, start: int, end: int) -> int:
        if len(mark) > 2:
            self._stack.add("[" * (len(mark) - 2))
        self._stack.push(Open("[["))
        return end

    def _close_link(self, mark: str, start: int, end: int) -> int:
        if self._stack.top.kind != "[[":
            self._stack.add(mark if closes_single(self._text, start, "[", "]") else SEAM)
            return end
        opened = self._stack.open.pop()
        texts = opened.texts()
        outer = len(mark) > 2 and texts[-1].count("[") > texts[-1].count("]")  # [[a|b [http://c d]]]
        if outer:
            texts[-1] += "]"
        text, kind = link_text(texts, self._site)
        if text is None:
            self._stack.drop(kind)
        else:
            self._stack.into(opened)
            self._stack.show(text)
        return start + 2 + outer

    def _open_variant(self, mark: str, start: int, end: int) -> int:
        self._stack.push(Open("-{"))
        return end

    def _close_variant(self, mark: str, start: int, end: int) -> int:
        depth = self._stack.depth_of("-{")
        if not depth:
            self._stack.add(mark)
            return end
        self._stack.flush(depth + 1)
        opened = self._stack.open.pop()
        text = variant_text(opened.texts())
        if text is None:
            self._stack.drop("rule of variants")
        else:
            self._stack.into(opened)
            self._stack.show(text)
        return end
