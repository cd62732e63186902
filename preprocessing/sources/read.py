"""Reading: the records of a slice, one after another, and the spans that show that no slice left anything out."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from preprocessing.sources.builtin import read_builtin
from preprocessing.sources.documents_in_text import DOC_END, blank_line, read_extracted, read_sentences
from preprocessing.sources.hub import HubDataset
from preprocessing.sources.jsonl import read_array, read_jsonl
from preprocessing.sources.lines import END_OF_FILE, Lines
from preprocessing.sources.local import check_unchanged
from preprocessing.sources.mediawiki import PAGE_END, read_pages, read_site
from preprocessing.sources.parquet import read_parquet
from preprocessing.sources.records import Limits, Record, Skipped
from preprocessing.sources.text import read_text
from preprocessing.sources.types import Slice, Source, Unit
from preprocessing.sources.wiki.names import Site

Span = tuple[int, int]
ENDINGS = {"jsonl": b"\n", "mediawiki": PAGE_END, "extracted": DOC_END}


class Reader:
    """Reads slices of `sources`. Of a compressed file, the part behind the last one that was read goes on where that ended.

    `spans`, after a `read` was exhausted: (unit index, start, end) of each unit, in the unit's own coordinates (uncompressed
    bytes, or rows): where the first record starts (0, in a first part) and where reading stopped, which is the next part's
    start. Over all parts they join up; where they do not, the input changed, or another zlib cuts it otherwise.
    """

    def __init__(self, sources: Sequence[Source], max_document_bytes: int) -> None:
        self.spans: list[tuple[int, int, int]] = []
        self._sources = {source.name: source for source in sources}
        self._names = {source.name: source.unit_names() for source in sources}
        self._max_document_bytes = max_document_bytes
        self._checked: set[str] = set()
        self._sites: dict[str, Site] = {}
        self._datasets: dict[str, HubDataset] = {}
        self._open: tuple[str, int, Lines] | None = None  # path, the raw position up to which it was read

    def read(self, slice: Slice) -> Iterator[Record]:
        """The records of a slice. OSError, ValueError: the input is gone, has changed since it was planned, or is damaged."""
        source = self._sources[slice.source]
        spans: list[tuple[int, int, int]] = []
        self.spans = []
        for index in range(slice.first_unit, slice.last_unit + 1):
            start, end, records = yield from _counted(self._read_unit(source, index, slice.part, slice.parts))
            if not records and slice.parts == 1 and len(source.units) > 1 and source.units[index].sha256:
                raise ValueError(
                    f"{source.units[index].path}: holds no document, though it is one of {len(source.units)} files of source "
                    f"{source.name}; mend it, or take it out of the source"
                )
            spans.append((index, start, end))
        self.spans = spans

    def _read_unit(self, source: Source, index: int, part: int, parts: int) -> Generator[Record, None, Span]:
        unit, name = source.units[index], self._names[source.name][index]
        limits = Limits(source.name, source.origin.get("column", "text"), self._max_document_bytes)
        if source.kind == "builtin":
            documents = read_builtin(source)
            yield from documents
            return 0, len(documents)
        if source.kind == "hub":
            if source.name not in self._datasets:
                self._datasets[source.name] = HubDataset(source)
            return (yield from self._datasets[source.name].read(index, _cut(unit.rows, part, parts), limits))
        self._check(unit)
        if source.kind == "parquet":
            rows = _cut(unit.rows, part, parts)
            yield from read_parquet(Path(unit.path), *rows, name, limits)
            return rows
        if source.kind == "text":
            return 0, (yield from read_text(Path(unit.path), name, limits))
        if source.kind == "json array":
            return 0, (yield from read_array(Path(unit.path), name, limits))
        return (yield from self._read_lines(source.kind, unit, part, parts, name, limits))

    def _read_lines(
        self, kind: str, unit: Unit, part: int, parts: int, name: str, limits: Limits
    ) -> Generator[Record, None, Span]:
        first_raw, until_raw = _cut(unit.bytes, part, parts)
        until_raw = END_OF_FILE if part == parts - 1 else until_raw
        lines = self._lines(unit, first_raw, ENDINGS.get(kind) or blank_line(Path(unit.path)))
        try:
            lines.enter(first_raw)
            start = lines.position
            if kind == "jsonl":
                yield from read_jsonl(lines, until_raw, name, limits)
            elif kind == "extracted":
                yield from read_extracted(lines, until_raw, name, limits)
            elif kind == "sentences":
                yield from read_sentences(lines, until_raw, name, limits)
            else:
                yield from read_pages(lines, until_raw, name, limits, self._site(unit, name))
            if lines.damage and first_raw <= lines.damage.raw < until_raw:
                yield Skipped(lines.damage.reason, name, lines.damage.detail)
        except BaseException:  # also a caller that stops half-way: nothing goes on from there
            lines.close()
            raise
        if until_raw < END_OF_FILE:
            self._open = unit.path, until_raw, lines
        else:
            lines.close()
        return start, lines.position

    def _site(self, unit: Unit, name: str) -> Site:
        if unit.path not in self._sites:
            self._sites[unit.path] = read_site(Path(unit.path), name)
        return self._sites[unit.path]

    def _lines(self, unit: Unit, first_raw: int, ending: bytes) -> Lines:
        kept, self._open = self._open, None
        if kept is not None:
            path, reached_raw, lines = kept
            if path == unit.path and reached_raw <= first_raw:
                return lines
            lines.close()
        return Lines(Path(unit.path), unit.bytes, self._max_document_bytes, ending)

    def _check(self, unit: Unit) -> None:
        if unit.path not in self._checked:
            check_unchanged(unit)
            self._checked.add(unit.path)


def _counted(reading: Generator[Record, None, Span]) -> Generator[Record, None, tuple[int, int, int]]:
    """What a unit gives, and at the end its span and how many records it gave."""
    records = 0
    try:
        while True:
            record = next(reading)
            records += 1
            yield record
    except StopIteration as stop:
        return (*stop.value, records)
    finally:
        reading.close()


def _cut(size: int, part: int, parts: int) -> Span:
    return size * part // parts, size * (part + 1) // parts
