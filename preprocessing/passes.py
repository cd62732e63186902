"""The two passes of a build over its sources: a survey (what is kept, held out, sampled), then encoding and writing.

Both clean and deduplicate in the same order, so they keep the same documents. Memory: about 100 bytes a document for
the fingerprints, the tokenizer's sample, and one open shard a split.
"""

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece

from preprocessing.clean import count_words, digest, paragraphs, split_sentences
from preprocessing.shards import Document, ShardInfo, ShardWriter, SourceInfo, token_dtype
from preprocessing.sources import RawDocument, Source
from preprocessing.tokenizer import TextSample

BATCH_CHARACTERS = 2_000_000
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


class KeptDocument(NamedTuple):
    """A document that passed the filters. `draw` is its seeded hash, 64 bits: the lowest ones are held out."""

    raw: RawDocument
    paragraphs: list[str]
    words: int
    draw: int


@dataclass
class Tally:
    """What happened to a source's documents in one pass."""

    read: int = 0
    kept: int = 0
    words: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def info(self, source: Source) -> SourceInfo:
        """As the manifest keeps it."""
        return SourceInfo(
            name=source.name,
            documents_read=self.read,
            documents_kept=self.kept,
            words=self.words,
            dropped=dict(self.dropped),
            documents=dict(self.documents),
            tokens=dict(self.tokens),
            files=source.files,
            version=source.version,
        )


def kept_documents(
    documents: Iterable[RawDocument], seen: set[bytes], min_words: int, seed: int, tally: Tally
) -> Iterator[KeptDocument]:
    """Clean documents and drop the short ones and those whose text is in `seen` (which grows); counts into `tally`."""
    key = f"held out {seed}".encode()
    for raw in documents:
        tally.read += 1
        text = paragraphs(raw.text)
        words = count_words(text)
        if words < min_words:
            tally.dropped["too short"] += 1
            continue
        fingerprint = digest(text)
        if fingerprint in seen:
            tally.dropped["duplicate"] += 1
            continue
        seen.add(fingerprint)
        draw = int.from_bytes(hashlib.blake2b(fingerprint, digest_size=8, key=key).digest())
        yield KeptDocument(raw, text, words, draw)


@dataclass(frozen=True)
class Survey:
    """What the first pass found: each source's held-out limit (draws up to it are held out) and the sample's text."""

    heldout_limits: dict[str, int]
    kept: dict[str, int]
    sample: list[str]


def survey(sources: list[Source], sample: TextSample, settings: dict[str, Any], progress: Progress) -> Survey:
    """First pass. ValueError: a source without documents, or of which nothing was kept; nothing to hold out.

    Of every source `heldout_fraction` of the documents are held out, at least one if it has two: those whose text has
    the lowest seeded hashes, so the choice depends on the seed and on the texts, not on their order.
    """
    seen: set[bytes] = set()
    limits, kept, heldout = {}, {}, set()
    for source in sources:
        tally, draws = Tally(), array("Q")
        documents = progress(source.documents(), f"reading {source.name}")
        for document in kept_documents(documents, seen, settings["min_words"], settings["seed"], tally):
            draws.append(document.draw)
            for paragraph in document.paragraphs:
                sample.add(paragraph, document.draw)
        _check_source(source, tally, len(draws), settings["min_words"])
        count = min(len(draws) - 1, max(1, round(len(draws) * settings["heldout_fraction"])))
        lowest = sorted(draws)[:count]
        limits[source.name], kept[source.name] = (lowest[-1] if lowest else -1), len(draws)
        heldout.update(lowest)
    if not heldout:
        raise ValueError(
            f"{sum(kept.values())} document(s) kept, no source has two: nothing could be held out for evaluation; "
            f"give a source of at least 2 documents"
        )
    # The tokenizer does not see the held-out text either.
    return Survey(limits, kept, sample.paragraphs(without=heldout))


def _check_source(source: Source, tally: Tally, kept: int, min_words: int) -> None:
    where = ", ".join(file["path"] for file in source.files) or source.version
    if not tally.read:
        raise ValueError(f"source {source.name} ({where}) is empty: 0 documents; expected one JSON object a line")
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.dropped.items()))
        raise ValueError(
            f"source {source.name} ({where}): all {tally.read} documents were dropped ({reasons}); "
            f"lower --min-words (it is {min_words}) or leave the source out"
        )


class SplitWriter:
    """The open shard of one split; rolls to the next when a shard has `shard_tokens` tokens."""

    def __init__(self, directory: Path, split: str, vocab_size: int, tokenizer_sha256: str, shard_tokens: int) -> None:
        self._new = lambda index: ShardWriter(
            directory,
            split,
            index,
            token_dtype(vocab_size),
            vocab_size=vocab_size,
            tokenizer_sha256=tokenizer_sha256,
        )
        self._shard_tokens = shard_tokens
        self._writer: ShardWriter | None = None
        self.shards: list[ShardInfo] = []

    def add(self, document: Document) -> int:
        """Append a document; returns its tokens."""
        if self._writer is None:
            self._writer = self._new(len(self.shards))
        before = self._writer.tokens
        self._writer.add(document)
        added = self._writer.tokens - before
        if self._writer.tokens >= self._shard_tokens:
            self.close()
        return added

    def close(self) -> None:
        """Write the open shard, if there is one."""
        if self._writer is not None:
            self.shards.append(self._writer.close())
            self._writer = None


def write_shards(
    sources: list[Source],
    found: Survey,
    writers: dict[str, SplitWriter],
    tokenizer: sentencepiece.SentencePieceProcessor,
    settings: dict[str, Any],
    progress: Progress,
) -> tuple[SourceInfo, ...]:
    """Second pass: encode every kept document into the writer of its split. ValueError: a source changed meanwhile."""
    seen: set[bytes] = set()
    infos = []
    for source in sources:
        tally = Tally()
        documents = progress(source.documents(), f"encoding {source.name}")
        kept = kept_documents(documents, seen, settings["min_words"], settings["seed"], tally)
        count = 0
        for batch in _batches(kept):
            count += len(batch)
            for document, tokens in zip(batch, _encode(batch, tokenizer), strict=True):
                _write(document, tokens, found.heldout_limits[source.name], writers, tally)
        if count != found.kept[source.name]:
            raise ValueError(
                f"source {source.name}: {found.kept[source.name]} documents in the first pass, {count} in the second; "
                f"its files changed meanwhile: build again"
            )
        infos.append(tally.info(source))
    for writer in writers.values():
        writer.close()
    return tuple(infos)


def _write(
    document: KeptDocument, sentences: list[list[int]], limit: int, writers: dict[str, SplitWriter], tally: Tally
) -> None:
    if not sentences:
        tally.dropped["no tokens"] += 1
        return
    split = "heldout" if document.draw <= limit else "train"
    raw = document.raw
    tally.kept += 1
    tally.words += document.words
    tally.documents[split] += 1
    tally.tokens[split] += writers[split].add(Document(raw.source, raw.id, raw.title, sentences))


def _batches(documents: Iterable[KeptDocument]) -> Iterator[list[KeptDocument]]:
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += sum(map(len, document.paragraphs))
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(batch: list[KeptDocument], tokenizer: sentencepiece.SentencePieceProcessor) -> Iterator[list[list[int]]]:
    """Each document's sentences as ids; sentences the tokenizer normalises away are left out."""
    sentences = [[s for p in document.paragraphs for s in split_sentences(p)] for document in batch]
    flat = [sentence for document in sentences for sentence in document]
    ids = iter(tokenizer.encode(flat, num_threads=len(os.sched_getaffinity(0))))
    for document in sentences:
        yield [tokens for tokens in (next(ids) for _ in document) if tokens]
