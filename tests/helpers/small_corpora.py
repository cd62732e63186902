"""What the tests of preprocessing build from and read: small real corpora."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocessing.build.build import build
from preprocessing.build.plan import Gates
from preprocessing.build.settings import Settings
from preprocessing.corpus.reader import Corpus, open_corpus
from preprocessing.sources.parse import parse_sources
from preprocessing.sources.read import Reader
from preprocessing.sources.records import Record
from preprocessing.sources.types import Source, slices

VOCAB_SIZE = 300  # small, so that training takes a fraction of a second


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines, gzipped if the name says so."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def build_small(out: Path, *arguments: str, workers: int = 1, gates: Gates | None = None, **settings: Any) -> Corpus:
    """Build with the library, small and silent."""
    wanted = Settings(**{"vocab_size": VOCAB_SIZE, "heldout_fraction": 0.1, **settings})
    build(parse_sources(list(arguments)), out, wanted, gates=gates, workers=workers, say=lambda line: None)
    return open_corpus(out)


def read_slices(source: Source, slice_bytes: int, max_document_bytes: int) -> tuple[list[Record], dict[int, int]]:
    """All records of a source, and how far each unit was read; asserts that the slices' spans join up."""
    reader = Reader([source], max_document_bytes)
    records: list[Record] = []
    reached: dict[int, int] = {}
    for slice_ in slices(source, slice_bytes):
        records += reader.read(slice_)
        for unit, start, end in reader.spans:
            assert start == reached.get(unit, 0)
            reached[unit] = end
    return records, reached


def content(directory: Path) -> dict[str, bytes]:
    """Every file of a corpus."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def titles(corpus: Corpus, split: str) -> list[str]:
    """Of every document, in its order."""
    return [shard.title(i) for shard in corpus.shards(split) for i in range(len(shard))]
