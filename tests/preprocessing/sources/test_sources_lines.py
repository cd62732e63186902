"""Byte files in parts: every record once and in order, whatever the compression and the cuts; damage; memory."""

import bz2
import gzip
import json
import random
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing.sources import blocks
from preprocessing.sources.parse import parse_sources
from preprocessing.sources.read import Reader
from preprocessing.sources.records import RawDocument, Record, Skipped
from preprocessing.sources.types import Slice, Source

ROOT = Path(__file__).resolve().parents[3]
LIMIT_BYTES = 3000
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}


def read_parts(source: Source, parts: int, *, fresh: bool = False) -> list[Record]:
    """All records of a one-file source in `parts` parts; checks that the spans join up to the whole."""
    reader = Reader([source], LIMIT_BYTES)
    records: list[Record] = []
    reached = 0
    for part in range(parts):
        reader = Reader([source], LIMIT_BYTES) if fresh else reader
        records += reader.read(Slice(source.name, 0, 0, part, parts))
        ((unit, start, end),) = reader.spans
        assert (unit, start) == (0, reached)
        assert end >= start
        reached = end
    return records


def write(path: Path, content: bytes) -> Source:
    path.write_bytes(content)
    (source,) = parse_sources([str(path)])
    return source


def texts(records: list[Record]) -> list[str]:
    return [record.text for record in records if isinstance(record, RawDocument)]


line = st.one_of(
    st.integers(1, 60).map(lambda n: json.dumps({"text": "word " * n}).encode()),
    st.sampled_from([b"", b"  ", b"no json", b'{"text": null}', b"\xff{", b'{"text": "' + b"long" * 1000 + b'"}']),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(line, max_size=30),
    newline=st.sampled_from([b"\n", b"\r\n"]),
    final=st.booleans(),
    suffix=st.sampled_from(sorted(PACKERS)),
    members=st.integers(1, 4),
    parts=st.integers(1, 12),
    fresh=st.booleans(),
    chunk_bytes=st.sampled_from([1, 7, 64, 65536]),
    block_bytes=st.sampled_from([1, 50, 1 << 20]),
)
def test_any_cut_gives_the_same_records_once_and_in_order(
    tmp_path: Path,
    lines: list[bytes],
    newline: bytes,
    final: bool,
    suffix: str,
    members: int,
    parts: int,
    fresh: bool,
    chunk_bytes: int,
    block_bytes: int,
) -> None:
    content = newline.join(lines) + (newline if final else b"")
    step = max(1, -(-len(content) // members))
    packed = b"".join(PACKERS[suffix](content[at : at + step]) for at in range(0, max(1, len(content)), step))
    (tmp_path / "plain").mkdir(exist_ok=True)
    plain = write(tmp_path / "plain" / "a.jsonl", content)
    source = write(tmp_path / f"a.jsonl{suffix}", packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        records = read_parts(source, parts, fresh=fresh)
    named = [record._replace(where="") if isinstance(record, Skipped) else record for record in records]
    whole = [r._replace(where="") if isinstance(r, Skipped) else r for r in read_parts(plain, 1)]
    if suffix:  # positions are those of the uncompressed file; the name differs
        whole = [
            r._replace(**{k: getattr(r, k).replace("jsonl@", f"jsonl{suffix}@") for k in ("id", "where")})
            if isinstance(r, RawDocument)
            else r
            for r in whole
        ]
    assert named == whole
    documents = [json.loads(line)["text"] for line in lines if line.startswith(b'{"text": "word')]
    assert texts(records) == documents


@pytest.mark.parametrize("suffix", sorted(PACKERS))
@pytest.mark.parametrize("parts", [1, 2, 7])
def test_real_chunks_and_a_record_at_every_cut(tmp_path: Path, suffix: str, parts: int) -> None:
    rows = [{"text": f"{i} " + "".join(chr(97 + (i * j * j) % 23) for j in range(1, 1200))} for i in range(900)]
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    source = write(tmp_path / f"a.jsonl{suffix}", PACKERS[suffix](content))
    assert texts(read_parts(source, parts)) == [row["text"] for row in rows]
    assert texts(read_parts(source, parts, fresh=True)) == [row["text"] for row in rows]


def test_part_by_part_a_stream_goes_on_and_an_abandoned_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(json.dumps({"text": f"{i:0500}" * 3}).encode() + b"\n" for i in range(500))
    source = write(tmp_path / "a.jsonl.gz", gzip.compress(content, 0))
    opened = []
    original = blocks._decompressed
    monkeypatch.setattr(blocks, "_decompressed", lambda *a, **k: opened.append(1) or original(*a, **k))
    whole = read_parts(source, 9)
    assert len(opened) == 1
    reader = Reader([source], LIMIT_BYTES)
    list(reader.read(Slice("a", 0, 0, 0, 9)))
    abandoned = reader.read(Slice("a", 0, 0, 1, 9))
    next(abandoned)
    abandoned.close()
    again = list(reader.read(Slice("a", 0, 0, 1, 9)))
    first = list(Reader([source], LIMIT_BYTES).read(Slice("a", 0, 0, 0, 9)))
    assert first + again == whole[: len(first) + len(again)]
    assert len(again) > 10


@pytest.mark.parametrize("parts", [1, 3, 8])
@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_a_truncated_file_gives_what_is_whole_and_one_skipped(tmp_path: Path, suffix: str, parts: int) -> None:
    randomly = random.Random(1)
    rows = [f"{i} " + "".join(randomly.choices("abcdefghijklmnop", k=900)) for i in range(3000)]
    content = b"".join(json.dumps({"text": row}).encode() + b"\n" for row in rows)
    packed = PACKERS[suffix](content)
    source = write(tmp_path / f"a.jsonl{suffix}", packed[: len(packed) * 2 // 3])
    for fresh in (False, True):
        records = read_parts(source, parts, fresh=fresh)
        skipped = [record for record in records if isinstance(record, Skipped)]
        assert [record.reason for record in skipped] == ["truncated file"]
        assert f"break off after {source.units[0].bytes} bytes" in skipped[0].detail
        assert texts(records) == rows[: len(records) - 1]
        assert len(records) > 1000


def test_wherever_gzip_breaks_off_every_byte_that_came_out_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)  # zlib takes the last of its input with output still inside
    content = b"".join(b'{"text": "' + b"ab" * (i % 40 + 1) + b'"}\n' for i in range(400))
    packed = gzip.compress(content)
    for size in range(30, len(packed)):
        whole = zlib.decompressobj(wbits=31).decompress(packed[:size]).count(b"\n")
        records = read_parts(write(tmp_path / "a.jsonl.gz", packed[:size]), 1)
        assert len(texts(records)) == whole, size
        assert len(records) == whole + 1


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_broken_compression_ends_the_unit_with_one_skipped(tmp_path: Path, suffix: str, parts: int) -> None:
    rows = [json.dumps({"text": f"{i} {zlib.crc32(b'%d' % i):x}" * 20}).encode() + b"\n" for i in range(20000)]
    packed = bytearray(PACKERS[suffix](b"".join(rows)))
    for at in range(len(packed) // 2, len(packed) // 2 + 100):
        packed[at] ^= 0xA5
    source = write(tmp_path / f"a.jsonl{suffix}", bytes(packed))
    for fresh in (False, True):
        records = read_parts(source, parts, fresh=fresh)
        skipped = [record for record in records if isinstance(record, Skipped)]
        assert [record.reason for record in skipped if record.reason != "not JSON"][-1:] == ["broken compression"]
        assert len([record for record in skipped if record.reason == "broken compression"]) == 1


def test_a_wrong_checksum_and_trailing_garbage_are_broken_compression(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "x"}\n')
    wrong = write(tmp_path / "a.jsonl.gz", packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:])
    assert [r.reason for r in read_parts(wrong, 1) if isinstance(r, Skipped)] == ["broken compression"]
    garbage = write(tmp_path / "a.jsonl.gz", packed + b"garbage")
    records = read_parts(garbage, 1)
    assert texts(records) == ["x"]
    assert [r.reason for r in records if isinstance(r, Skipped)] == ["broken compression"]
    padded = write(tmp_path / "a.jsonl.gz", packed + b"\0" * 100)
    assert texts(read_parts(padded, 1)) == ["x"]
    assert len(read_parts(padded, 1)) == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 1000])
@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_an_empty_or_zeroed_compressed_file_is_not_silently_empty(tmp_path: Path, suffix: str, content: bytes) -> None:
    source = write(tmp_path / f"a.jsonl{suffix}", content)
    assert len(read_parts(source, 1)) == 1
    assert isinstance(read_parts(source, 1)[0], Skipped)


def test_an_empty_plain_file_is_nothing(tmp_path: Path) -> None:
    assert read_parts(write(tmp_path / "a.jsonl", b""), 1) == []


def test_a_line_at_the_limit_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    for ending in (b"\n", b"\r\n", b""):
        for over in (0, 1):
            content = b'{"text": "' + b"x" * (LIMIT_BYTES - 12 + over) + b'"}' + ending
            (record,) = read_parts(write(tmp_path / "a.jsonl", content), 1)
            if over:
                assert isinstance(record, Skipped)
                assert record.reason == "too long"
                assert f"({len(content)} bytes), expected at most 0.003 MB" in record.detail
                assert record.where == "a.jsonl@0"
            else:
                assert isinstance(record, RawDocument)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
def test_a_huge_line_is_measured_in_bounded_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    megabytes = 300 if suffix == "" else 100
    opener = {"": open, ".gz": gzip.open, ".bz2": bz2.open}[suffix]
    with opener(path, "wb") as file:
        for _ in range(megabytes):
            file.write(b"x" * 1_000_000)
        file.write(b'\n{"text": "behind"}\n')
    script = textwrap.dedent(f"""
        import resource
        from preprocessing.sources.read import Reader
        from preprocessing.sources.parse import parse_sources
        from preprocessing.sources.types import Slice
        sources = parse_sources([{str(path)!r}])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        records = list(Reader(sources, 1_000_000).read(Slice("a", 0, 0)))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        print(records)
    """)
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    path.unlink()
    grown_kib, records = out.split("\n", 1)
    assert int(grown_kib) < 30_000
    assert f"too long', where='a.jsonl{suffix}@0', detail='{megabytes}.0 MB" in records
    assert "text='behind'" in records
