"""JSON lines (*.jsonl, *.ndjson, *.json): one object a line, a document in its text column; or one array of such objects.

The columns are those of wikimedia/wikipedia (id, url, title, text) and bookcorpusopen (title, text); only the text is
needed. A line that is no such object is a Skipped, a blank line is nothing.
"""

import codecs
import json
from collections.abc import Generator, Iterator
from pathlib import Path

from preprocessing.sources.blocks import Damage, blocks_of
from preprocessing.sources.lines import Lines
from preprocessing.sources.records import Limits, Record, Skipped, document_of, invalid_utf8, too_long


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


def read_array(path: Path, name: str, limits: Limits) -> Generator[Record, None, int]:
    """The objects of a JSON array, read piece by piece; returns the (uncompressed) size in bytes. An object that is longer
    than a document may be, or no JSON, ends the reading: nobody knows where the next one begins."""
    decoder, utf8 = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")()
    buffer, size, number, wanted = "", 0, 0, 1
    with open(path, "rb") as file:
        blocks = blocks_of(file, path.name)
        ended = False
        while True:
            where = f"{name}@{number}"
            try:
                while not ended and len(buffer) < wanted:
                    block = next(blocks, None)
                    ended = block is None
                    data = b"" if block is None else block.data
                    buffer += utf8.decode(data, final=ended).removeprefix("\ufeff" if size == 0 else "")
                    size += len(data)
            except Damage as damage:
                yield Skipped(damage.reason, name, damage.detail)
                return size
            except UnicodeDecodeError as error:
                yield invalid_utf8(error, where)
                return size
            buffer = buffer.lstrip(" \t\r\n,[" if number == 0 else " \t\r\n,")
            if buffer.startswith("]"):
                return size
            try:
                row, end = decoder.raw_decode(buffer)
            except (ValueError, RecursionError) as error:
                if ended or len(buffer) > limits.max_document_bytes:
                    yield Skipped("not JSON", where, f"{error}; expected objects in one array, each at most a document")
                    return size
                wanted = max(2 * len(buffer), 1)
                continue
            buffer, wanted, number = buffer[end:], 1, number + 1
            yield _row(row, where, limits)
