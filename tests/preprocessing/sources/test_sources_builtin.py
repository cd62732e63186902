"""The built-in corpus: real text, read but not imported."""

import dataclasses
import sys

import pytest

from preprocessing.sources.builtin import builtin_sources, read_builtin, unwrap
from preprocessing.sources.parse import parse_sources
from preprocessing.sources.read import Reader
from preprocessing.sources.records import RawDocument
from preprocessing.sources.types import slices


def test_builtin_is_real_text_read_but_not_imported() -> None:
    before = set(sys.modules)
    documents = {source.name: list(read_builtin(source)) for source in builtin_sources()}
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


def test_by_name_it_is_two_sources_in_one_slice_each() -> None:
    sources = parse_sources(["builtin"])
    assert [source.name for source in sources] == ["python-docstrings", "python-reference"]
    reader = Reader(sources, 1_000_000)
    for source in sources:
        (slice_,) = slices(source, 1)
        records = list(reader.read(slice_))
        assert len(records) > 50
        assert all(isinstance(record, RawDocument) for record in records)
        assert records == list(read_builtin(source))
        assert reader.spans == [(0, 0, len(records))]
        assert source.origin["version"].startswith("Python 3.")


def test_another_python_than_the_planning_one_is_refused() -> None:
    source = dataclasses.replace(builtin_sources()[0], origin={"kind": "builtin", "version": "Python 2.7"})
    with pytest.raises(ValueError, match=r"planned with Python 2\.7, got Python 3.*one Python"):
        list(Reader([source], 1000).read(slices(source, 1)[0]))
