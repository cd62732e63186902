"""From finished slices to a corpus: duplicates over all slices go, gates are checked, OUT appears whole.

Shards that lose no document are linked, the others written anew, into OUT.work/corpus-<host>-<pid>, which is renamed to OUT
last of all. Stopped at any moment, it can be run again.
"""

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.base.arrays import StoredArray, write_array
from preprocessing.base.files import NOT_OFFERED, file_sha256, replacing, sync_directory, write_whole
from preprocessing.build.ledger import Finished, finished_slices, source_infos
from preprocessing.build.marker import slice_path
from preprocessing.build.plan import SLICES_FOLDER, Plan
from preprocessing.build.slices import SAMPLES
from preprocessing.build.spans import check_spans
from preprocessing.build.workers import work
from preprocessing.corpus.manifest import (
    FORMAT,
    SAMPLES_FILE,
    SPLITS,
    TOKENIZER_FILE,
    UNIGRAM_COUNTS_FILE,
    Manifest,
    ShardInfo,
    SourceInfo,
    write_manifest,
)
from preprocessing.corpus.reader import FIRST_ORDINARY_ID, Shard, token_dtype
from preprocessing.corpus.writer import piece_counts, write_batch
from preprocessing.text.duplicates import later_rows
from preprocessing.text.near_duplicates import near_duplicates


class _Kept(NamedTuple):
    """What a slice brings to the corpus."""

    number: int
    shards: dict[str, ShardInfo]  # by split; their files are named after the slice yet


def finalize(folder: Path, plan: Plan, out: Path, workers: int, done: Callable[[Any], None]) -> None:
    """Make the corpus at `out`. ValueError: slices not done, a gate not kept, nothing in a split. OSError: disk full."""
    finished = finished_slices(folder, plan)
    work(_check_files, finished, partial(Path, folder), workers, lambda number: None)
    check_spans(plan, [one.marker.spans for one in finished])
    lost, reasons = _lost(folder, plan, finished)
    assembling = folder / f"corpus-{socket.gethostname()}-{os.getpid()}"
    shutil.rmtree(assembling, ignore_errors=True)  # ours: a process that had this number was killed
    assembling.mkdir()
    kept: list[_Kept] = []
    counts = np.zeros((len(SPLITS), plan.settings.vocab_size), np.int64)

    def collect(result: tuple[_Kept, NDArray[np.int64]]) -> None:
        kept.append(result[0])
        counts[:] += result[1]
        done(result)

    items = [(one.number, one.shards, rows) for one, rows in zip(finished, lost, strict=True)]
    work(_keep, items, partial(_Place, folder, assembling, plan), workers, collect)
    kept.sort(key=lambda one: one.number)
    names = _name_shards(assembling, kept)
    shards = tuple(replace(kept[at].shards[split], file=name) for (at, split), name in names.items())
    infos = source_infos(folder, plan, finished, lost, reasons, shards)
    _write_small_files(assembling, plan.tokenizer(folder), finished, lost, names, counts)
    write_manifest(assembling, _manifest(assembling, plan, counts, shards, infos))
    sync_directory(assembling)
    os.rename(assembling, out)  # onto nothing, or onto an empty directory
    sync_directory(out.parent)


def _lost(folder: Path, plan: Plan, finished: Sequence[Finished]) -> tuple[list[NDArray[np.uint32]], list[dict[str, int]]]:
    """For each slice the rows that go, ascending, and how many for which reason."""

    def load(name: str) -> list[StoredArray]:
        return [StoredArray(slice_path(folder, one.number, name)) for one in finished]

    lost = later_rows(load("texts.npy"))
    reasons = [{"duplicate": len(rows)} for rows in lost]
    if threshold := plan.settings.near_duplicates:
        alive = [np.ones(len(one.documents), bool) for one in finished]
        for flags, rows in zip(alive, lost, strict=True):
            flags[rows] = False
        near = near_duplicates(load("signatures.npy"), alive, threshold)
        for number, flags in enumerate(near):
            reasons[number]["near duplicate"] = int(flags.sum())
            lost[number] = np.union1d(lost[number], np.flatnonzero(flags)).astype(np.uint32)
    return lost, reasons


def _check_files(folder: Path, one: Finished) -> int:
    """ValueError unless every file of a slice is what its marker says."""
    for name, info in one.marker.files.items():
        path = folder / SLICES_FOLDER / name
        if file_sha256(path) != info.sha256:
            raise ValueError(f"{path}: damaged since it was made (sha256); remove it, and `shard` makes its slice again")
    return one.number


class _Place(NamedTuple):
    """Where shards are taken from and put."""

    folder: Path
    assembling: Path
    plan: Plan


def _keep(place: _Place, item: tuple[int, dict[str, ShardInfo], NDArray[np.uint32]]) -> tuple[_Kept, NDArray[np.int64]]:
    """Bring a slice's shards, less its lost rows, into the corpus being assembled; also counts their pieces by split."""
    number, made, lost = item
    counts = np.load(slice_path(place.folder, number, "counts.npy"))
    heldout = np.load(slice_path(place.folder, number, "documents.npy"))["heldout"]
    shards = {}
    for split, info in made.items():
        is_here = heldout == (split == "heldout")
        stays = np.ones(len(heldout), bool)
        stays[lost] = False
        stays = stays[is_here]
        old, new = slice_path(place.folder, number, f"{split}.arrow"), place.assembling / info.file
        if stays.all():
            shards[split] = info
            _link(old, new)
        elif stays.any():
            shards[split], counts[SPLITS.index(split)] = _filtered(old, new, info, stays, place.plan)
        else:
            counts[SPLITS.index(split)] = 0
    return _Kept(number, shards), counts


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError as error:  # a file system without links, or with too many
        if error.errno not in (*NOT_OFFERED, errno.EMLINK, errno.EXDEV):
            raise
        with replacing(new) as temporary:
            shutil.copyfile(old, temporary)


def _filtered(
    old: Path, new: Path, info: ShardInfo, stays: NDArray[np.bool_], plan: Plan
) -> tuple[ShardInfo, NDArray[np.int64]]:
    size = plan.settings.vocab_size
    shard = Shard(old, info, token_dtype=token_dtype(size), tokenizer_sha256=plan.tokenizer_sha256)
    batch = shard.batch.filter(pa.array(stays))
    tokens = batch.column("tokens").flatten().to_numpy()
    return write_batch(new, batch), piece_counts(tokens, size)


def _name_shards(assembling: Path, kept: Sequence[_Kept]) -> dict[tuple[int, str], str]:
    """Give every shard its name in the corpus: (position in `kept`, split) -> name, the train split first."""
    names = {}
    for split in SPLITS:
        places = [at for at, one in enumerate(kept) if split in one.shards]
        if not places:
            raise ValueError(f"the {split} split is empty: give more or other text, or another --heldout-fraction")
        for index, at in enumerate(places):
            names[at, split] = f"{split}-{index:05d}.arrow"
            os.rename(assembling / kept[at].shards[split].file, assembling / names[at, split])
    return names


def _write_small_files(
    assembling: Path,
    tokenizer: Path,
    finished: Sequence[Finished],
    lost: Sequence[NDArray[np.uint32]],
    names: dict[tuple[int, str], str],
    counts: NDArray[np.int64],
) -> None:
    write_whole(assembling / TOKENIZER_FILE, tokenizer.read_bytes())
    write_array(assembling / UNIGRAM_COUNTS_FILE, counts)
    samples = []
    for at, one in enumerate(finished):
        heldout = one.documents["heldout"]
        for draw, sample in one.marker.samples:
            row = sample.row
            if row not in lost[at]:
                split = SPLITS[int(heldout[row])]
                before = heldout[:row] == heldout[row]
                gone = (lost[at] < row) & (heldout[lost[at]] == heldout[row])
                place = {"shard": names[at, split], "document": int(before.sum() - gone.sum())}
                text = {"source": sample.source, "id": sample.id, "title": sample.title, "text": sample.text}
                samples.append((draw, {**place, **text}))
    samples.sort(key=lambda one: one[0])
    lines = [json.dumps(facts) + "\n" for _, facts in samples[:SAMPLES]]
    write_whole(assembling / SAMPLES_FILE, "".join(lines).encode())


def _manifest(
    assembling: Path, plan: Plan, counts: NDArray[np.int64], shards: tuple[ShardInfo, ...], infos: tuple[SourceInfo, ...]
) -> Manifest:
    entropy, cross_entropy = unigram_entropies_nats(counts[0], counts[1])
    return Manifest(
        format=FORMAT,
        vocab_size=plan.settings.vocab_size,
        token_dtype=token_dtype(plan.settings.vocab_size),
        tokenizer_sha256=plan.tokenizer_sha256,
        unigram_counts_sha256=file_sha256(assembling / UNIGRAM_COUNTS_FILE),
        samples_sha256=file_sha256(assembling / SAMPLES_FILE),
        shards=shards,
        sources=infos,
        settings=plan.settings.as_json(),
        versions=plan.versions,
        heldout_unigram_entropy_nats=entropy,
        heldout_unigram_cross_entropy_nats=cross_entropy,
    )


def unigram_entropies_nats(train: np.ndarray, heldout: np.ndarray) -> tuple[float, float]:
    """Entropy of the held-out unigrams, and their cross-entropy under the train unigrams with one added to each count.

    Nats a token, over ordinary ids only: specials are never predicted.
    """
    train, heldout = train[FIRST_ORDINARY_ID:] + 1, heldout[FIRST_ORDINARY_ID:]
    p = heldout[heldout > 0] / heldout.sum()
    q = train[heldout > 0] / train.sum()
    return float(-(p * np.log(p)).sum()), float(-(p * np.log(q)).sum())
