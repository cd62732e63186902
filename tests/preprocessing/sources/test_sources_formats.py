"""Formats that people have: WikiExtractor's, BERT's own input, JSON arrays, xz and zstd, a text column of another name."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.sources import blocks
from preprocessing.sources.parse import parse_sources
from preprocessing.sources.read import Reader
from preprocessing.sources.records import RawDocument, Record, Skipped
from preprocessing.sources.types import Slice, slices


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def read(argument: str, parts: int = 1) -> list[Record]:
    (source,) = parse_sources([argument])
    reader = Reader([source], 100_000)
    records: list[Record] = []
    reached = 0
    for part in range(parts):
        records += reader.read(Slice(source.name, 0, 0, part, parts))
        ((_, start, end),) = reader.spans
        assert start == reached
        reached = end
    return records


def documents(argument: str, parts: int = 1) -> list[tuple[str, str]]:
    return [(record.title, record.text) for record in read(argument, parts) if isinstance(record, RawDocument)]


@pytest.mark.parametrize("suffix", PACKERS)
def test_every_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    content = "".join(json.dumps({"title": f"{i}", "text": f"Text {i}. " * (i % 9 + 1)}) + "\n" for i in range(200)).encode()
    half = content.index(b"\n", len(content) // 2) + 1
    packed = PACKERS[suffix](content[:half]) + PACKERS[suffix](content[half:])  # members may follow one another
    path = tmp_path / f"a.ndjson{suffix}"
    path.write_bytes(packed)
    wanted = [(f"{i}", f"Text {i}. " * (i % 9 + 1)) for i in range(200)]
    assert documents(f"x={path}") == wanted
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    assert documents(f"x={path}", parts=4) == wanted
    if suffix:
        path.write_bytes(packed[:-30])
        broken = [record for record in read(f"x={path}") if isinstance(record, Skipped)]
        assert [record.reason for record in broken] == ["truncated file"]


EXTRACTED = """<doc id="12" url="https://x.org/wiki?curid=12" title="One &amp; "Two"">
One &amp; "Two"

First paragraph, with 1 &lt; 2.
Second paragraph.
</doc>
<doc id="13" revid="5" url="u" title="Only">
Text.
</doc>
"""


@pytest.mark.parametrize("name", ["wiki_00", "AA.txt", "wiki_17.bz2"])
@pytest.mark.parametrize("parts", [1, 3])
def test_what_wikiextractor_writes(tmp_path: Path, name: str, parts: int) -> None:
    path = tmp_path / name
    path.write_bytes(PACKERS[path.suffix if path.suffix == ".bz2" else ""](EXTRACTED.encode()))
    wanted = [('One & "Two"', "First paragraph, with 1 < 2.\nSecond paragraph."), ("Only", "Text.")]
    assert documents(f"x={path}", parts) == wanted
    assert [record.id for record in read(f"x={path}") if isinstance(record, RawDocument)] == ["12", "13"]


def test_wikiextractors_json_and_broken_documents(tmp_path: Path) -> None:
    (tmp_path / "wiki_01").write_text('{"id": "3", "title": "T", "text": "x"}\n')
    assert documents(f"x={tmp_path}/wiki_01") == [("T", "x")]
    (tmp_path / "wiki_02").write_text(EXTRACTED + '<doc id="9" url="u" title="cut">\nhalf')
    assert [type(record).__name__ for record in read(f"x={tmp_path}/wiki_02")] == ["RawDocument", "RawDocument", "Skipped"]


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("parts", [1, 4])
def test_a_sentence_a_line_and_blank_lines_between_documents(tmp_path: Path, line_break: str, parts: int) -> None:
    text = "\nthe first .\nit goes on .\n\n\n\nthe second .\n  \nthe third .\nmore .\n\n"
    (tmp_path / "b.txt").write_bytes(text.replace("\n", line_break).encode())
    wanted = ["the first .\nit goes on .", "the second .", "the third .\nmore ."]
    assert [text for _, text in documents(f"x=sentences:{tmp_path}/b.txt", parts)] == wanted
    assert len(documents(f"x={tmp_path}/b.txt")) == 1  # a book


@pytest.mark.parametrize("layout", [{}, {"indent": 2}])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_json_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, int], suffix: str) -> None:
    rows = [{"title": f"{i}é", "text": 'a ] b [ \\ " , ' * (i + 1)} for i in range(50)]
    path = tmp_path / f"a.json{suffix}"
    path.write_bytes(PACKERS[suffix](("\ufeff " + json.dumps(rows, ensure_ascii=False, **layout) + "\n").encode()))
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 33)
    wanted = [(row["title"], row["text"]) for row in rows]
    assert documents(f"x={path}") == wanted
    (source,) = parse_sources([f"x={path}"])
    assert len(slices(source, 100)) == 1
    path.write_bytes(PACKERS[suffix](json.dumps(rows)[:-200].encode()))
    found = read(f"x={path}")
    assert [type(record) for record in found[-2:]] == [RawDocument, Skipped]
    (tmp_path / "b.json").write_text('{"text": "x"}\n{"text": "y"}\n')
    assert [text for _, text in documents(f"x={tmp_path}/b.json")] == ["x", "y"]


def test_attributes_around_an_extracted_title_are_none_of_it(tmp_path: Path) -> None:
    doc = '<doc id="7" title="He said "so" &amp; went" url="u" language="en">\nText.\n</doc>\n'
    (tmp_path / "wiki_00").write_text(doc)
    assert documents(f"x={tmp_path}/wiki_00") == [('He said "so" & went', "Text.")]


@pytest.mark.parametrize("behind", ['\n[{"text": "lost"}]\n', "}", '{"text": "lost"}'])
def test_what_stands_behind_a_json_array_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: str) -> None:
    (tmp_path / "a.json").write_text('[{"text": "x"}]  ' + behind)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5)
    kept, skipped = read(f"x={tmp_path}/a.json")
    assert isinstance(kept, RawDocument)
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "not JSON"
    assert "stands behind the array" in skipped.detail


def test_a_text_column_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x", "n": 1}\n')
    pq.write_table(pa.table({"content": ["y"]}), tmp_path / "a.parquet")
    assert [text for _, text in documents(f"x={tmp_path}/a.jsonl#content")] == ["x"]
    assert [text for _, text in documents(f"x={tmp_path}/a.parquet#content")] == ["y"]
    (skipped,) = read(f"x={tmp_path}/a.jsonl")
    assert isinstance(skipped, Skipped)
    assert skipped.detail.endswith("columns here: content, n; name the one with the text: PATH#COLUMN, hf:ID#COLUMN")
    (tmp_path / "b#c.jsonl").write_text('{"text": "z"}\n')
    assert [text for _, text in documents(f"x={tmp_path}/b#c.jsonl")] == ["z"]  # a name that exists wins
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="files of this kind have no columns; leave #content out"):
        parse_sources([f"{tmp_path}/a.txt#content"])
