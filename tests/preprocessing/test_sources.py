"""Sources: what is read from where, in bounded memory."""

import sys
import tracemalloc
from pathlib import Path

import pytest
from small_corpora import write_rows

from preprocessing.sources import builtin_sources, parse_sources, read_jsonl, unwrap


def test_builtin_is_real_text_read_but_not_imported() -> None:
    before = set(sys.modules)
    documents = {source.name: list(source.documents()) for source in builtin_sources()}
    assert {"antigravity", "this", "idlelib", "pydoc_data.topics"}.isdisjoint(set(sys.modules) - before)
    reference = {d.title: d.text for d in documents["python-reference"]}
    assert len(reference) > 60
    assert "Assert statements are a convenient way to insert debugging assertions into" in reference["assert"]
    books = {d.title: d.text for d in documents["python-docstrings"]}
    assert len(books) > 150
    assert {"asyncio", "json", "argparse"} <= books.keys()
    assert {"site-packages", "test", "lib2to3"}.isdisjoint(books)
    assert "Deserialize s (a str, bytes or bytearray instance containing a JSON document) to a" in books["json"]
    words = sum(len(d.text.split()) for texts in documents.values() for d in texts)
    assert words > 200_000


def test_unwrap_makes_running_text() -> None:
    text = """Title
    =====

    Some :func:`~os.path.join` text that
    goes on with ``code``::

        >>> 1 + 1
        2

    * an item
      of two lines
    * another
    """
    assert unwrap(text).splitlines() == [
        "Title",
        "Some os.path.join text that goes on with code:",
        "2",
        "an item of two lines",
        "another",
    ]


def test_rows_of_both_datasets(tmp_path: Path) -> None:
    wiki = write_rows(tmp_path / "wiki.jsonl.gz", [{"id": "12", "url": "u", "title": "T", "text": "x"}])
    books = write_rows(tmp_path / "books.jsonl", [{"title": "B", "text": "y"}, {"text": "z"}])
    (one,) = read_jsonl(wiki, "wiki", 1000)
    assert (one.source, one.id, one.title, one.text) == ("wiki", "12", "T", "x")
    assert [(d.id, d.title, d.text) for d in read_jsonl(books, "b", 1000)] == [
        ("books.jsonl:1", "B", "y"),
        ("books.jsonl:2", "", "z"),
    ]


def test_a_glob_with_a_label_and_a_path_without(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_rows(tmp_path / f"{name}.jsonl", [{"text": name}])
    first, second = parse_sources([f"zz={tmp_path}/[ab].jsonl", f"{tmp_path}/c.jsonl"], 1)
    assert (first.name, second.name) == ("c", "zz")
    assert [d.text for d in second.documents()] == ["a", "b"]
    assert [d.text for d in second.documents()] == ["a", "b"]  # and again
    assert [file["path"] for file in second.files] == ["a.jsonl", "b.jsonl"]


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(ValueError, match=r"two sources are called 'a'.*LABEL=PATH"):
        parse_sources([str(path), str(path)], 1)


def test_a_line_at_the_limit_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for ending in (b"\n", b"\r\n", b""):
        path.write_bytes(b'{"text": "xxxxxxxx"}' + ending)
        assert len(list(read_jsonl(path, "a", 20))) == 1
        with pytest.raises(ValueError, match=r"a\.jsonl:1: a document of"):
            list(read_jsonl(path, "a", 19))


def test_a_huge_line_is_measured_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text": "')
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n')
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.jsonl:1: a document of 50\.0 MB, expected at most 1 MB.*--max-doc"):
        list(read_jsonl(path, "a", 1_000_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 6_000_000
