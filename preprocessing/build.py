"""Build a corpus: sources to tokenizer to shards, all or nothing.

Everything is written into OUT.building-<pid> beside OUT and renamed at the end, so OUT is either absent or whole. The
same sources and settings give the same bytes in every file.
"""

import errno
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from preprocessing.clean import CLEANING_VERSION, split_sentences
from preprocessing.manifest import (
    FORMAT,
    SPLITS,
    TOKENIZER_FILE,
    UNIGRAM_COUNTS_FILE,
    Manifest,
    file_sha256,
    read_manifest,
    write_manifest,
)
from preprocessing.passes import Progress, SplitWriter, survey, write_shards
from preprocessing.shards import FIRST_ORDINARY_ID, Shard, ShardInfo, open_corpus, token_dtype
from preprocessing.sources import Source
from preprocessing.tokenizer import SAMPLE_CHARACTERS, TextSample, load, train

SHARD_TOKENS = 16_000_000


def build(
    sources: list[Source],
    out: Path,
    *,
    vocab_size: int = 8192,
    heldout_fraction: float = 0.02,
    seed: int = 0,
    min_words: int = 20,
    shard_tokens: int = SHARD_TOKENS,
    sample_characters: int = SAMPLE_CHARACTERS,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Build the corpus at `out`, or find it built there already; returns its manifest.

    ValueError or OSError, said in one line: bad settings or sources; another corpus or other files at `out`; disk
    full. After any error or Ctrl-C nothing new is left on the disk.
    """
    settings: dict[str, Any] = {
        "cleaning_version": CLEANING_VERSION,
        "heldout_fraction": heldout_fraction,
        "min_words": min_words,
        "sample_characters": sample_characters,
        "seed": seed,
        "shard_tokens": shard_tokens,
        "vocab_size": vocab_size,
    }
    _check_settings(settings)
    if (present := _already_built(sources, out, settings)) is not None:
        say(f"{out}: already built with these sources and settings")
        return present
    with _staging(out, say) as directory:
        _build_into(directory, sources, settings, say)
        os.rename(directory, out)  # onto nothing, or onto an empty directory
    say(f"{out}: built")
    return read_manifest(out)


def _check_settings(settings: dict[str, Any]) -> None:
    limits = {
        "heldout_fraction": (0.0, 1.0, "a fraction above 0 and below 1"),
        "vocab_size": (5, 1 << 20, "6 to 1048575 pieces"),
        "shard_tokens": (0, 1 << 30, "1 to 1073741823 tokens"),
        "sample_characters": (0, 1 << 40, "at least 1 character"),
        "min_words": (-1, 1 << 40, "0 words or more"),
    }
    for name, (low, high, expected) in limits.items():
        if not low < settings[name] < high:
            raise ValueError(f"--{name.replace('_', '-')} {settings[name]}: expected {expected}")


def _already_built(sources: list[Source], out: Path, settings: dict[str, Any]) -> Manifest | None:
    """The manifest at `out` if it is this very corpus; None if there is nothing; ValueError if something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        manifest = open_corpus(out, verify="sizes").manifest
    except (ValueError, OSError) as error:
        raise ValueError(f"{out}: exists and is not a corpus to keep ({error}); move it away or choose another --out") from None
    wanted = {**settings, **_fingerprints((s.name, s.version, s.files) for s in sources)}
    found = {**manifest.settings, **_fingerprints((s.name, s.version, s.files) for s in manifest.sources)}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"{out}: exists, built with {name} {_brief(found.get(name))}, this build says "
                f"{_brief(wanted.get(name))}; choose another --out, or move it away"
            )
    return manifest


def _fingerprints(sources: Iterable[tuple[str, str, tuple[dict[str, Any], ...]]]) -> dict[str, Any]:
    return {f"source {name}": (version, list(files)) for name, version, files in sources}


def _brief(value: object) -> str:
    """A setting or a source's fingerprint, short enough for a line."""
    if value is None:
        return "(none)"
    if isinstance(value, tuple):
        version, files = value
        return version or "; ".join(f"{f['path']} {f['bytes']} bytes sha256 {f['sha256'][:12]}…" for f in files)
    return repr(value)


@contextmanager
def _staging(out: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """A fresh directory beside `out`, removed unless the block renames it. Explains a full disk."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in sorted(out.parent.glob(f"{out.name}.building-*")):
        say(f"{left}: left by a build that was killed, or still at work; not used, remove it if no build runs")
    directory = out.with_name(f"{out.name}.building-{os.getpid()}")
    directory.mkdir()
    try:
        yield directory
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        written = sum(path.stat().st_size for path in directory.iterdir())
        free = shutil.disk_usage(directory).free
        raise OSError(
            f"{out.parent}: disk full: {written:,} bytes were written, the next file did not fit into the {free:,} "
            f"bytes left; they are removed again: free some space or choose an --out on another disk"
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _build_into(directory: Path, sources: list[Source], settings: dict[str, Any], say: Callable[[str], None]) -> None:
    progress = _progress(say)
    found = survey(sources, TextSample(settings["seed"], settings["sample_characters"]), settings, progress)
    sentences = [sentence for paragraph in found.sample for sentence in split_sentences(paragraph)]
    say(f"training the tokenizer on {sum(map(len, sentences)):,} characters")
    _write_file(directory / TOKENIZER_FILE, train(sentences, settings["vocab_size"]))
    tokenizer, tokenizer_sha256 = load(directory / TOKENIZER_FILE), file_sha256(directory / TOKENIZER_FILE)
    writers = {
        split: SplitWriter(directory, split, settings["vocab_size"], tokenizer_sha256, settings["shard_tokens"])
        for split in SPLITS
    }
    infos = write_shards(sources, found, writers, tokenizer, settings, progress)
    for split, writer in writers.items():
        if not writer.shards:
            raise ValueError(f"the {split} split is empty: no document of it has tokens; give more or other text")
    shards = tuple(shard for writer in writers.values() for shard in writer.shards)
    counts = _unigram_counts(directory, shards, settings["vocab_size"], tokenizer_sha256)
    buffer = io.BytesIO()  # np.save to a file on a full disk raises an error without the reason
    np.save(buffer, counts)
    _write_file(directory / UNIGRAM_COUNTS_FILE, buffer.getvalue())
    entropy, cross_entropy = unigram_entropies_nats(counts[0], counts[1])
    manifest = Manifest(
        format=FORMAT,
        vocab_size=settings["vocab_size"],
        token_dtype=token_dtype(settings["vocab_size"]),
        tokenizer_sha256=tokenizer_sha256,
        unigram_counts_sha256=file_sha256(directory / UNIGRAM_COUNTS_FILE),
        shards=shards,
        sources=infos,
        settings=settings,
        versions={name: version(name) for name in ("numpy", "pyarrow", "sentencepiece")},
        heldout_unigram_entropy_nats=entropy,
        heldout_unigram_cross_entropy_nats=cross_entropy,
    )
    write_manifest(directory, manifest)
    _sync_directory(directory)


def _write_file(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    """Make the names in a directory as durable as the files: an fsync of a file does not cover its name."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unigram_counts(directory: Path, shards: tuple[ShardInfo, ...], vocab_size: int, sha256: str) -> np.ndarray:
    counts = np.zeros((len(SPLITS), vocab_size), np.int64)
    for info in shards:
        shard = Shard(directory / info.file, info, token_dtype=token_dtype(vocab_size), tokenizer_sha256=sha256)
        counts[SPLITS.index(info.split)] += np.bincount(shard.tokens, minlength=vocab_size)
    return counts


def unigram_entropies_nats(train: np.ndarray, heldout: np.ndarray) -> tuple[float, float]:
    """Entropy of the held-out unigrams, and their cross-entropy under the train unigrams with one added to each count.

    Nats a token, over ordinary ids only: specials are never predicted.
    """
    train, heldout = train[FIRST_ORDINARY_ID:] + 1, heldout[FIRST_ORDINARY_ID:]
    p = heldout[heldout > 0] / heldout.sum()
    q = train[heldout > 0] / train.sum()
    return float(-(p * np.log(p)).sum()), float(-(p * np.log(q)).sum())


def _progress(say: Callable[[str], None]) -> Progress:
    """A bar on a terminal, else one line a pass and source."""

    def progress(documents: Iterable[Any], label: str) -> Iterable[Any]:
        if sys.stderr.isatty():
            return tqdm(documents, desc=label, unit=" documents", leave=False)
        say(label)
        return documents

    return progress
