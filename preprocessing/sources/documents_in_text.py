"""Several documents in a file of text: what WikiExtractor writes, and BERT's own input, a sentence a line.

WikiExtractor: <doc id="12" url="…" title="…">, the title again, paragraphs, </doc>. BERT's input (BookCorpus in that form):
blank lines between documents.
"""

import codecs
import html
import re
from collections.abc import Iterator
from pathlib import Path

from preprocessing.sources.blocks import Damage, blocks_of
from preprocessing.sources.lines import Line, Lines
from preprocessing.sources.records import Limits, Record, Skipped, document, invalid_utf8, too_long

DOC_END = b"\n</doc>"
# A title is not escaped and may hold quotes; attributes of other programs may stand before and behind it.
_DOC = re.compile(r'<doc id="([^"]*)"[^\n]{0,2000}? title="([^\n]{0,2000}?)"(?: \w+="[^"\n]*")*>[^\S\n]*(?:\n|$)')
_BLANK = re.compile(r"\n[^\S\n]*\n")


def blank_line(path: Path) -> bytes:
    """How a file's blank lines look, behind the line before: with the line breaks of Unix or of Windows."""
    with open(path, "rb") as file:
        try:
            block = next(blocks_of(file, path.name), None)
        except Damage:  # whoever reads the file meets it, too
            return b"\n\n"
    return b"\n\r\n" if block is not None and b"\r\n" in block.data else b"\n\n"


def read_extracted(lines: Lines, until_raw: int, name: str, limits: Limits) -> Iterator[Record]:
    """The <doc>s that begin before raw position `until_raw`; `lines` end with DOC_END."""
    for chunk in lines.lines_before(until_raw):
        text = _text(chunk, name, limits)
        if not isinstance(text, str):
            yield text
        elif stripped := text.strip():
            yield _extracted(stripped, f"{name}@{chunk.start}", limits)


def _extracted(text: str, where: str, limits: Limits) -> Record:
    head = _DOC.match(text)
    if head is None or not text.endswith(DOC_END.decode()):
        return Skipped("broken doc", where, 'expected <doc id="…" title="…"> on a line of its own, and </doc>')
    id_, title = head[1], html.unescape(head[2])
    body = html.unescape(text[head.end() : -len(DOC_END)]).strip()
    first, _, rest = body.partition("\n")
    return document(rest.strip() if first.strip() == title.strip() else body, id_, title, where, limits)


def read_sentences(lines: Lines, until_raw: int, name: str, limits: Limits) -> Iterator[Record]:
    """What stands between blank lines and begins before raw position `until_raw`; `lines` end with a blank line."""
    for chunk in lines.lines_before(until_raw):
        text = _text(chunk, name, limits)
        if not isinstance(text, str):
            yield text
            continue
        at = chunk.start
        for piece in _BLANK.split(text.replace("\r\n", "\n")):
            where = f"{name}@{at}"
            at += len(piece.encode())
            if piece.strip():
                yield document(piece.strip(), where, "", where, limits)


def _text(chunk: Line, name: str, limits: Limits) -> str | Record:
    where = f"{name}@{chunk.start}"
    if chunk.text is None:
        return too_long(chunk.size, where, limits)
    try:
        return (chunk.text.removeprefix(codecs.BOM_UTF8) if chunk.start == 0 else chunk.text).decode()
    except UnicodeDecodeError as error:
        return invalid_utf8(error, where)
