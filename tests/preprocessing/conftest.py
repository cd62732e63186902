"""Shared by the tests of preprocessing: real text to build from, one small corpus built once, the real command line.

There is no __init__.py here: it would make a second package called `preprocessing`.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from preprocessing.build import build
from preprocessing.shards import Corpus, open_corpus
from preprocessing.sources import builtin_sources, parse_sources

ROOT = Path(__file__).resolve().parents[2]
VOCAB_SIZE = 300  # small, so that training takes a fraction of a second


@pytest.fixture(scope="session")
def topics() -> list[dict[str, Any]]:
    """Forty different articles of Python's language reference, as rows of a JSON-lines file."""
    (reference,) = (source for source in builtin_sources() if source.name == "python-reference")
    rows = {d.text[:4000]: {"id": d.id, "title": d.title, "text": d.text[:4000]} for d in reference.documents()}
    return [row for row in rows.values() if len(row["text"].split()) > 60][:40]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole built-in corpus as a file: 2 MB, seconds of tokenizer training."""
    rows = [{"title": d.title, "text": d.text} for source in builtin_sources() for d in source.documents()]
    return write_rows(tmp_path_factory.mktemp("library") / "library.jsonl", rows)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines, gzipped if the name says so."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def build_small(out: Path, *arguments: str, **settings: Any) -> Corpus:
    """Build with the library, small and silent."""
    wanted = {"vocab_size": VOCAB_SIZE, "heldout_fraction": 0.1, **settings}
    build(parse_sources(list(arguments), max_document_mb=20), out, say=lambda line: None, **wanted)
    return open_corpus(out)


@pytest.fixture(scope="session")
def articles(tmp_path_factory: pytest.TempPathFactory, topics: list[dict[str, Any]]) -> Path:
    """The forty articles as a gzipped JSON-lines file."""
    return write_rows(tmp_path_factory.mktemp("source") / "articles.jsonl.gz", topics)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, articles: Path) -> Corpus:
    """A small corpus for reading; do not write into it."""
    return build_small(tmp_path_factory.mktemp("corpus") / "out", f"articles={articles}", shard_tokens=8000)


@pytest.fixture
def copied(corpus: Corpus, tmp_path: Path) -> Path:
    """A copy of the small corpus, to be damaged."""
    directory = tmp_path / "copy"
    directory.mkdir()
    for path in corpus.directory.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def start_cli(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Start `python -m preprocessing ...` as a real process."""
    return subprocess.Popen(
        [sys.executable, "-m", "preprocessing", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background makes its children deaf to Ctrl-C; ours must hear it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run_cli(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run `python -m preprocessing ...` to its end."""
    process = start_cli(*arguments)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
