"""What a corpus holds, as figures, as a table, and as decoded stretches of its stream."""

import random
from typing import Any

from preprocessing.build.shape import SEQ_LEN, not_next_share, shapes
from preprocessing.corpus.limits import SourceShape, judge_not_next, judge_sources
from preprocessing.corpus.manifest import SPLITS, Manifest, SourceInfo
from preprocessing.corpus.reader import SPECIAL_PIECES, Corpus
from preprocessing.text.tokenizer import load


def figures(corpus: Corpus) -> dict[str, Any]:
    """The corpus' figures under the names the table shows. Tokens include the [SEP]s."""
    manifest, found = corpus.manifest, shapes(corpus)
    not_next = not_next_share(corpus, found)
    judged = [*judge_sources([shape.source for shape in found]), judge_not_next(not_next, f"the pairs of {SEQ_LEN} tokens")]
    by_name = {shape.source.name: shape.source for shape in found}
    words = sum(source.words for source in manifest.sources)
    tokens = {split: manifest.tokens(split) for split in SPLITS}
    dropped: dict[str, int] = {}
    for source in manifest.sources:
        for reason, count in source.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    totals: dict[str, Any] = {
        "vocab_size": manifest.vocab_size,
        "documents": sum(manifest.documents(split) for split in SPLITS),
        "documents_dropped": dropped,
        "sentences": sum(manifest.sentences(split) for split in SPLITS),
        "words": words,
        "tokens": sum(tokens.values()),
        "tokens_per_word": sum(tokens.values()) / words,
        "not_next_share": round(not_next, 4),
        "heldout_unigram_entropy_nats": manifest.heldout_unigram_entropy_nats,
        "heldout_unigram_cross_entropy_nats": manifest.heldout_unigram_cross_entropy_nats,
        "shard_bytes": sum(shard.bytes for shard in manifest.shards),
        "token_dtype": manifest.token_dtype,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "manifest_sha256": corpus.manifest_sha256,
    }
    return {
        "directory": str(corpus.directory),
        "sources": {source.name: _source_figures(source, by_name[source.name]) for source in manifest.sources},
        "splits": {split: _split_figures(manifest, split) for split in SPLITS},
        **totals,
        "settings": manifest.settings,
        "versions": manifest.versions,
        "warnings": [f"{one.name}: {one.found}; expected {one.expected}" for one in judged if not one.passed],
    }


def _source_figures(source: SourceInfo, shape: SourceShape) -> dict[str, Any]:
    return {
        "documents_read": source.documents_read,
        "documents_kept": source.documents_kept,
        "documents_dropped": dict(source.dropped),
        "lines_dropped": dict(source.dropped_lines),
        "records_skipped": dict(source.skipped),
        "duplicate_ids": source.duplicate_ids,
        "epochs": source.epochs,
        "words": source.words,
        "tokens": sum(source.tokens.values()),
        "heldout_documents": source.documents.get("heldout", 0),
        "sentences_a_document": round(shape.sentences / shape.documents, 4),
        "tokens_a_sentence": round(shape.tokens / shape.sentences, 4),
        "unknown_share": round(shape.unknown_share, 4),
    }


def _split_figures(manifest: Manifest, split: str) -> dict[str, Any]:
    return {
        "documents": manifest.documents(split),
        "sentences": manifest.sentences(split),
        "tokens": manifest.tokens(split),
        "shards": sum(shard.split == split for shard in manifest.shards),
    }


def table(found: dict[str, Any]) -> str:
    """`figures` as text: one grid of the sources, one of the splits, then the totals line by line, then the warnings."""
    lines = [found["directory"], ""]
    for name in ("sources", "splits"):
        rows = found[name]
        columns = list(next(iter(rows.values())))
        grid = [[name, *columns], *([key, *(_cell(row[column]) for column in columns)] for key, row in rows.items())]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in grid]
        lines.append("")
    totals = {key: value for key, value in found.items() if key not in ("directory", "sources", "splits")}
    width = max(map(len, totals))
    lines += [f"{key.ljust(width)}  {_cell(value)}" for key, value in totals.items()]
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in found["warnings"])])


def _cell(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value):,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def sequences(corpus: Corpus, count: int, seq_len: int, seed: int) -> list[str]:
    """`count` random stretches of `seq_len` tokens of the train stream, decoded; specials are shown by name."""
    if count < 0 or seq_len < 1:
        raise ValueError(f"--sequences {count} --seq-len {seq_len}: expected 0 or more of 1 or more tokens")
    tokenizer, shards = load(corpus.tokenizer_path), corpus.shards("train")
    generator = random.Random(seed)
    texts = []
    for _ in range(count):
        shard = generator.choices(shards, [shard.info.tokens for shard in shards])[0]
        start = generator.randrange(max(1, shard.info.tokens - seq_len + 1))
        pieces = [tokenizer.id_to_piece(int(i)) for i in shard.tokens[start : start + seq_len]]
        text = "".join(f" {piece} " if piece in SPECIAL_PIECES else piece.replace("▁", " ") for piece in pieces)
        texts.append(" ".join(text.split()))
    return texts
