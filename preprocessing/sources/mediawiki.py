"""MediaWiki XML exports (*.xml, *.xml.gz, *.xml.bz2): the articles, without redirects and other namespaces.

In an export `<page>` and `</page>` stand on lines of their own, and inside a page every `<` is escaped: so pages are cut by
lines, from anywhere in the file on, and each is parsed by itself. A lone page has no document type: no entities to expand.
"""

import re
from collections.abc import Generator
from xml.etree import ElementTree

from preprocessing.sources.lines import END_OF_FILE, Line, Lines
from preprocessing.sources.records import Dropped, Limits, Record, Skipped, document, too_long
from preprocessing.sources.wikitext import UnreadableMarkup, plain_text

PAGE = b"<page>"
PAGE_END = b"</page>"
EXPORT_END = b"</mediawiki>"
_REDIRECT = re.compile(r"\s*#\s*redirect", re.IGNORECASE)


def read_pages(lines: Lines, first_raw: int, until_raw: int, name: str, limits: Limits) -> Generator[Record, None, int]:
    """The records of the pages that start in [first_raw, until_raw); returns where the first one starts (0 in a first part).

    ValueError: no MediaWiki export.
    """
    if first_raw == 0:
        _check_header(lines, name)
    page = _next_page(lines)
    start = 0 if first_raw == 0 else page.start if page else lines.position
    while page is not None and page.raw < until_raw:
        where = f"{name}@{page.start}"
        content, size, page = _page_lines(lines, page)
        if size > limits.max_document_bytes:
            yield too_long(size, where, limits)
        elif content.rstrip().endswith(PAGE_END):
            yield _parse(content, where, limits)
        elif not lines.damage:  # otherwise the damage is the record that is skipped
            yield Skipped("broken page", where, "it has no </page>")
    if page is not None:
        lines.give_back(page)
    elif until_raw == END_OF_FILE and not lines.damage and not lines.tail().rstrip().endswith(EXPORT_END):
        yield Skipped("truncated file", name, f"it does not end in {EXPORT_END.decode()}; fetch the file again")
    return start


def _check_header(lines: Lines, name: str) -> None:
    while line := lines.next_line():
        text = (line.text or b"").removeprefix(b"\xef\xbb\xbf").strip()
        if text.startswith((b"<mediawiki", PAGE)):
            lines.give_back(line)
            return
        if text and not text.startswith((b"<?xml", b"<!--")):
            raise ValueError(f"{name}: no MediaWiki export: it starts with {text[:40]!r}, expected <mediawiki …>")


def _is(line: Line, mark: bytes) -> bool:
    return line.text is not None and mark in line.text and line.text.strip() == mark


def _next_page(lines: Lines) -> Line | None:
    while (line := lines.next_line()) and not _is(line, PAGE):
        pass
    return line


def _page_lines(lines: Lines, first: Line) -> tuple[bytes, int, Line | None]:
    """A page (cut off where it gets too long), its size, and the next page's first line."""
    kept, size = [first.text or b""], first.size
    while line := lines.next_line():
        if _is(line, PAGE):
            return b"".join(kept), size, line
        size += line.size
        if size <= lines.max_line_bytes and line.text is not None:
            kept.append(line.text)
        if _is(line, PAGE_END):
            return b"".join(kept), size, _next_page(lines)
    return b"".join(kept), size, None


def _parse(content: bytes, where: str, limits: Limits) -> Record:
    try:
        page = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:  # also invalid UTF-8
        return Skipped("broken page", where, f"no XML: {error}")
    id_, title, namespace = page.findtext("id"), page.findtext("title"), page.findtext("ns")
    revisions = page.findall("revision")
    if not id_ or title is None or namespace is None or not revisions:
        return Skipped("broken page", where, "it lacks <id>, <title>, <ns> or <revision>")
    wikitext = revisions[-1].findtext("text") or ""  # of a full history: the latest
    if namespace != "0" or (revisions[-1].findtext("model") or "wikitext") != "wikitext":
        return Dropped("not an article")
    if page.find("redirect") is not None or _REDIRECT.match(wikitext):
        return Dropped("redirect")
    try:
        return document(plain_text(wikitext), id_, title, where, limits)
    except UnreadableMarkup as error:
        return Skipped("broken page", where, f"its markup cannot be read: {error}")
