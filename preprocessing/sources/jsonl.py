"""JSON lines (*.jsonl, *.ndjson, *.json): one object a line, a document in its text column; or one array of such objects.

The columns are those of wikimedia/wikipedia (id, url, title, text) and bookcorpusopen (title, text); only the text is
needed. A line that is no such object is a Skipped, a blank line is nothing.
"""

import codecs
import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO

from preprocessing.sources.blocks import Damage, blocks_of
from preprocessing.sources.lines import Lines
from preprocessing.sources.records import Limits, Record, Skipped, document_of, invalid_utf8, too_long

_BEGINNING, _BETWEEN, _BLANK = (re.compile(characters) for characters in (r"[ \t\r\n,[]+", r"[ \t\r\n,]+", r"[ \t\r\n]+"))


def read_jsonl(lines: Lines, until_raw: int, name: str, limits: Limits) -> Iterator[Record]:
    """The records of the lines that start before raw position `until_raw`; `name` is the file's, for messages and ids."""
    for line in lines.lines_before(until_raw):
        where = f"{name}@{line.start}"
        if line.text is None:
            yield too_long(line.size, where, limits)
            continue
        text = line.text.removeprefix(codecs.BOM_UTF8) if line.start == 0 else line.text
        if not text.isspace() and text:
            yield _parse(text, where, limits)


def _parse(line: bytes, where: str, limits: Limits) -> Record:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return invalid_utf8(error, where)
    except (ValueError, RecursionError) as error:
        return Skipped("not JSON", where, f"{error}; expected one JSON object a line")
    return _row(row, where, limits)


def _row(row: object, where: str, limits: Limits) -> Record:
    if not isinstance(row, dict):
        return Skipped("not JSON", where, f"a JSON {type(row).__name__}, expected an object with a {limits.column!r} column")
    return document_of(row, where, limits)


class _Window:
    """A file's text, read piece by piece: what has been decoded and not yet used is text[at:]. `size`: bytes so far."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.text, self.at, self.size, self.ended = "", 0, 0, False
        self._blocks = blocks_of(file, name)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def fill(self, wanted: int) -> None:
        """Have so many characters, or all there are. Damage, UnicodeDecodeError."""
        while not self.ended and self.left() < wanted:
            block = next(self._blocks, None)
            self.ended = block is None
            data = b"" if block is None else block.data
            decoded = self._utf8.decode(data, final=self.ended).removeprefix("\ufeff" if self.size == 0 else "")
            self.text, self.at = self.text[self.at :] + decoded, 0
            self.size += len(data)

    def left(self) -> int:
        """How many characters are at hand."""
        return len(self.text) - self.at

    def skip(self, characters: re.Pattern[str]) -> None:
        """Go behind what the expression matches here. Damage, UnicodeDecodeError."""
        self.fill(1)
        while self.left() and (found := characters.match(self.text, self.at)):
            self.at = found.end()
            self.fill(1)


def read_array(path: Path, name: str, limits: Limits) -> Generator[Record, None, int]:
    """The objects of a JSON array, read piece by piece; returns the (uncompressed) size in bytes. An object that is longer
    than a document may be, or no JSON, ends the reading: nobody knows where the next one begins. So does what stands behind
    the array."""
    number = 0
    with open(path, "rb") as file:
        window = _Window(file, path.name)
        try:
            for row in _objects(window, limits.max_document_bytes):
                yield _row(row, f"{name}@{number}", limits)
                number += 1
        except Damage as damage:
            yield Skipped(damage.reason, name, damage.detail)
        except UnicodeDecodeError as error:
            yield invalid_utf8(error, f"{name}@{number}")
        except (ValueError, RecursionError) as error:
            yield Skipped("not JSON", f"{name}@{number}", f"{error}; expected objects in one array, each at most a document")
        return window.size


def _objects(window: _Window, longest: int) -> Iterator[object]:
    """What an array holds. ValueError, RecursionError: no JSON, or longer than `longest`; Damage."""
    decoder, wanted = json.JSONDecoder(), 1
    window.skip(_BEGINNING)
    while not window.text.startswith("]", window.at):
        window.fill(wanted)
        try:
            row, window.at = decoder.raw_decode(window.text, window.at)
        except (ValueError, RecursionError):
            if window.ended or window.left() > longest:
                raise
            wanted = 2 * window.left()
            continue
        yield row
        wanted = 1
        window.skip(_BETWEEN)
    window.at += 1
    window.skip(_BLANK)
    if window.left():
        raise ValueError(f"{window.text[window.at : window.at + 20]!r} stands behind the array")
