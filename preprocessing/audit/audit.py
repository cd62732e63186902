"""`audit`: proves a built corpus. Every claim of the manifest and of the format is looked up in the files again.

Memory is bounded by a shard and a few bytes a document: the shards are memory maps, looked at one after another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sentencepiece

from preprocessing.audit.check import Check, Say, without_problems
from preprocessing.audit.masking import MakeLoader, masking_checks
from preprocessing.audit.pairs import pair_checks
from preprocessing.audit.samples import sample_check
from preprocessing.audit.shards import ShardCounts, StoredShard, count_shard, read_shard
from preprocessing.audit.stream import (
    count_checks,
    counts_of,
    duplicate_checks,
    frequency_figures,
    left_out_figures,
    left_out_lines,
    length_figures,
    limit_checks,
    source_figures,
    structure_checks,
)
from preprocessing.base.files import file_sha256
from preprocessing.corpus.manifest import SAMPLES_FILE, SPLITS, TOKENIZER_FILE, UNIGRAM_COUNTS_FILE, read_manifest
from preprocessing.corpus.reader import Manifest
from preprocessing.text.tokenizer import load

__all__ = ["Audit", "Check", "audit", "table"]


@dataclass(frozen=True)
class Audit:
    """All checks, in order, and figures to show (JSON-able): what there is depends on how much could be read."""

    checks: tuple[Check, ...]
    figures: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Every check did."""
        return all(check.passed for check in self.checks)


def audit(
    directory: Path,
    make_loader: MakeLoader,
    *,
    seed: int = 0,
    positions: int = 1_000_000,
    seq_len: int = 128,
    say: Say = lambda line: None,
) -> Audit:
    """Check a corpus and its masking over at least `positions` predictions; `seed` chooses masks and documents to show.
    `make_loader`: what will read the corpus.

    What is wrong with the corpus is a failed check; what can still be looked at is. Raises FileNotFoundError or ValueError
    only if the directory is no finished corpus, or an argument is out of range.
    """
    if positions < 1 or seq_len < 5 or not 0 <= seed < 1 << 64:
        raise ValueError(
            f"positions {positions}, seq_len {seq_len}, seed {seed}: expected positions from 1, seq_len from 5, "
            f"seed from 0 to 2**64 - 1"
        )
    manifest = read_manifest(directory)
    say("hashes of the files")
    checks = [_files(directory, manifest)]
    stored, check = _open_shards(directory, manifest)
    tokenizer, tokenizer_check = _open_tokenizer(directory, manifest)
    checks += [check, tokenizer_check]
    figures: dict[str, Any] = {"directory": str(directory), "vocab_size": manifest.vocab_size, "seed": seed}
    figures |= {"settings": manifest.settings, "versions": manifest.versions}
    figures["left_out"] = left_out_figures(manifest)
    if not stored:
        return Audit(tuple(checks), figures)
    counts = _counted(stored, manifest.vocab_size, say)
    structure = structure_checks(counts)
    checks += [*count_checks(manifest, counts, directory), *structure]
    checks += [*limit_checks(manifest, counts), *duplicate_checks(counts)]
    figures |= _stream_figures(manifest, counts, tokenizer, seq_len)
    if tokenizer is not None:
        say("documents and their source text")
        check, figures["samples"] = sample_check(directory, {s.info.file: s for s in stored}, tokenizer, seed)
        checks.append(check)
    say("masking")
    options: dict[str, Any] = {"seed": seed, "positions": positions, "seq_len": seq_len, "say": say}
    masking, figures["masking"] = masking_checks(directory, manifest, stored, figures["sources"], make_loader, **options)
    if figures["masking"] and all(check.passed for check in structure):  # else it trusts ends that are wrong
        say("sentence pairs")
        readable = replace(manifest, shards=tuple(shard.info for shard in stored))
        pairs, figures["pairs"] = pair_checks(directory, readable, make_loader, **options)
        masking += pairs
    return Audit((*checks, *masking), figures)


def _files(directory: Path, manifest: Manifest) -> Check:
    """Size (of shards) and sha256 of every file."""
    files: list[tuple[str, int | None, str]] = [
        (TOKENIZER_FILE, None, manifest.tokenizer_sha256),
        (UNIGRAM_COUNTS_FILE, None, manifest.unigram_counts_sha256),
        (SAMPLES_FILE, None, manifest.samples_sha256),
        *((info.file, info.bytes, info.sha256) for info in manifest.shards),
    ]
    problems, total = [], 0
    for name, size, sha256 in files:
        path = directory / name
        if not path.is_file():
            problems.append(f"{name}: missing")
            continue
        total += (found_size := path.stat().st_size)
        if size is not None and found_size != size:
            problems.append(f"{name}: {found_size:,} bytes, the manifest says {size:,}")
        elif (found := file_sha256(path)) != sha256:
            problems.append(f"{name}: sha256 {found[:12]}…, the manifest says {sha256[:12]}…")
    fine = f"{len(files):,} files, {total:,} bytes, as the manifest says"
    return without_problems("files", problems, fine, "size and sha256 of every file as in the manifest")


def _open_shards(directory: Path, manifest: Manifest) -> tuple[list[StoredShard], Check]:
    stored, problems = [], []
    for info in manifest.shards:
        shard, wrong = read_shard(directory, info, manifest)
        problems += wrong
        if shard is not None:
            stored.append(shard)
    fine = f"{len(stored):,} shards of {len({info.source for info in manifest.shards})} sources"
    expected = "Arrow files of this format, of the manifest's split, source, vocabulary and tokenizer; a shard has one source"
    return stored, without_problems("shards", problems, fine, expected)


def _open_tokenizer(directory: Path, manifest: Manifest) -> tuple[sentencepiece.SentencePieceProcessor | None, Check]:
    name, expected = "tokenizer", f"a SentencePiece model of {manifest.vocab_size:,} pieces, BERT's special ones first"
    try:
        tokenizer = load(directory / TOKENIZER_FILE)
    except (OSError, ValueError) as error:
        return None, Check(name, False, str(error), expected)
    pieces = tokenizer.get_piece_size()
    return tokenizer, Check(name, pieces == manifest.vocab_size, f"{pieces:,} pieces", expected)


def _counted(stored: Sequence[StoredShard], vocab_size: int, say: Say) -> list[ShardCounts]:
    counts = []
    for shard in stored:
        say(f"tokens of {shard.info.file}")
        counts.append(count_shard(shard, vocab_size))
    return counts


def _stream_figures(
    manifest: Manifest,
    counts: Sequence[ShardCounts],
    tokenizer: sentencepiece.SentencePieceProcessor | None,
    seq_len: int,
) -> dict[str, Any]:
    known = tokenizer is not None and tokenizer.get_piece_size() == manifest.vocab_size
    pieces = [tokenizer.id_to_piece(i) for i in range(manifest.vocab_size)] if tokenizer is not None and known else []
    found = replace(manifest, shards=tuple(shard.info for shard in counts))
    return {
        "splits": {
            split: {
                "documents": found.documents(split),
                "sentences": found.sentences(split),
                "tokens": found.tokens(split),
                "shards": sum(info.split == split for info in found.shards),
            }
            for split in SPLITS
        },
        "sources": source_figures(manifest, counts, seq_len),
        "document_tokens": length_figures([shard.document_lengths for shard in counts]),
        "sentence_tokens": length_figures([shard.sentence_lengths for shard in counts]),
        "token_frequency": frequency_figures(counts_of(counts, manifest.vocab_size).sum(axis=0), pieces),
    }


def table(found: Audit) -> str:
    """The checks as text, each with what was found over what was expected, then the verdict."""
    width = max(len(check.name) for check in found.checks)
    lines = [found.figures["directory"], ""]
    for check in found.checks:
        lines.append(f"{'ok  ' if check.passed else 'FAIL'}  {check.name.ljust(width)}  {check.found}")
        lines.append(f"      {' ' * width}  expected {check.expected}")
    if left_out := left_out_lines(found.figures["left_out"]):
        lines += ["", *left_out]
    failed = [check.name for check in found.checks if not check.passed]
    verdict = f"{len(failed)} FAILED: {', '.join(failed)}" if failed else "all passed"
    return "\n".join([*lines, "", f"{len(found.checks)} checks, {verdict}"])
