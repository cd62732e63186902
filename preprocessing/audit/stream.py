"""What the shards' streams say together: counts against the manifest, the structure of the text, duplicates, lengths."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.audit.check import Check, without_problems
from preprocessing.audit.shards import ShardCounts
from preprocessing.corpus.limits import LONG_TOKENS, SourceShape, judge_sources
from preprocessing.corpus.manifest import UNIGRAM_COUNTS_FILE
from preprocessing.corpus.reader import (
    CLS_ID,
    DIGEST_BYTES,
    FIRST_ORDINARY_ID,
    MASK_ID,
    PAD_ID,
    SPLITS,
    UNK_ID,
    Manifest,
    SourceInfo,
)

DUPLICATE_LIMIT = 0.001
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TEMPLATES_SHOWN = 10
RANKS = 200  # points of the rank-frequency curve


def count_checks(manifest: Manifest, shards: Sequence[ShardCounts], directory: Path) -> list[Check]:
    """The manifest's and unigram_counts.npy's numbers against those of the shards."""
    return [
        _shard_counts(manifest, shards),
        _source_counts(manifest, shards),
        _documents_read(manifest),
        _unigram_counts(shards, directory),
        _unigram_entropies(manifest, shards),
    ]


def _shard_counts(manifest: Manifest, shards: Sequence[ShardCounts]) -> Check:
    said = {info.file: info for info in manifest.shards}
    problems = []
    for shard in shards:
        for what in ("documents", "sentences", "tokens"):
            got, wanted = getattr(shard.info, what), getattr(said[shard.info.file], what)
            if got != wanted:
                problems.append(f"{shard.info.file}: {got:,} {what}, the manifest says {wanted:,}")
    totals = [f"{sum(getattr(s.info, what) for s in shards):,} {what}" for what in ("documents", "sentences", "tokens")]
    fine = f"{', '.join(totals)} in {len(shards):,} shards"
    return without_problems("counts of every shard", problems, fine, "the manifest's documents, sentences, tokens of each")


def _source_counts(manifest: Manifest, shards: Sequence[ShardCounts]) -> Check:
    found: Counter[tuple[str, str, str]] = Counter()
    for shard in shards:
        for what in ("documents", "tokens"):
            found[shard.info.source, shard.info.split, what] += getattr(shard.info, what)
    said: Counter[tuple[str, str, str]] = Counter()
    problems = []
    for source in manifest.sources:
        for split in SPLITS:
            said[source.name, split, "documents"] = source.documents.get(split, 0)
            said[source.name, split, "tokens"] = source.tokens.get(split, 0)
        if sum(source.documents.values()) != source.documents_kept:
            problems.append(f"{source.name}: {source.documents_kept:,} kept, {sum(source.documents.values()):,} in its splits")
    for key in sorted(found.keys() | said.keys()):
        if found[key] != said[key]:
            source_name, split, what = key
            problems.append(f"{source_name}, {split}: {found[key]:,} {what}, the manifest says {said[key]:,}")
    fine = f"{len(manifest.sources)} sources in {len(SPLITS)} splits as the manifest says"
    expected = "sums over a source's shards are the manifest's documents and tokens; kept = sum of the splits"
    return without_problems("counts of every source", problems, fine, expected)


def _documents_read(manifest: Manifest) -> Check:
    def account(source: SourceInfo) -> str:
        return (
            f"{source.name}: {source.documents_read:,} read, {source.documents_kept:,} kept, "
            f"{sum(source.dropped.values()):,} dropped"
        )

    problems = [
        account(source)
        for source in manifest.sources
        if source.documents_read != source.documents_kept + sum(source.dropped.values())
    ]
    fine = "; ".join(account(source) for source in manifest.sources)
    return without_problems("documents read", problems, fine, "read = kept + dropped for every source")


def counts_of(shards: Sequence[ShardCounts], vocab_size: int) -> np.ndarray:
    """int64 [len(SPLITS), vocab_size], as unigram_counts.npy has it."""
    counts = np.zeros((len(SPLITS), vocab_size), np.int64)
    for shard in shards:
        counts[SPLITS.index(shard.info.split)] += shard.counts_V
    return counts


def _unigram_counts(shards: Sequence[ShardCounts], directory: Path) -> Check:
    name, expected = "unigram counts", f"{UNIGRAM_COUNTS_FILE} is int64 [splits, vocabulary], counted again from the shards"
    wanted = counts_of(shards, len(shards[0].counts_V))
    try:
        stored = np.load(directory / UNIGRAM_COUNTS_FILE)
    except (OSError, ValueError, EOFError) as error:
        return Check(name, False, f"cannot be read: {error}", expected)
    if stored.shape != wanted.shape or stored.dtype != wanted.dtype:
        return Check(name, False, f"{stored.dtype} {list(stored.shape)}, not int64 {list(wanted.shape)}", expected)
    differing = int((stored != wanted).sum())
    return Check(name, differing == 0, f"{differing:,} of {wanted.size:,} numbers differ", expected)


def _unigram_entropies(manifest: Manifest, shards: Sequence[ShardCounts]) -> Check:
    train, heldout = counts_of(shards, manifest.vocab_size)[:, FIRST_ORDINARY_ID:].astype(float)
    seen = heldout > 0
    p, q = heldout[seen] / max(1.0, heldout.sum()), (train + 1)[seen] / (train + 1).sum()
    found = float(-(p * np.log(p)).sum()), float(-(p * np.log(q)).sum())
    said = manifest.heldout_unigram_entropy_nats, manifest.heldout_unigram_cross_entropy_nats
    passed = all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(found, said, strict=True))
    return Check(
        "unigram entropies",
        passed,
        "held-out entropy {:.6f}, cross-entropy {:.6f} nats".format(*found),
        "the manifest's {:.6f} and {:.6f}".format(*said),
    )


def structure_checks(shards: Sequence[ShardCounts]) -> list[Check]:
    """Ids, special pieces, ends of sentences and documents."""
    counts_V = counts_of(shards, len(shards[0].counts_V)).sum(axis=0)
    beyond = sum(shard.beyond_vocabulary for shard in shards)
    forbidden = {"[PAD]": counts_V[PAD_ID], "[CLS]": counts_V[CLS_ID], "[MASK]": counts_V[MASK_ID]}
    unclosed, stray = sum(s.unclosed_documents for s in shards), sum(s.stray_seps for s in shards)
    documents, sentences = sum(s.info.documents for s in shards), sum(s.info.sentences for s in shards)
    empty_documents, empty_sentences = sum(s.empty_documents for s in shards), sum(s.empty_sentences for s in shards)
    open_ends = sum(s.open_ends for s in shards)
    return [
        Check("ids", beyond == 0, f"{beyond:,} ids beyond the vocabulary", f"0: all below {len(counts_V):,}"),
        Check(
            "special pieces",
            not any(forbidden.values()),
            ", ".join(f"{count:,} {piece}" for piece, count in forbidden.items()),
            "none of them in the text: only batches have them",
        ),
        Check(
            "[SEP]",
            unclosed == stray == 0,
            f"{unclosed:,} of {documents:,} documents do not end with it, {stray:,} stand elsewhere",
            "it closes every document and stands nowhere else",
        ),
        Check(
            "sentence ends",
            empty_documents == empty_sentences == open_ends == 0,
            f"{sentences:,} sentences: {empty_sentences:,} empty or out of order; {documents:,} documents: "
            f"{empty_documents:,} empty, {open_ends:,} whose last sentence does not end at the document's end - 1",
            "they ascend, no sentence and no document is empty, the last end is the document's end - 1",
        ),
    ]


def limit_checks(manifest: Manifest, shards: Sequence[ShardCounts]) -> list[Check]:
    """The bounds on what degenerates without an error, source by source."""
    return [Check(*judged) for judged in judge_sources([_shape(source, shards) for source in manifest.sources])]


def _shape(source: SourceInfo, shards: Sequence[ShardCounts]) -> SourceShape:
    own = [shard for shard in shards if shard.info.source == source.name]
    lengths = Counter[int]()
    for shard in own:
        lengths.update(shard.sentence_lengths)
    tokens = sum(length * count for length, count in lengths.items())
    return SourceShape(
        name=source.name,
        documents_read=source.documents_read,
        dropped=source.dropped,
        documents=sum(shard.info.documents for shard in own),
        sentences=lengths.total(),
        tokens=tokens,
        unknown_share=sum(int(shard.counts_V[UNK_ID]) for shard in own) / max(1, tokens),
        long_share=sum(length * count for length, count in lengths.items() if length > LONG_TOKENS) / max(1, tokens),
    )


def duplicate_checks(shards: Sequence[ShardCounts]) -> list[Check]:
    """Documents that another one is, too (see ShardCounts.digests): in all, and across the splits."""
    documents = sum(shard.info.documents for shard in shards)
    digests = np.frombuffer(b"".join(shard.digests for shard in shards), "<u8").reshape(-1, DIGEST_BYTES // 8)
    is_heldout = np.repeat([shard.info.split != "train" for shard in shards], [s.info.documents for s in shards])
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    repeated = documents - int(is_first.sum())
    text = np.cumsum(is_first) - 1  # of the documents in this order: which distinct text
    in_train = np.bincount(text, weights=~is_heldout[order]) > 0
    leaked = int((is_heldout[order] & in_train[text]).sum())
    return [
        Check(
            "duplicate documents",
            repeated <= DUPLICATE_LIMIT * documents,
            f"{repeated:,} of {documents:,} documents repeat an earlier one: {repeated / documents:.4%}",
            f"at most {DUPLICATE_LIMIT:.1%}",
        ),
        Check(
            "held-out documents in train",
            leaked == 0,
            f"{leaked:,} of {int(is_heldout.sum()):,} held-out documents stand in train, too",
            "0",
        ),
    ]


def length_figures(lengths: Sequence[dict[int, int]]) -> dict[str, Any]:
    """The distribution of lengths given as length -> occurrences: quantiles, and a histogram of half-octave bins."""
    total: Counter[int] = Counter()
    for part in lengths:
        total.update(part)
    values = np.array(sorted(total))
    counts = np.array([total[int(value)] for value in values])
    below = np.cumsum(counts)
    edges = np.unique(np.round(2 ** np.arange(0, math.log2(max(2, values[-1])) + 1, 0.5)).astype(int))
    return {
        "count": int(below[-1]),
        "mean": float((values * counts).sum() / below[-1]),
        "lowest": int(values[0]),
        "highest": int(values[-1]),
        "quantiles": {str(q): int(values[np.searchsorted(below, q * below[-1])]) for q in QUANTILES},
        "bin_edges": edges.tolist(),
        "bin_counts": np.histogram(values, edges, weights=counts)[0].astype(int).tolist(),
    }


def frequency_figures(counts_V: np.ndarray, pieces: Sequence[str]) -> dict[str, Any]:
    """How often the ordinary pieces occur, by rank: the curve at some ranks, the most frequent pieces, how many never do."""
    ordinary = counts_V[FIRST_ORDINARY_ID:]
    order = np.argsort(-ordinary, kind="stable")
    used = int((ordinary > 0).sum())
    ranks = np.unique(np.geomspace(1, max(1, used), RANKS).astype(int))
    return {
        "ordinary_pieces": len(ordinary),
        "never_used": len(ordinary) - used,
        "ranks": ranks.tolist(),
        "counts": ordinary[order[ranks - 1]].tolist(),
        "quantiles": {str(q): int(np.quantile(ordinary, q)) for q in QUANTILES},
        "most_frequent": [[pieces[i + FIRST_ORDINARY_ID], int(ordinary[i])] for i in order[:20]] if len(pieces) else [],
    }


def source_figures(manifest: Manifest, shards: Sequence[ShardCounts], seq_len: int) -> dict[str, dict[str, Any]]:
    """Of each source: what it holds, its share of the train tokens, and of the samples of an epoch."""
    figures: dict[str, dict[str, Any]] = {}
    # A shard of a source that the manifest does not list is a failed check elsewhere; here it is read once.
    sources = dict.fromkeys((s.info.source for s in shards), 1.0) | {s.name: s.epochs for s in manifest.sources}
    for name, epochs in sources.items():
        own = [shard.info for shard in shards if shard.info.source == name]
        train = [info.tokens for info in own if info.split == "train"]
        figures[name] = {
            "documents": sum(info.documents for info in own),
            "heldout_documents": sum(info.documents for info in own if info.split != "train"),
            "train_tokens": sum(train),
            "epochs": epochs,
            "epoch_tokens": sum(train) * epochs,
            "epoch_samples": sum(tokens // (seq_len - 2) for tokens in train) * epochs,
        }
    for share, of in (("token_share", "train_tokens"), ("sample_share", "epoch_samples")):
        whole = sum(row[of] for row in figures.values())
        for row in figures.values():
            row[share] = row[of] / whole if whole else 0.0
    return figures


def left_out_figures(manifest: Manifest) -> dict[str, dict[str, dict[str, int]]]:
    """Of each source, what the corpus does not hold of it, by reason, the most frequent first; only what there is."""
    figures = {}
    for source in manifest.sources:
        found = {
            "documents": source.dropped,
            "lines": source.dropped_lines,
            "records that are no document": source.skipped,
            "markup": source.dropped_markup,
            "unknown templates": source.unknown_templates,
        }
        ordered = {what: dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))) for what, counts in found.items()}
        ordered["unknown templates"] = dict(list(ordered["unknown templates"].items())[:TEMPLATES_SHOWN])
        figures[source.name] = {what: counts for what, counts in ordered.items() if counts}
    return figures


def left_out_lines(figures: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """The same in words, a line each: `wiki, documents left out: 99 redirect, 1 too short`."""
    return [
        f"{source}, {what} left out: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
        for source, kinds in figures.items()
        for what, counts in kinds.items()
    ]
