"""Sources by name: the command line's forms, what identifies a source, slices, and files that changed since."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.sources import hub
from preprocessing.sources.parse import BOOKS_ID, parse_sources
from preprocessing.sources.read import Reader
from preprocessing.sources.records import RawDocument
from preprocessing.sources.types import Slice, Source, Unit, slices

ROOT = Path(__file__).resolve().parents[3]


def write(path: Path, *texts: str) -> Path:
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def texts(source: Source, slice_bytes: int = 1000) -> list[str]:
    reader = Reader([source], 10_000)
    records = [record for slice_ in slices(source, slice_bytes) for record in reader.read(slice_)]
    return [record.text for record in records if isinstance(record, RawDocument)]


def test_a_glob_with_a_label_and_a_path_without(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.jsonl", name)
    first, second = parse_sources([f"zz={tmp_path}/[ab].jsonl", f"{tmp_path}/c.jsonl"])
    assert (first.name, first.kind, second.name) == ("c", "jsonl", "zz")
    assert texts(second) == ["a", "b"]
    assert texts(second) == ["a", "b"]  # and again
    assert [file["path"] for file in second.files()] == ["a.jsonl", "b.jsonl"]
    assert [file["bytes"] for file in second.files()] == [14, 14]


def test_what_identifies_a_source_does_not_say_where_it_lies(tmp_path: Path) -> None:
    found = []
    for place in ("one", "two"):
        write(tmp_path / place / "x" / "a.jsonl.gz", "text a")
        write(tmp_path / place / "y" / "a.jsonl.gz", "text b")
        (source,) = parse_sources([f"s={tmp_path}/{place}/**/*.gz"])
        reader = Reader([source], 1000)
        documents = [tuple(record) for slice_ in slices(source, 10**6) for record in reader.read(slice_)]
        found.append((source.origin, source.files(), documents))
        assert str(tmp_path) not in repr(found)
    assert found[0] == found[1]
    assert [file["path"] for file in found[0][1]] == ["x/a.jsonl.gz", "y/a.jsonl.gz"]


@pytest.mark.parametrize(
    ("name", "kind", "source"),
    [
        ("a.jsonl.bz2", "jsonl", "a"),
        ("a.b.txt", "text", "a.b"),
        ("a.txt.gz", "text", "a"),
        ("a.xml", "mediawiki", "a"),
        ("enwiki-pages-articles1.xml-p1p41242.bz2", "mediawiki", "enwiki-pages-articles1"),
    ],
)
def test_the_kind_is_the_suffix(tmp_path: Path, name: str, kind: str, source: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    (found,) = parse_sources([str(tmp_path / name)])
    assert (found.kind, found.name) == (kind, source)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("wikipedia", ("wikipedia", "wikimedia/wikipedia", "20231101.en", "", "text")),
        ("wikipedia:20231101.de@abc", ("wikipedia", "wikimedia/wikipedia", "20231101.de", "abc", "text")),
        ("de=wikipedia:20231101.de", ("de", "wikimedia/wikipedia", "20231101.de", "", "text")),
        ("books", ("books", BOOKS_ID, "", "", "text")),
        ("books:org/b", ("books", "org/b", "", "", "text")),
        ("hf:org/b", ("b", "org/b", "", "", "text")),
        ("x=hf:org/b:conf@v1.0#body", ("x", "org/b", "conf", "v1.0", "body")),
        ("hf:org/b@refs/convert/parquet", ("b", "org/b", "", "refs/convert/parquet", "text")),
        ("hf:org/b#a=b", ("b", "org/b", "", "", "a=b")),
        ("hf:/data/b:conf#body", ("b", "/data/b", "conf", "", "body")),
        ("hf:./b", ("b", "./b", "", "", "text")),
    ],
)
def test_the_forms_of_hub_datasets(
    argument: str, expected: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = []

    def hub_source(name: str, id_: str, *, config: str, revision: str, column: str, streaming: bool) -> Source:
        asked.append((name, id_, config, revision, column))
        return Source(name, "hub", (), {"streaming": streaming})

    monkeypatch.setattr(hub, "hub_source", hub_source)
    (source,) = parse_sources([argument], streaming=True)
    assert asked == [expected]
    assert source.origin["streaming"] is True


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("nothing*.jsonl", FileNotFoundError, "no such file; expected builtin, PATH"),
        ("s3://bucket/a", ValueError, "no such source; expected builtin, PATH"),
        ("hub:org/name", ValueError, "no such source; expected builtin, PATH"),
        ("hf:", ValueError, "names no dataset; expected builtin"),
        ("hf:a/b/c", ValueError, "names no dataset; expected builtin"),
        ("", ValueError, "no such source"),
        ("x=builtin", ValueError, "leave x= out"),
        ("file.csv", ValueError, r"of no kind that can be read; expected \*\.jsonl"),
        ("folder", ValueError, r"a directory, expected files; .*'folder/\*\.jsonl\.gz'"),
        ("?.[jt]*", ValueError, r"files of two kinds \(a\.jsonl, b\.txt\)"),
    ],
)
def test_unknown_forms_are_one_line(
    argument: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("file.csv", "a.jsonl", "b.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(error, match=message) as caught:
        parse_sources([argument])
    assert "\n" not in str(caught.value)


def test_no_source_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no source; expected builtin"):
        parse_sources([])
    path = write(tmp_path / "a.jsonl", "x")
    with pytest.raises(ValueError, match=r"two sources are called 'a'.*LABEL=PATH"):
        parse_sources([str(path), str(path)])


def test_a_path_wins_over_a_keyword_and_over_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "builtin", "x")
    with pytest.raises(ValueError, match="builtin: of no kind"):
        parse_sources(["builtin"])
    write(tmp_path / "x=a.jsonl", "x")
    (source,) = parse_sources(["x=a.jsonl"])
    assert source.name == "x=a"


def test_a_source_survives_json(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "x")
    (source,) = parse_sources([str(tmp_path / "a.jsonl")])
    assert Source.from_json(json.loads(json.dumps(source.as_json()))) == source


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=20),
    slice_bytes=st.integers(1, 60),
    kind=st.sampled_from(["jsonl", "parquet", "text", "mediawiki"]),
)
def test_slices_cover_every_unit_once(sizes: list[int], slice_bytes: int, kind: str) -> None:
    source = Source("s", kind, tuple(Unit(f"/{i}", size) for i, size in enumerate(sizes)), {"kind": kind})
    parts: list[tuple[int, int, int]] = []
    for one in slices(source, slice_bytes):
        assert one.parts == 1 or one.first_unit == one.last_unit
        units = range(one.first_unit, one.last_unit + 1)
        parts += [(unit, one.part, one.parts) for unit in units]
        assert len(units) == 1 or sum(sizes[unit] for unit in units) <= slice_bytes
    counts = [1 if kind == "text" else max(1, -(-size // slice_bytes)) for size in sizes]
    assert parts == [(unit, part, count) for unit, count in enumerate(counts) for part in range(count)]


def test_small_files_go_together_and_shards_of_a_stream_alone() -> None:
    units = tuple(Unit(f"/{i}", size) for i, size in enumerate([1, 2, 3, 9, 1, 1]))
    assert slices(Source("s", "jsonl", units, {}), 6) == (
        Slice("s", 0, 2),
        Slice("s", 3, 3, 0, 2),
        Slice("s", 3, 3, 1, 2),
        Slice("s", 4, 5),
    )
    shards = (Unit("shard 1 of 2", 0), Unit("shard 2 of 2", 0))
    assert slices(Source("s", "hub", shards, {"streaming": True}), 6) == (Slice("s", 0, 0), Slice("s", 1, 1))
    with pytest.raises(ValueError, match="slice_bytes is 0"):
        slices(Source("s", "jsonl", units, {}), 0)


def test_a_file_that_vanished_or_changed_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "one", "two")
    (source,) = parse_sources([str(path)])
    os.utime(path, ns=(1, 1))
    assert texts(source) == ["one", "two"]  # touched, but the same
    content = path.read_bytes()
    path.write_bytes(content.replace(b"one", b"uno"))
    with pytest.raises(ValueError, match=r"a\.jsonl: other content than when the build was planned"):
        texts(source)
    path.write_bytes(content + b"\n")
    with pytest.raises(ValueError, match=r"a\.jsonl: 33 bytes, expected 32 as planned"):
        texts(source)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jsonl: gone since"):
        texts(source)


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *["x" * 1000] * 3000)
    (source,) = parse_sources([str(path)])
    records = Reader([source], 10_000).read(Slice("a", 0, 0))
    next(records)
    os.truncate(path, 2_000_000)
    with pytest.raises(ValueError, match=r"a\.jsonl: ends after 2000000 bytes, expected \d+: it changed while"):
        list(records)


def test_naming_sources_is_fast_to_import() -> None:
    script = "import sys, preprocessing.sources.parse; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"datasets", "pyarrow", "numpy", "huggingface_hub"}.isdisjoint(out.split())
    script = "import sys, preprocessing.sources.read; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"datasets", "torch", "huggingface_hub"}.isdisjoint(out.split())
