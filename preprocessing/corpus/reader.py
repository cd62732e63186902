"""THE on-disk format of a corpus, and its reader. The one thing preprocessing and pipeline both know.

    DIR/train-00000.arrow ...    token shards of the train split
    DIR/heldout-00000.arrow ...  token shards of the held-out split
    DIR/tokenizer.model          the SentencePiece model that made the ids
    DIR/unigram_counts.npy       int64 [len(SPLITS), vocab_size]: how often each id stands in each split's stream
    DIR/samples.jsonl            a few documents' source text beside where they stand, for `audit`
    DIR/manifest.json            written last: sizes and hashes of all the others, settings, counts

A shard is an Arrow IPC file of ONE record batch, one row a document (all of one source), columns
`source`, `id`, `title` (strings), `tokens` (list of uint16, or uint32 above 65536 pieces), `sentence_ends` (list of int32,
offsets within the document) and `text_digest` (16 bytes; older corpora lack it). One batch makes the children of `tokens`
one flat buffer: the shard's token stream, read without a copy from the memory map. A document is its sentences' tokens, then
one [SEP]. The sentence ends leave the [SEP] out: the last one is the document's end minus 1. No [CLS] and no [PAD] is stored.
The schema's metadata holds format, split, vocab_size and the tokenizer's sha256, so a file describes itself.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from preprocessing.base.files import file_sha256
from preprocessing.corpus.manifest import (
    FORMAT,
    MANIFEST_FILE,
    SAMPLES_FILE,
    SPLITS,
    TOKENIZER_FILE,
    UNIGRAM_COUNTS_FILE,
    Manifest,
    ShardInfo,
    SourceInfo,
    read_manifest,
)

__all__ = [
    "CLS_ID",
    "DIGEST_BYTES",
    "DIGEST_COLUMN",
    "FIRST_ORDINARY_ID",
    "FORMAT",
    "MASK_ID",
    "PAD_ID",
    "SEP_ID",
    "SPECIAL_PIECES",
    "SPLITS",
    "UNK_ID",
    "Corpus",
    "Manifest",
    "Shard",
    "ShardInfo",
    "SourceInfo",
    "check_hashes",
    "copy_of",
    "open_corpus",
    "token_dtype",
]

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID, MASK_ID = range(5)
FIRST_ORDINARY_ID = 5
DIGEST_COLUMN, DIGEST_BYTES = "text_digest", 16  # of a document's cleaned text, before it is tokenized

REMEDY = "the file is damaged: copy the corpus again, or move it away and run `python -m preprocessing build`"


def token_dtype(vocab_size: int) -> str:
    """Name of the narrowest token type: "uint16" up to 65536 pieces, else "uint32"."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class Shard:
    """One shard on a memory map. The arrays are read-only views of the file; they keep the map alive.

    tokens: [info.tokens], the flat stream. document_ends: [len(self)] int32, the absolute end offset of each
    document in the stream (its [SEP] included: document i is tokens[document_ends[i - 1]:document_ends[i]]).
    epochs: how often an epoch of training reads the shard. batch: the Arrow record batch.
    """

    def __init__(
        self, path: Path | str, info: ShardInfo, *, token_dtype: str, tokenizer_sha256: str = "", epochs: float = 1.0
    ) -> None:
        self.path, self.info, self.epochs = Path(path), info, epochs
        try:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                batches, self.batch = reader.num_record_batches, reader.get_batch(0)
        except (pa.ArrowInvalid, IndexError) as error:
            raise ValueError(f"{path}: not an Arrow file ({error}); {REMEDY}") from None
        batch = self.batch
        metadata = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
        tokens_column, self._sentences_column = batch.column("tokens"), batch.column("sentence_ends")
        self.tokens: np.ndarray = tokens_column.values.to_numpy(zero_copy_only=True)
        self.document_ends: np.ndarray = tokens_column.offsets.to_numpy(zero_copy_only=True)[1:]
        self._sentence_offsets: np.ndarray = self._sentences_column.offsets.to_numpy(zero_copy_only=True)
        self._sentence_ends: np.ndarray = self._sentences_column.values.to_numpy(zero_copy_only=True)
        self._strings = {name: batch.column(name) for name in ("source", "id", "title")}
        expected = {
            "format": (metadata.get("format"), FORMAT),
            "split": (metadata.get("split"), info.split),
            "source": (batch.column("source")[0].as_py() if batch.num_rows else None, info.source),
            "tokenizer": (metadata.get("tokenizer_sha256"), tokenizer_sha256),
            "token type": (str(self.tokens.dtype), token_dtype),
            "record batches": (batches, 1),
            "documents": (batch.num_rows, info.documents),
            "tokens": (len(self.tokens), info.tokens),
            "sentences": (len(self._sentence_ends), info.sentences),
        }
        for what, (got, wanted) in expected.items():
            if got != wanted:
                raise ValueError(f"{path}: {what} {got!r}, the manifest says {wanted!r}; it is not this corpus' shard")

    def __len__(self) -> int:
        """Documents."""
        return len(self.document_ends)

    def document_start(self, document_index: int) -> int:
        """Absolute stream offset of a document's first token."""
        return int(self.document_ends[document_index - 1]) if document_index else 0

    def sentence_ends(self, document_index: int) -> np.ndarray:
        """ABSOLUTE stream offsets of the ends of a document's sentences, int64; the [SEP] after the last is left out.

        The first sentence starts at document_start(document_index), every other one where its predecessor ends.
        """
        start, end = self._sentence_offsets[document_index : document_index + 2]
        return self._sentence_ends[start:end].astype(np.int64) + self.document_start(document_index)

    def source(self, document_index: int) -> str:
        """Name of the source a document came from."""
        return self._strings["source"][document_index].as_py()

    def id(self, document_index: int) -> str:
        """A document's id in its source."""
        return self._strings["id"][document_index].as_py()

    def title(self, document_index: int) -> str:
        """A document's title ("" if it has none)."""
        return self._strings["title"][document_index].as_py()


class Corpus:
    """An opened, checked corpus. Shards are mapped on first use and kept."""

    def __init__(self, directory: Path, manifest: Manifest, manifest_sha256: str) -> None:
        self.directory, self.manifest, self.manifest_sha256 = directory, manifest, manifest_sha256
        self.vocab_size = manifest.vocab_size
        self.tokenizer_path = directory / TOKENIZER_FILE
        self._shards: dict[str, tuple[Shard, ...]] = {}

    def shards(self, split: str) -> tuple[Shard, ...]:
        """The split's shards in order; their streams, one after another, are the split's stream."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r}, expected one of {', '.join(SPLITS)}")
        if split not in self._shards:
            facts: dict[str, Any] = {
                "token_dtype": self.manifest.token_dtype,
                "tokenizer_sha256": self.manifest.tokenizer_sha256,
            }
            infos = [info for info in self.manifest.shards if info.split == split]
            epochs = {source.name: source.epochs if split == "train" else 1.0 for source in self.manifest.sources}
            self._shards[split] = tuple(
                Shard(self.directory / info.file, info, **facts, epochs=epochs[info.source]) for info in infos
            )
        return self._shards[split]

    def unigram_counts(self, split: str) -> np.ndarray:
        """How often each id stands in the split's stream: int64 [vocab_size]; sums to manifest.tokens(split)."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r}, expected one of {', '.join(SPLITS)}")
        return np.load(self.directory / UNIGRAM_COUNTS_FILE)[SPLITS.index(split)]


Verify = Literal["sizes", "hashes"]  # how well the files of a corpus are looked at


def open_corpus(directory: Path | str, verify: Verify = "hashes") -> Corpus:
    """Open a finished corpus after checking every file's size and, with "hashes", the bytes of every shard.

    The small files (tokenizer, unigram counts) are always hashed. Every rank of a job may open with "sizes" if one process
    for each copy of the corpus also calls `check_hashes`. FileNotFoundError (no directory, a file missing) or ValueError.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    for name, digest in (
        (TOKENIZER_FILE, manifest.tokenizer_sha256),
        (UNIGRAM_COUNTS_FILE, manifest.unigram_counts_sha256),
        (SAMPLES_FILE, manifest.samples_sha256),
    ):
        path = directory / name
        found = _hash_of(path)
        if found != digest:
            other = "manifest of another tokenizer" if name == TOKENIZER_FILE else "manifest of another corpus"
            raise ValueError(f"{path}: {other}: sha256 {found[:12]}…, the manifest says {digest[:12]}…; {REMEDY}")
    for info in manifest.shards:
        _check_size(directory / info.file, info)
    corpus = Corpus(directory, manifest, _hash_of(directory / MANIFEST_FILE))
    if verify == "hashes":
        check_hashes(corpus)
    return corpus


def check_hashes(corpus: Corpus) -> None:
    """Read every shard to its end: ValueError unless its bytes are those that the manifest names."""
    for info in corpus.manifest.shards:
        path = corpus.directory / info.file
        found = _hash_of(path)
        if found != info.sha256:
            raise ValueError(f"{path}: sha256 {found[:12]}…, the manifest says {info.sha256[:12]}…; {REMEDY}")


def copy_of(corpus: Corpus) -> str:
    """What is alike for two processes that read the very same files, and differs between two copies of them: the inodes and
    times of the shards. Two machines see one shared file system alike; each of their own disks has another copy."""
    files = [(corpus.directory / info.file).stat() for info in corpus.manifest.shards]
    return hashlib.sha256(repr([(file.st_ino, file.st_mtime_ns) for file in files]).encode()).hexdigest()


def _hash_of(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; {REMEDY}")
    return file_sha256(path)


def _check_size(path: Path, info: ShardInfo) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; {REMEDY}")
    size = path.stat().st_size
    if size != info.bytes:
        raise ValueError(f"{path}: {size} bytes, the manifest says {info.bytes}; {REMEDY}")
