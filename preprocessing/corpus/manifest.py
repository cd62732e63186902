"""The manifest: what a corpus says of itself (`manifest.json`, written last, so a corpus that has one is whole).

Read it through `preprocessing.corpus.reader`, which re-exports these names.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preprocessing.base.files import write_whole

FORMAT = "sibert-corpus-2"
SPLITS = ("train", "heldout")
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.model"
UNIGRAM_COUNTS_FILE = "unigram_counts.npy"
SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True)
class ShardInfo:
    """One shard file; its documents are of one source. `tokens` counts the stream, each document's [SEP] included."""

    file: str
    split: str
    source: str
    documents: int
    sentences: int
    tokens: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SourceInfo:
    """One source: what was read, what was kept (in all and per split), why the rest was dropped.

    `words` are white-space words of the kept documents. `dropped` is reason -> documents, `dropped_lines` reason -> lines of
    the others, `skipped` reason -> records that were no document (a broken line, say), the first of which `skipped_examples`
    names. Of wiki markup: `dropped_markup` is kind -> pieces left out of the kept documents (tables, formulas, …), and
    `unknown_templates` name -> how often, of the most frequent templates that no table knows, and whose text is missing.
    `duplicate_ids` counts kept documents whose id an earlier one has, too. `epochs` says how often an epoch of
    training reads the source's train split. A source is identified by `origin` (its kind, and what pins it: a hub revision, a
    version of Python) and by `files` ({path: file name, bytes, sha256}).
    """

    name: str
    documents_read: int
    documents_kept: int
    words: int
    dropped: dict[str, int]
    documents: dict[str, int]
    tokens: dict[str, int]
    dropped_lines: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_examples: tuple[str, ...] = ()
    dropped_markup: dict[str, int] = field(default_factory=dict)
    unknown_templates: dict[str, int] = field(default_factory=dict)
    duplicate_ids: int = 0
    epochs: float = 1.0
    origin: dict[str, Any] = field(default_factory=dict)
    files: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The whole corpus. Entropies are over the held-out tokens that can be masked (id >= FIRST_ORDINARY_ID)."""

    format: str
    vocab_size: int
    token_dtype: str
    tokenizer_sha256: str
    unigram_counts_sha256: str
    samples_sha256: str
    shards: tuple[ShardInfo, ...]
    sources: tuple[SourceInfo, ...]
    settings: dict[str, Any]
    versions: dict[str, str]
    heldout_unigram_entropy_nats: float
    heldout_unigram_cross_entropy_nats: float
    """Held-out text coded by the train split's unigram model, one added to every count: a model that has learnt
    nothing but frequencies has this MLM loss."""

    def documents(self, split: str) -> int:
        """Documents in a split ("train" or "heldout")."""
        return sum(shard.documents for shard in self.shards if shard.split == split)

    def sentences(self, split: str) -> int:
        """Sentences in a split."""
        return sum(shard.sentences for shard in self.shards if shard.split == split)

    def tokens(self, split: str) -> int:
        """Tokens in a split, [SEP]s included."""
        return sum(shard.tokens for shard in self.shards if shard.split == split)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically (temporary name, fsync, rename). Call it last."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True) + "\n"
    write_whole(directory / MANIFEST_FILE, text.encode())


def read_manifest(directory: Path) -> Manifest:
    """Read manifest.json. FileNotFoundError: no such directory. ValueError: unfinished, or not this format."""
    path = directory / MANIFEST_FILE
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory; build a corpus with `python -m preprocessing build`")
    if not path.is_file():
        raise ValueError(
            f"{directory}: not a finished corpus: it has no {MANIFEST_FILE}; run `python -m preprocessing build` again"
        )
    try:
        fields = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); the file is damaged: build or copy the corpus again") from None
    found = fields.get("format") if isinstance(fields, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: format {found!r}, expected {FORMAT!r}; build the corpus again with this version")
    try:
        fields["shards"] = tuple(ShardInfo(**shard) for shard in fields["shards"])
        fields["sources"] = tuple(_source_info(source) for source in fields["sources"])
        return Manifest(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a manifest of {FORMAT} ({error}); the file is damaged: build or copy the corpus again"
        ) from None


def _source_info(fields: dict[str, Any]) -> SourceInfo:
    lists = {name: tuple(fields[name]) for name in ("files", "skipped_examples")}
    return SourceInfo(**{**fields, **lists})
