"""One slice of the input to finished shards: the unit of work. A slice is done when its marker stands.

    slices/00017.train.arrow      its documents, by split; a split without documents has no file
    slices/00017.heldout.arrow
    slices/00017.documents.npy    DOCUMENT rows, one a document, in the slice's order
    slices/00017.texts.npy        KEY rows of the documents' identities, sorted: what finds duplicates over all slices
    slices/00017.ids.npy          KEY rows of the documents' ids, sorted
    slices/00017.counts.npy       int64 [len(SPLITS), vocab_size]
    slices/00017.signatures.npy   uint32 [documents, 128], with --near-duplicates
    slices/00017.json             the marker, written last: bytes and sha256 of the others, tally, where reading began and ended

What a slice becomes depends on the plan alone, and every file appears whole under its name: running a slice twice, even at
once, gives the same bytes.
"""

import gc
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from preprocessing.base.arrays import write_array
from preprocessing.base.files import file_sha256
from preprocessing.build.documents import KeptDocument, Tally, kept_documents
from preprocessing.build.marker import FileInfo, Marker, Sample, UnitSpan, slice_path, write_marker
from preprocessing.build.plan import Plan
from preprocessing.build.settings import Settings
from preprocessing.corpus.manifest import SPLITS, ShardInfo
from preprocessing.corpus.reader import UNK_ID, token_dtype
from preprocessing.corpus.writer import Document, ShardWriter
from preprocessing.sources.read import Reader
from preprocessing.sources.types import Source
from preprocessing.text.clean import clean
from preprocessing.text.near_duplicates import N_HASHES, signature
from preprocessing.text.sentences import split_sentences
from preprocessing.text.tokenizer import load

BATCH_CHARACTERS = 1_000_000
SAMPLES = 32  # documents whose source text is kept, in the whole corpus at least
SAMPLE_TEXT_CHARACTERS = 4000
DOCUMENT = np.dtype([("heldout", "?"), ("words", "<u4")])
KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4")])


class State(NamedTuple):
    """What a process needs for slices, made once. The reader remembers where it is in a compressed file."""

    work: Path
    plan: Plan
    reader: Reader
    tokenizer: sentencepiece.SentencePieceProcessor


def make_state(work: Path, plan: Plan) -> State:
    """Open what slices need."""
    return State(work, plan, reader(plan.sources, plan.settings), load(plan.tokenizer(work)))


def reader(sources: Sequence[Source], settings: Settings) -> Reader:
    """A reader with the settings' limit."""
    return Reader(sources, int(settings.max_document_mb * 1e6))


def make_slice(state: State, number: int) -> int:
    """Read, clean, encode and write one slice; returns its number. ValueError, OSError: see Reader and kept_documents."""
    work, plan, tally = state.work, state.plan, Tally()
    records = kept_documents(state.reader.read(plan.slices[number]), plan.settings, plan.gates.max_bad, tally)
    writer = _SliceWriter(work, plan, number)
    with _without_collector():
        for batch in _batches(records):
            for document, sentences in zip(batch, _encode(batch, state.tokenizer), strict=True):
                if sentences:
                    writer.add(document, sentences)
                else:
                    tally.dropped["no tokens"] += 1
    files = writer.close()
    marker = Marker(
        plan=plan.identity,
        files=files,
        shards=tuple(writer.infos),
        tally=tally,
        spans=tuple(UnitSpan(*span) for span in state.reader.spans),
        samples=tuple(writer.samples),
    )
    write_marker(work, number, marker)
    return number


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python's search for cycles costs a tenth of the time here: it goes through millions of lists, none in a cycle."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


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
    ids = iter(tokenizer.encode([s for document in sentences for s in document], num_threads=1))
    for document in sentences:
        yield [tokens for tokens in (next(ids) for _ in document) if tokens]


class _SliceWriter:
    """A slice's documents on their way into its files.

    Eleven attributes: a writer a split, and what the marker will say.
    """

    def __init__(self, work: Path, plan: Plan, number: int) -> None:
        self._path = partial(slice_path, work, number)
        self._plan, self._limit = plan, plan.heldout_limits[plan.slices[number].source]
        self._writers: dict[str, ShardWriter] = {}
        self._rows: list[tuple[bool, int]] = []
        self._texts, self._ids = bytearray(), bytearray()
        self._signatures: list[NDArray[np.uint32]] = []
        self._n_samples = max(1, SAMPLES // len(plan.slices))
        self.samples: list[tuple[int, Sample]] = []  # the lowest draws
        self.infos: list[ShardInfo] = []

    def add(self, document: KeptDocument, sentences: list[list[int]]) -> None:
        raw, heldout = document.raw, document.draw <= self._limit
        writer = self._writer(SPLITS[heldout])
        stored = writer.add(Document(raw.source, raw.id, raw.title, sentences, document.digest))
        self._sample(document, len(self._rows))
        self._rows.append((heldout, document.words))
        self._texts += identity(np.frombuffer(stored, writer.token_dtype), document.digest)
        self._ids += hashlib.blake2b(raw.id.encode(), digest_size=16).digest()
        if self._plan.settings.near_duplicates:
            self._signatures.append(signature(document.paragraphs))

    def _writer(self, split: str) -> ShardWriter:
        if split not in self._writers:
            size, sha256 = self._plan.settings.vocab_size, self._plan.tokenizer_sha256
            path = self._path(f"{split}.arrow")
            self._writers[split] = ShardWriter(path, split, token_dtype(size), vocab_size=size, tokenizer_sha256=sha256)
        return self._writers[split]

    def _sample(self, document: KeptDocument, row: int) -> None:
        if len(self.samples) < self._n_samples or document.draw < self.samples[-1][0]:
            raw, text = document.raw, beginning(document.raw.text)
            paragraphs = clean(text).paragraphs
            if not paragraphs or paragraphs != document.paragraphs[: len(paragraphs)]:
                return  # the cut hid a mark that tells header from text
            self.samples.append((document.draw, Sample(row, raw.source, raw.id, raw.title, text)))
            self.samples.sort(key=lambda sample: sample[0])
            del self.samples[self._n_samples :]

    def close(self) -> dict[str, FileInfo]:
        """Write every file but the marker; returns what they are, by name."""
        size = self._plan.settings.vocab_size
        counts = np.zeros((len(SPLITS), size), np.int64)
        arrays: dict[str, NDArray[Any]] = {
            "documents": np.array(self._rows, DOCUMENT),
            "texts": _sorted_keys(bytes(self._texts)),
            "ids": _sorted_keys(bytes(self._ids)),
            "counts": counts,
        }
        if self._plan.settings.near_duplicates:
            arrays["signatures"] = np.array(self._signatures, np.uint32).reshape(-1, N_HASHES)
        for split, writer in sorted(self._writers.items()):
            counts[SPLITS.index(split)] = writer.counts(size)
            self.infos.append(writer.close())
        files = {info.file: FileInfo(info.bytes, info.sha256) for info in self.infos}
        for name, array in arrays.items():
            path = self._path(f"{name}.npy")
            write_array(path, array)
            files[path.name] = FileInfo(path.stat().st_size, file_sha256(path))
        return files


def beginning(text: str) -> str:
    """A text's beginning, cut at a line break if it is long ("" if there is none): what `audit` encodes again."""
    if len(text) <= SAMPLE_TEXT_CHARACTERS:
        return text
    return text[: max(text.rfind("\n", 0, SAMPLE_TEXT_CHARACTERS), 0)]


def identity(tokens: NDArray[Any], digest: bytes) -> bytes:
    """16 bytes that two documents share if they are the same text: of the tokens, which know neither case nor compatibility
    forms, and with an [UNK] among them, which may be anything, of the text's digest, too."""
    text = digest if (tokens == UNK_ID).any() else b""
    return hashlib.blake2b(tokens.tobytes() + text, digest_size=16).digest()


def _sorted_keys(hashes: bytes) -> NDArray[Any]:
    """16-byte hashes, in the documents' order, as KEY rows sorted by hash, then by row."""
    words = np.frombuffer(hashes, "<u8").reshape(-1, 2)
    keys = np.empty(len(words), KEY)
    keys["high"], keys["low"], keys["row"] = words[:, 0], words[:, 1], np.arange(len(words))
    return keys[np.lexsort((keys["row"], keys["low"], keys["high"]))]
