"""JSON lines (*.jsonl, *.jsonl.gz, *.jsonl.bz2): one object a line, a document in its text column.

The columns are those of wikimedia/wikipedia (id, url, title, text) and bookcorpusopen (title, text); only the text is
needed. A line that is no such object is a Skipped, a blank line is nothing.
"""

import codecs
import json
from collections.abc import Iterator

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
    if not isinstance(row, dict):
        return Skipped("not JSON", where, f"a JSON {type(row).__name__}, expected an object with a {limits.column!r} column")
    return document_of(row, where, limits)
