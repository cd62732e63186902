"""Writes the shards of a corpus (see preprocessing.corpus.reader for the format)."""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa

from preprocessing.base.files import written
from preprocessing.corpus.manifest import FORMAT, SPLITS, ShardInfo
from preprocessing.corpus.reader import DIGEST_BYTES, DIGEST_COLUMN, SEP_ID

COUNTED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Document:
    """One tokenized document, as a writer takes it: the ids of each sentence, without specials.

    `digest`: DIGEST_BYTES that another text does not share (b"": unknown): tokens do not tell texts apart that hold [UNK].
    """

    source: str
    id: str
    title: str
    sentences: Sequence[Sequence[int]]
    digest: bytes = b""


class ShardWriter:
    """Writes one shard: `add` documents, then `close`. Holds the shard in memory (2 bytes a token).

    The file appears under its name only when whole (temporary name, fsync, rename). As a context manager it closes
    at the end of the block, and after an error removes the temporary file instead.

    Twelve attributes, because a shard is collected column by column.
    """

    def __init__(
        self,
        path: Path | str,
        split: str,
        token_dtype: str,
        *,
        vocab_size: int | None = None,
        tokenizer_sha256: str = "",
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split {split!r}, expected one of {', '.join(SPLITS)}")
        if token_dtype not in ("uint16", "uint32"):
            raise ValueError(f"token_dtype {token_dtype!r}, expected 'uint16' or 'uint32'")
        self.path = Path(path)
        self.split, self.token_dtype = split, token_dtype
        self._id_limit = vocab_size or 1 << (8 * np.dtype(token_dtype).itemsize)
        self._metadata = {
            "format": FORMAT,
            "split": split,
            "vocab_size": str(vocab_size or ""),
            "tokenizer_sha256": tokenizer_sha256,
        }
        self._strings: dict[str, list[str]] = {"source": [], "id": [], "title": []}
        self._digests: list[bytes] = []
        self._tokens = array("H" if token_dtype == "uint16" else "I")
        self._document_offsets = array("i", [0])
        self._sentence_ends = array("i")
        self._sentence_offsets = array("i", [0])
        self._info: ShardInfo | None = None

    def add(self, document: Document) -> bytes:
        """Append a document and its closing [SEP]; returns its tokens as they are stored, without the [SEP].

        ValueError: something empty, another source, an id out of range.
        """
        if not document.sentences or not all(map(len, document.sentences)):
            raise ValueError(f"document {document.id!r} of {document.source}: it or one of its sentences is empty")
        if self._strings["source"] and document.source != self._strings["source"][0]:
            raise ValueError(f"document {document.id!r} of {document.source} in a shard of {self._strings['source'][0]}")
        try:
            new = self._stored(document.sentences)
        except (OverflowError, ValueError):
            lowest, highest = min(map(min, document.sentences)), max(map(max, document.sentences))
            raise ValueError(
                f"document {document.id!r} of {document.source}: token ids {lowest}..{highest}, "
                f"expected 0..{self._id_limit - 1}"
            ) from None
        self._tokens += new
        self._tokens.append(SEP_ID)
        self._sentence_ends.extend(accumulate(map(len, document.sentences)))
        self._document_offsets.append(len(self._tokens))
        self._sentence_offsets.append(len(self._sentence_ends))
        self._strings["source"].append(document.source)
        self._strings["id"].append(document.id)
        self._strings["title"].append(document.title)
        self._digests.append(document.digest)
        return new.tobytes()

    def _stored(self, sentences: Sequence[Sequence[int]]) -> "array[int]":
        new = array(self._tokens.typecode)
        for sentence in sentences:
            new.fromlist(sentence if isinstance(sentence, list) else list(sentence))
        if np.frombuffer(new, self.token_dtype).max() >= self._id_limit:
            raise ValueError("an id beyond the vocabulary")
        return new

    def counts(self, vocab_size: int) -> np.ndarray:
        """How often each id stands in the shard: int64 [vocab_size]."""
        return piece_counts(np.frombuffer(self._tokens, self.token_dtype), vocab_size)

    def _record_batch(self) -> pa.RecordBatch:
        def lists(offsets: array, values: Any) -> pa.ListArray:
            return pa.ListArray.from_arrays(pa.array(np.asarray(offsets)), pa.array(np.asarray(values)))

        columns = {name: pa.array(values, pa.string()) for name, values in self._strings.items()}
        tokens = np.frombuffer(self._tokens, dtype=self.token_dtype)
        columns["tokens"] = lists(self._document_offsets, tokens)
        columns["sentence_ends"] = lists(self._sentence_offsets, self._sentence_ends)
        if all(self._digests):
            columns[DIGEST_COLUMN] = pa.array(self._digests, pa.binary(DIGEST_BYTES))
        schema = pa.schema([(name, column.type) for name, column in columns.items()], metadata=self._metadata)
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)

    def close(self) -> ShardInfo:
        """Write the file and return what it holds. ValueError: nothing was added. OSError: could not write."""
        if self._info is not None:
            return self._info
        if not self._tokens:
            raise ValueError(f"{self.path}: a shard without documents")
        self._info = write_batch(self.path, self._record_batch())
        return self._info

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()


def piece_counts(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each id stands in tokens: int64 [vocab_size]. In chunks: bincount makes 8 bytes of every token."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(tokens), COUNTED_AT_ONCE):
        counts += np.bincount(tokens[start : start + COUNTED_AT_ONCE], minlength=vocab_size)
    return counts


def write_batch(path: Path, batch: pa.RecordBatch) -> ShardInfo:
    """Write a shard's record batch and return what it holds. OSError: could not write."""
    with written(path) as file:
        hashing = _Hashing(file)
        with pa.ipc.new_file(pa.PythonFile(hashing, mode="w"), batch.schema) as writer:
            writer.write_batch(batch)
    metadata = batch.schema.metadata
    return ShardInfo(
        file=path.name,
        split=metadata[b"split"].decode(),
        source=batch.column("source")[0].as_py(),
        documents=batch.num_rows,
        sentences=len(batch.column("sentence_ends").flatten()),
        tokens=len(batch.column("tokens").flatten()),
        bytes=path.stat().st_size,
        sha256=hashing.sha256.hexdigest(),
    )


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256, self.closed = file, hashlib.sha256(), False

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """The file is its owner's to close."""
