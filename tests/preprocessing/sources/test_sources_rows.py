"""JSON lines, parquet and text files: what is a document, what is skipped and what is dropped, and why."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.sources.parse import parse_sources
from preprocessing.sources.records import Dropped, RawDocument, Record, Skipped
from preprocessing.sources.types import Source
from tests.helpers.small_corpora import read_slices

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def read(source: Source, *, slice_bytes: int = 10**9, max_document_bytes: int = 1000) -> list[Record]:
    records, reached = read_slices(source, slice_bytes, max_document_bytes)
    assert len(reached) == len(source.units)
    return records


def one(path: Path, content: bytes) -> Source:
    path.write_bytes(content)
    return parse_sources([str(path)])[0]


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Source:
    pq.write_table(pa.table(columns), path, **options)
    return parse_sources([str(path)])[0]


def test_rows_of_both_datasets(tmp_path: Path) -> None:
    rows = [{"id": "12", "url": "u", "title": "T", "text": "x"}, {"title": "B", "text": "y"}, {"text": "z"}]
    source = one(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert [tuple(record)[:5] for record in read(source)] == [
        ("a", "12", "T", "x", "a.jsonl@0"),
        ("a", "a.jsonl@52", "B", "y", "a.jsonl@52"),
        ("a", "a.jsonl@80", "", "z", "a.jsonl@80"),
    ]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"text": "x"', "not JSON", "expected one JSON object a line"),
        (b"[1]", "not JSON", "a JSON list, expected an object"),
        (b"[" * 900, "not JSON", ""),
        (b'{"body": "x", "b": 1}', "no text column", "expected a column 'text'; columns here: b, body"),
        (b'{"text": 5}', "text is not a string", "of type int"),
        (b'{"text": ["x"]}', "text is not a string", "of type list"),
        (b'{"text": "caf\xe9"}', "invalid UTF-8", "byte 0xe9 at byte 13"),
        ('{"text": "x"}'.encode("utf-16"), "invalid UTF-8", "byte 0xff at byte 0"),
        (b"\x00\x01\x02", "not JSON", ""),
    ],
)
def test_a_line_that_is_no_document_is_skipped_and_the_next_one_read(
    line: bytes, reason: str, detail: str, tmp_path: Path
) -> None:
    records = read(one(tmp_path / "a.jsonl", b'{"text": "1"}\n' + line + b'\n{"text": "2"}\n'))
    first, *skipped, last = records
    assert isinstance(first, RawDocument)
    assert isinstance(last, RawDocument)
    assert (first.text, last.text) == ("1", "2")
    found = skipped[0]
    assert isinstance(found, Skipped)
    assert (found.reason, found.where) == (reason, "a.jsonl@14")
    assert detail in found.detail


def test_blank_lines_boms_and_empty_texts(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"text": "x"}\r\n\r\n   \n{"text": null}\n{"text": " \\n"}\n{"text": "\\ud800"}'
    records = read(one(tmp_path / "a.jsonl", content))
    assert [type(record).__name__ for record in records] == ["RawDocument", "Dropped", "Dropped", "RawDocument"]
    assert records[1] == Dropped("empty text")
    assert read(one(tmp_path / "a.jsonl", b"\xef\xbb\xbf")) == []


def test_a_title_that_utf8_cannot_hold_is_replaced(tmp_path: Path) -> None:
    (record,) = read(one(tmp_path / "a.jsonl", b'{"id": 7, "title": "a\\ud800", "text": "x"}'))
    assert isinstance(record, RawDocument)
    assert (record.id, record.title) == ("7", "a?")


@pytest.mark.parametrize("slice_bytes", [10**9, 700, 100])
@pytest.mark.parametrize("row_group_size", [1000, 10, 1])
def test_parquet_by_ranges_of_rows(tmp_path: Path, slice_bytes: int, row_group_size: int) -> None:
    texts = [None if i % 50 == 7 else f"text {i}" for i in range(300)]
    columns = {"id": list(range(300)), "url": ["u"] * 300, "text": texts}
    source = parquet(tmp_path / "a.parquet", columns, row_group_size=row_group_size)
    assert source.units[0].rows == 300
    records = read(source, slice_bytes=slice_bytes)
    assert records == [
        Dropped("empty text") if text is None else RawDocument("a", str(i), "", text, f"a.parquet@{i}")
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_string_types_and_a_binary_column(tmp_path: Path, type_: pa.DataType) -> None:
    (record,) = read(parquet(tmp_path / "a.parquet", {"text": pa.array(["ä"]).cast(type_)}))
    assert record == RawDocument("a", "a.parquet@0", "", "ä", "a.parquet@0")
    source = parquet(tmp_path / "b.parquet", {"text": pa.array(["ä".encode(), b"\xff", b"x"])})
    first, second, third = read(source)
    assert isinstance(first, RawDocument)
    assert isinstance(third, RawDocument)
    assert isinstance(second, Skipped)
    assert (second.reason, second.where) == ("invalid UTF-8", "b.parquet@1")


def test_parquet_with_invalid_utf8_in_a_string_column(tmp_path: Path) -> None:
    text = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb"))
    first, second, third = read(parquet(tmp_path / "a.parquet", {"text": text}))
    assert isinstance(first, RawDocument)
    assert isinstance(third, RawDocument)
    assert isinstance(second, Skipped)
    assert (third.text, second.reason) == ("b", "invalid UTF-8")


def test_parquet_too_long(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", {"text": ["x" * 1000, "x" * 1001, "ä" * 501]})
    assert [getattr(record, "reason", "") for record in read(source)] == ["", "too long", "too long"]


def test_parquet_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.parquet: no column 'text'; columns here: body, n; name"):
        read(parquet(tmp_path / "a.parquet", {"body": ["x"], "n": [1]}))
    with pytest.raises(ValueError, match=r"a\.parquet: column 'text' is of type int64, expected string"):
        read(parquet(tmp_path / "a.parquet", {"text": [1]}))
    with pytest.raises(ValueError, match=r"a\.parquet: not a whole parquet file .*fetch it again") as caught:
        one(tmp_path / "a.parquet", b"PAR1 no parquet")
    assert "\n" not in str(caught.value)
    parquet(tmp_path / "a.parquet", {"text": [f"{i} text" * 20 for i in range(1000)]})
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:200] = b"\xff" * 196
    with pytest.raises(ValueError, match=r"a\.parquet: not a whole parquet file .*fetch it again"):
        read(one(tmp_path / "a.parquet", bytes(content)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfOne\n\ntwo \xc3\xa4", "One\n\ntwo ä"),
        (b"a\0b", ("NUL byte", "at byte 1")),
        ("text".encode("utf-16"), ("NUL byte", "expected text in UTF-8")),
        (b"caf\xe9", ("invalid UTF-8", "byte 0xe9 at byte 3")),
        (b"x" * 1001, ("too long", "(1001 bytes)")),
        (b" \n", "dropped"),
        (b"", "dropped"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_text_files(content: bytes, expected: Any, suffix: str, tmp_path: Path) -> None:
    name = f"a.txt{suffix}"
    (record,) = read(one(tmp_path / name, gzip.compress(content) if suffix else content), slice_bytes=1)
    if expected == "dropped":
        assert record == Dropped("empty text")
    elif isinstance(expected, str):
        assert record == RawDocument("a", name, name, expected, name)
    else:
        assert isinstance(record, Skipped)
        assert (record.reason, record.where) == (expected[0], name)
        assert expected[1] in record.detail


def test_a_truncated_text_file_is_no_document(tmp_path: Path) -> None:
    (record,) = read(one(tmp_path / "a.txt.gz", gzip.compress(b"some text")[:-9]))
    assert isinstance(record, Skipped)
    assert record.reason == "truncated file"


@pytest.mark.parametrize(
    ("path", "documents"), [("wiki/wikipedia_en_sample.jsonl.gz", 15136), ("books/books_pd_sample.jsonl.gz", 0)]
)
def test_the_real_samples_in_parts(path: str, documents: int) -> None:
    if not (SHARED / path).is_file():
        pytest.skip(f"no {SHARED / path}")
    (source,) = parse_sources([str(SHARED / path)])
    records = read(source, slice_bytes=5_000_000, max_document_bytes=50_000_000)
    assert all(isinstance(record, RawDocument) for record in records)
    with gzip.open(SHARED / path) as file:
        assert [r.text for r in records if isinstance(r, RawDocument)] == [json.loads(line)["text"] for line in file]
    assert len(records) == documents or not documents


def test_two_columns_of_one_name_are_one_line(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: 2 columns are called 'text', expected one"):
        read(parse_sources([str(tmp_path / "a.parquet")])[0])


@pytest.mark.parametrize(("name", "content"), [("b.jsonl", b"\n \n"), ("b.xml", b"<mediawiki>\n</mediawiki>\n")])
def test_a_file_of_several_that_yields_nothing_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    page = b"<mediawiki><page><title>t</title><ns>0</ns><id>1</id><revision><text>x</text></revision></page></mediawiki>"
    good = b'{"text": "x"}' if name.endswith("jsonl") else page
    for other in ("a", "c"):
        (tmp_path / name.replace("b", other, 1)).write_bytes(good)
    (tmp_path / name).write_bytes(content)
    (source,) = parse_sources([f"x={tmp_path}/*.{name.partition('.')[2]}"])
    with pytest.raises(ValueError, match=rf"{name}: holds no document, though it is one of 3 files of source x"):
        read(source)
