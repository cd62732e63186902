"""MediaWiki XML exports (*.xml, compressed or not): the articles, without redirects and other namespaces.

Inside a page every `<` of the text is escaped, so that <page> and </page> are tags wherever they stand, on lines of their own
or not: a file is cut behind each </page>, from anywhere in it on, and each page is parsed by itself. A lone page has no
document type: no entities to expand. What the export says of its wiki (`read_site`) stands before the first page.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from preprocessing.sources.blocks import Damage, blocks_of
from preprocessing.sources.lines import END_OF_FILE, Line, Lines
from preprocessing.sources.records import Dropped, Limits, Record, Skipped, document, too_long
from preprocessing.sources.wiki.names import MAIN, OTHER_NAMES, Site, folded, is_redirect
from preprocessing.sources.wiki.removed import Removed
from preprocessing.sources.wikitext import UnreadableMarkup, plain_text

PAGE_END = b"</page>"
EXPORT_END = b"</mediawiki>"
_PAGE = re.compile(rb"<page[\s>]")
_PREAMBLE = re.compile(rb"\s*(?:<\?xml(?P<declared>[^>]*)\?>|<!--.*?-->)", re.DOTALL)
_ENCODING = re.compile(rb"encoding\s*=\s*[\"']([^\"']+)")
_LANGUAGE = re.compile(r"<mediawiki\b[^>]*\bxml:lang\s*=\s*[\"']([^\"']+)")
_NAMESPACE = re.compile(r"<namespace\b[^>]*\bkey\s*=\s*[\"'](-?\d+)[\"'](?:[^>]*[^/>])?>([^<]+)<")
_ENCODINGS = ("utf-8", "utf8", "us-ascii", "ascii")


def read_site(path: Path, name: str) -> Site:
    """What stands before an export's first page. ValueError: no MediaWiki export, or one in another encoding."""
    with open(path, "rb") as file:
        try:
            head = next(blocks_of(file, path.name), None)
        except Damage:  # whoever reads the pages meets it, too
            return Site()
    start = b"" if head is None else head.data
    text = start.removeprefix(b"\xef\xbb\xbf")
    while preamble := _PREAMBLE.match(text):
        encoding = _ENCODING.search(preamble["declared"] or b"")
        if encoding and encoding[1].decode(errors="replace").lower() not in _ENCODINGS:
            raise ValueError(
                f"{name}: XML in {encoding[1].decode(errors='replace')}, expected UTF-8; convert it (iconv -t UTF-8)"
            )
        text = text[preamble.end() :]
    text = text.lstrip()
    if text and not text.startswith((b"<mediawiki", b"<page>", b"<page ")):
        raise ValueError(f"{name}: no MediaWiki export: it starts with {text[:40].splitlines()[0]!r}, expected <mediawiki …>")
    page = _PAGE.search(text)
    header = text[: page.start() if page else None].decode(errors="replace")
    language = _LANGUAGE.search(header)
    namespaces = {folded(html.unescape(local)): int(key) for key, local in _NAMESPACE.findall(header)}
    return Site(language[1] if language else "", namespaces)


def read_pages(lines: Lines, until_raw: int, name: str, limits: Limits, site: Site) -> Iterator[Record]:
    """The records of the pages whose predecessors end before `until_raw`. `lines` end with PAGE_END."""
    for chunk in lines.lines_before(until_raw):
        if chunk.text is None:
            yield too_long(chunk.size, f"{name}@{chunk.start}", limits)
        else:
            yield from _pages(chunk, chunk.text, name, limits, site)
    if until_raw == END_OF_FILE and not lines.damage and not lines.tail().rstrip().endswith(EXPORT_END):
        yield Skipped("truncated file", name, f"it does not end in {EXPORT_END.decode()}; fetch the file again")


def _pages(chunk: Line, content: bytes, name: str, limits: Limits, site: Site) -> Iterator[Record]:
    """What ends with one </page>: one page, unless pages before it are broken off."""
    starts = [found.start() for found in _PAGE.finditer(content)]
    whole = content.endswith(PAGE_END)
    for start in starts[:-1] if whole else starts:
        yield Skipped("broken page", f"{name}@{chunk.start + start}", "it has no </page>")
    if not whole:
        return
    if not starts:
        yield Skipped("broken page", f"{name}@{chunk.start}", "a </page> without <page>")
    elif len(content) - starts[-1] > limits.max_document_bytes:
        yield too_long(len(content) - starts[-1], f"{name}@{chunk.start + starts[-1]}", limits)
    else:
        yield _parse(content[starts[-1] :], f"{name}@{chunk.start + starts[-1]}", limits, site)


def _parse(content: bytes, where: str, limits: Limits, site: Site) -> Record:
    try:
        page = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:  # also invalid UTF-8
        return Skipped("broken page", where, f"no XML: {error}")
    fields = {_local(child): child for child in page}
    revisions = [child for child in page if _local(child) == "revision"]
    id_, title = (fields[name].text if name in fields else None for name in ("id", "title"))
    if not id_ or title is None or not revisions:
        return Skipped("broken page", where, "it lacks <id>, <title> or <revision>")
    revision = {_local(child): child.text for child in revisions[-1]}  # of a full history: the latest
    wikitext = revision.get("text") or ""
    in_main = fields["ns"].text == "0" if "ns" in fields else _namespace(title, site) == MAIN
    if not in_main or (revision.get("model") or "wikitext") != "wikitext":
        return Dropped("not an article")
    if "redirect" in fields or is_redirect(wikitext):
        return Dropped("redirect")
    removed = Removed()
    try:
        return document(plain_text(wikitext, site, removed), id_, title, where, limits, removed)
    except UnreadableMarkup as error:
        return Skipped("page given up", where, f"{title}: {error}")


def _local(element: ElementTree.Element) -> str:
    """An element's name without an XML namespace."""
    return element.tag.rpartition("}")[2]


def _namespace(title: str, site: Site) -> int:
    """The namespace of a page of an old export, which has no <ns>: what its title begins with, if that is one."""
    prefix, colon, _ = title.partition(":")
    name = folded(prefix)
    if not colon:
        return MAIN
    if site.namespaces:
        return site.namespaces.get(name, MAIN)
    return -1 if name in OTHER_NAMES or site.namespace(prefix, title) is not None else MAIN
