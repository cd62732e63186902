"""What a source gives: documents, records that are none, and records left out on purpose."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from preprocessing.sources.wiki.removed import Removed

HINT = "PATH#COLUMN, hf:ID#COLUMN"
"""How a source is told which column holds the text."""


class RawDocument(NamedTuple):
    """A document as its source holds it. `where` says file and position, for messages; it holds no absolute path.

    `removed`: what its reader left out of the text, if it counts that.
    """

    source: str
    id: str
    title: str
    text: str
    where: str
    removed: Removed | None = None


class Skipped(NamedTuple):
    """A record that is no document: `reason` is a short category, `detail` says what is wrong with this one."""

    reason: str
    where: str
    detail: str


class Dropped(NamedTuple):
    """A well-formed record that is left out on purpose."""

    reason: str


Record = RawDocument | Skipped | Dropped


class Limits(NamedTuple):
    """What every reader needs to know of its source: the name, the text column, the largest document."""

    source: str
    column: str
    max_document_bytes: int


def document_of(row: Mapping[str, Any], where: str, limits: Limits) -> Record:
    """One row of JSON, parquet or a hub dataset as a record. Without an `id`, a document is called by its place."""
    if limits.column not in row:
        columns = ", ".join(sorted(map(str, row))) or "none"
        detail = f"expected a column {limits.column!r}; columns here: {plain(columns)}; name the one with the text: {HINT}"
        return Skipped("no text column", where, detail)
    text, title, id_ = row[limits.column], row.get("title"), row.get("id")
    if isinstance(text, bytes):  # a binary column of parquet
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            return invalid_utf8(error, where)
    if text is None:
        return Dropped("empty text")
    if not isinstance(text, str):
        return Skipped("text is not a string", where, f"{limits.column!r} is of type {type(text).__name__}, expected a string")
    return document(text, plain(where if id_ is None else id_), plain("" if title is None else title), where, limits)


def document(text: str, id_: str, title: str, where: str, limits: Limits, removed: Removed | None = None) -> Record:
    """A document, unless its text is blank or too long."""
    # A character is at most 4 bytes: the exact size is worth computing only near the limit.
    if len(text) * 4 > limits.max_document_bytes:
        size = len(text.encode(errors="surrogatepass"))
        if size > limits.max_document_bytes:
            return too_long(size, where, limits)
    if not text or text.isspace():
        return Dropped("empty text")
    return RawDocument(limits.source, id_, title, text, where, removed)


def too_long(size: int, where: str, limits: Limits) -> Skipped:
    """A record of `size` bytes, which is more than a document may have."""
    return Skipped(
        "too long", where, f"{size / 1e6:.1f} MB ({size} bytes), expected at most {limits.max_document_bytes / 1e6:g} MB"
    )


def invalid_utf8(error: UnicodeDecodeError, where: str) -> Skipped:
    """A record whose bytes are no UTF-8."""
    return Skipped("invalid UTF-8", where, f"byte 0x{error.object[error.start]:02x} at byte {error.start} of the record")


def plain(value: object) -> str:
    """A title, an id, a file's name as text that UTF-8 can hold."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value).encode(errors="replace").decode()
