"""One shard under audit: read independently of `preprocessing.corpus.reader`, with Arrow alone, and counted in one pass.

The reader that training uses trusts the manifest and refuses what contradicts it; an audit has to look at the file first
and compare afterwards. Shapes: N tokens, D documents, S sentences, V pieces.
"""

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.corpus.reader import DIGEST_BYTES, DIGEST_COLUMN, FORMAT, SEP_ID, UNK_ID, Manifest, ShardInfo

CHUNK_TOKENS = 1 << 22  # converted to 8 bytes each at a time
COLUMNS = ("source", "id", "title", "tokens", "sentence_ends")
COLUMNS_WITH_DIGESTS = (*COLUMNS, DIGEST_COLUMN)  # older corpora have none


@dataclass(frozen=True)
class StoredShard:
    """A shard as its file has it: `info` has the file's own counts. The arrays are views of a memory map."""

    info: ShardInfo
    tokens_N: np.ndarray
    document_starts_D1: np.ndarray
    """[D + 1]: document d is tokens [d, d + 1) of these, its [SEP] included."""
    sentence_ends_S: np.ndarray
    """Offsets within their document."""
    sentence_starts_D1: np.ndarray
    """[D + 1]: the sentences of document d are [d, d + 1) of these."""
    strings: dict[str, Any]
    text_digests: Any = None
    """Arrow column of DIGEST_BYTES a document, if the corpus has it."""

    def document(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A document's tokens, [SEP] included, and the ends of its sentences."""
        first, last = self.document_starts_D1[index : index + 2]
        first_sentence, last_sentence = self.sentence_starts_D1[index : index + 2]
        return self.tokens_N[first:last], self.sentence_ends_S[first_sentence:last_sentence]


def read_shard(directory: Path, info: ShardInfo, manifest: Manifest) -> tuple[StoredShard | None, list[str]]:
    """A shard, if its file can be read, and what is wrong with the file itself (not with its counts or its text)."""
    try:
        with pa.memory_map(str(directory / info.file)) as source:
            reader = pa.ipc.open_file(source)
            batches, batch = reader.num_record_batches, reader.get_batch(0)
        batch.validate(full=True)  # offsets ascend and stay within their values, strings are UTF-8
        tokens, sentences = batch.column("tokens"), batch.column("sentence_ends")
        tokens_N, ends_S = tokens.values.to_numpy(), sentences.values.to_numpy()
        starts_D1, sentences_D1 = tokens.offsets.to_numpy(), sentences.offsets.to_numpy()
        names = tuple(batch.schema.names)
        digests = batch.column(DIGEST_COLUMN) if DIGEST_COLUMN in names else None
        strings = {name: batch.column(name) for name in ("source", "id", "title")}
        sources = strings["source"].unique().to_pylist()
        metadata = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
    except (OSError, ValueError, KeyError, IndexError, AttributeError, pa.ArrowException) as error:
        return None, [f"{info.file}: cannot be read ({' '.join(str(error).split())})"]
    facts = {
        "record batches": (batches, 1),
        "columns": (names, COLUMNS_WITH_DIGESTS if digests is not None else COLUMNS),
        "nulls": (sum(column.null_count for column in batch.columns), 0),
        "format": (metadata.get("format"), FORMAT),
        "split": (metadata.get("split"), info.split),
        "vocabulary": (metadata.get("vocab_size"), str(manifest.vocab_size)),
        "tokenizer": (metadata.get("tokenizer_sha256", "")[:12], manifest.tokenizer_sha256[:12]),
        "sources": (sources, [info.source]),
        "any sentence": (len(ends_S) > 0, True),
        "token type": (str(tokens_N.dtype), manifest.token_dtype),
        "sentence end type": (str(ends_S.dtype), "int32"),
        "first and last token": ((int(starts_D1[0]), int(starts_D1[-1])), (0, len(tokens_N))),
        "first and last sentence": ((int(sentences_D1[0]), int(sentences_D1[-1])), (0, len(ends_S))),
    }
    problems = [f"{info.file}: {what} {got!r}, not {wanted!r}" for what, (got, wanted) in facts.items() if got != wanted]
    found = replace(info, documents=batch.num_rows, sentences=len(ends_S), tokens=len(tokens_N))
    shard = StoredShard(found, tokens_N, starts_D1, ends_S, sentences_D1, strings, digests)
    return (None if problems else shard), problems


@dataclass(frozen=True)
class ShardCounts:
    """What one pass over a shard finds."""

    info: ShardInfo
    counts_V: np.ndarray
    """int64 [V]: how often each id stands there."""
    beyond_vocabulary: int
    """Ids of no piece."""
    unclosed_documents: int
    """Their last token is no [SEP]."""
    stray_seps: int
    """[SEP]s elsewhere."""
    empty_documents: int
    """No sentence, or nothing but the [SEP]."""
    empty_sentences: int
    """Sentences whose end is not behind the end of the one before."""
    open_ends: int
    """Documents whose last sentence does not end at the document's end - 1."""
    document_lengths: dict[int, int]
    """Tokens of a document, [SEP] included -> documents."""
    sentence_lengths: dict[int, int]
    digests: bytes
    """DIGEST_BYTES of each document's tokens; with an [UNK] among them, and if the shard has it, of its text's digest, too."""


def count_shard(shard: StoredShard, vocab_size: int) -> ShardCounts:
    """The pass; beyond the map it holds CHUNK_TOKENS numbers and a few for each document and sentence."""
    counts_V1 = np.zeros(vocab_size + 1, np.int64)
    for start in range(0, len(shard.tokens_N), CHUNK_TOKENS):
        chunk = shard.tokens_N[start : start + CHUNK_TOKENS].astype(np.int64)
        counts_V1 += np.bincount(np.minimum(chunk, vocab_size, out=chunk), minlength=vocab_size + 1)
    lengths_D = np.diff(shard.document_starts_D1)
    has_tokens_D = lengths_D > 0
    last_D = shard.tokens_N[shard.document_starts_D1[1:][has_tokens_D] - 1]
    closed = int((last_D == SEP_ID).sum())
    sentences_D = np.diff(shard.sentence_starts_D1)
    sentence_lengths_S, open_ends = _sentences(shard, lengths_D, sentences_D > 0)
    return ShardCounts(
        info=shard.info,
        counts_V=counts_V1[:-1],
        beyond_vocabulary=int(counts_V1[-1]),
        unclosed_documents=len(lengths_D) - closed,
        stray_seps=int(counts_V1[SEP_ID]) - closed,
        empty_documents=int(((sentences_D == 0) | (lengths_D < 2)).sum()),
        empty_sentences=int((sentence_lengths_S <= 0).sum()),
        open_ends=open_ends,
        document_lengths=_occurrences(lengths_D),
        sentence_lengths=_occurrences(sentence_lengths_S),
        digests=_digests(shard),
    )


def _sentences(shard: StoredShard, lengths_D: np.ndarray, has_sentences_D: np.ndarray) -> tuple[np.ndarray, int]:
    """Tokens of each sentence, and how many documents' last sentence ends elsewhere than at the document's end - 1."""
    ends_S = shard.sentence_ends_S.astype(np.int64)
    sentence_lengths_S = np.diff(ends_S, prepend=0)
    first = shard.sentence_starts_D1[:-1][has_sentences_D]
    sentence_lengths_S[first] = ends_S[first]
    last = shard.sentence_starts_D1[1:][has_sentences_D] - 1
    return sentence_lengths_S, int((ends_S[last] != lengths_D[has_sentences_D] - 1).sum())


def _occurrences(values: np.ndarray) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _digests(shard: StoredShard) -> bytes:
    view, width = shard.tokens_N.data.cast("B"), shard.tokens_N.itemsize
    bounds = (shard.document_starts_D1.astype(np.int64) * width).tolist()
    texts = _digests_of_texts(shard)
    hashed = (
        hashlib.blake2b(view[start:end].tobytes() + text, digest_size=DIGEST_BYTES).digest()
        for (start, end), text in zip(pairwise(bounds), texts, strict=True)
    )
    return b"".join(hashed)


def _digests_of_texts(shard: StoredShard) -> list[bytes]:
    """Of each document, b"" where its tokens say it all."""
    if shard.text_digests is None:
        return [b""] * shard.info.documents
    is_unknown_D = np.zeros(shard.info.documents, bool)
    for start in range(0, len(shard.tokens_N), CHUNK_TOKENS):
        places = np.flatnonzero(shard.tokens_N[start : start + CHUNK_TOKENS] == UNK_ID) + start
        is_unknown_D[np.searchsorted(shard.document_starts_D1, places, "right") - 1] = True
    pairs = zip(is_unknown_D.tolist(), shard.text_digests.to_pylist(), strict=True)
    return [text if unknown else b"" for unknown, text in pairs]
