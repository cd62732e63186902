"""Fixtures of the tests of preprocessing: real text to build from, one small corpus built once.

There is no __init__.py here: it would make a second package called `preprocessing`.
"""

from pathlib import Path
from typing import Any

import pytest

from preprocessing.corpus.reader import Corpus
from preprocessing.sources.builtin import builtin_sources, read_builtin
from tests.helpers.small_corpora import build_small, write_rows


@pytest.fixture(scope="session")
def topics() -> list[dict[str, Any]]:
    """Forty different articles of Python's language reference, as rows of a JSON-lines file."""
    reference = (d for source in builtin_sources() for d in read_builtin(source) if d.source == "python-reference")
    rows = {d.text[:4000]: {"id": d.id, "title": d.title, "text": d.text[:4000]} for d in reference}
    found = [row for row in rows.values() if len(row["text"].split()) > 60][:40]
    assert len(found) == 40
    return found


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole built-in corpus as a file: 2 MB, seconds of tokenizer training."""
    rows = [{"title": d.title, "text": d.text} for source in builtin_sources() for d in read_builtin(source)]
    return write_rows(tmp_path_factory.mktemp("library") / "library.jsonl", rows)


@pytest.fixture(scope="session")
def articles(tmp_path_factory: pytest.TempPathFactory, topics: list[dict[str, Any]]) -> Path:
    """The forty articles as a JSON-lines file of some 100 kB."""
    return write_rows(tmp_path_factory.mktemp("source") / "articles.jsonl", topics)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, articles: Path) -> Corpus:
    """A small corpus for reading; do not write into it."""
    return build_small(tmp_path_factory.mktemp("corpus") / "out", f"articles={articles}", slice_mb=0.02)


@pytest.fixture
def copied(corpus: Corpus, tmp_path: Path) -> Path:
    """A copy of the small corpus, to be damaged."""
    directory = tmp_path / "copy"
    directory.mkdir()
    for path in corpus.directory.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory
