"""A finished corpus as the bounds of preprocessing.corpus.limits look at it: exact counts, and shares of a bounded sample."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from preprocessing.corpus.limits import LONG_TOKENS, SourceShape
from preprocessing.corpus.manifest import SPLITS, SourceInfo
from preprocessing.corpus.reader import UNK_ID, Corpus, Shard

SEQ_LEN = 128  # of the sentence pairs thought of
SAMPLE_DOCUMENTS = 2000  # of each source, evenly spread over it, in random order until there are so many tokens
SAMPLE_TOKENS = 5_000_000


class Shape(NamedTuple):
    """A source's shape, and the share of its tokens that as anchors of sentence pairs have no next sentence."""

    source: SourceShape
    lone_share: float


def shapes(corpus: Corpus) -> list[Shape]:
    """Of every source that something was kept of; a small one is looked at whole."""
    shards = [shard for split in SPLITS for shard in corpus.shards(split)]
    found = []
    for source in corpus.manifest.sources:
        own = [shard for shard in shards if shard.info.source == source.name]
        if own:
            found.append(_shape(source, own))
    return found


def not_next_share(corpus: Corpus, found: Sequence[Shape]) -> float:
    """Share of the label "not next" that the loader will draw: half, and the other half's anchors without a next sentence."""
    weights = [source.epochs * source.tokens["train"] for source in corpus.manifest.sources if source.documents_kept]
    lone = sum(weight * shape.lone_share for weight, shape in zip(weights, found, strict=True)) / max(1.0, sum(weights))
    return 0.5 + 0.5 * lone


def _shape(source: SourceInfo, shards: Sequence[Shard]) -> Shape:
    tokens = unknown = long = lone = 0
    for shard, document in _sample(shards):
        start, ends = shard.document_start(document), shard.sentence_ends(document)
        lengths = np.diff(ends, prepend=start)
        is_lone = lengths >= SEQ_LEN - 3  # fills [CLS] A [SEP] B [SEP] alone
        is_lone[-1] = True
        tokens += int(lengths.sum())
        unknown += int((shard.tokens[start : int(ends[-1])] == UNK_ID).sum())
        long += int(lengths[lengths > LONG_TOKENS].sum())
        lone += int(lengths[is_lone].sum())
        if tokens >= SAMPLE_TOKENS:
            break
    documents, sentences, stream = (sum(getattr(s.info, what) for s in shards) for what in ("documents", "sentences", "tokens"))
    shape = SourceShape(
        name=source.name,
        documents_read=source.documents_read,
        dropped=source.dropped,
        documents=documents,
        sentences=sentences,
        tokens=stream - documents,
        unknown_share=unknown / tokens,
        long_share=long / tokens,
    )
    return Shape(shape, lone / tokens)


def _sample(shards: Sequence[Shard]) -> Iterator[tuple[Shard, int]]:
    ends = np.cumsum([len(shard) for shard in shards])
    chosen = np.unique(np.linspace(0, ends[-1] - 1, SAMPLE_DOCUMENTS).astype(np.int64))
    for document in np.random.default_rng(0).permutation(chosen).tolist():
        at = int(np.searchsorted(ends, document, "right"))
        yield shards[at], document - int(ends[at - 1]) if at else document
