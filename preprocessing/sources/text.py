"""Plain text (*.txt, *.txt.gz): one file, one document, called by its file's name."""

import codecs
from collections.abc import Generator
from pathlib import Path

from preprocessing.sources.blocks import Damage, blocks_of
from preprocessing.sources.records import Limits, Record, Skipped, document, invalid_utf8, too_long


def read_text(path: Path, name: str, limits: Limits) -> Generator[Record, None, int]:
    """The one record of a file; returns the (uncompressed) size in bytes. A file that is too long is measured, not kept."""
    pieces: list[bytes] = []
    size = 0
    damage: Damage | None = None
    with open(path, "rb") as file:
        try:
            for block in blocks_of(file, path.name):
                size += len(block.data)
                if size <= limits.max_document_bytes:
                    pieces.append(block.data)
        except Damage as error:
            damage = error
    if damage is not None:  # half a book is no book
        yield Skipped(damage.reason, name, damage.detail)
    elif size > limits.max_document_bytes:
        yield too_long(size, name, limits)
    else:
        yield _document(b"".join(pieces).removeprefix(codecs.BOM_UTF8), name, limits)
    return size


def _document(content: bytes, name: str, limits: Limits) -> Record:
    if (at := content.find(b"\0")) >= 0:  # binary, or UTF-16
        return Skipped("NUL byte", name, f"at byte {at}; expected text in UTF-8")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return invalid_utf8(error, name)
    return document(text, name, Path(name).name, name, limits)
