"""Corpora that the audit looks at, built from one material; and ways to falsify them."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.__main__ import training_loader
from preprocessing.audit.audit import Audit, audit
from preprocessing.base.files import file_sha256
from preprocessing.corpus.manifest import FORMAT, SPLITS, Manifest, ShardInfo, SourceInfo, write_manifest
from preprocessing.corpus.reader import FIRST_ORDINARY_ID
from preprocessing.corpus.writer import Document, ShardWriter, write_batch
from preprocessing.text.clean import clean, digest
from preprocessing.text.sentences import split_sentences
from preprocessing.text.tokenizer import load

VOCAB_SIZE = 500
HOSTILE = "<script>alert('&')</script>"
SHARDS = (("train", "prose"), ("train", "terms"), ("heldout", "prose"))
Edit = Callable[[str, np.ndarray, np.ndarray], None]  # shard, its tokens, its sentence ends: changed in place


@dataclasses.dataclass(frozen=True)
class Text:
    """A document as a source has it, and its sentences' ids."""

    title: str
    text: str
    sentences: list[list[int]]


@dataclasses.dataclass(frozen=True)
class Material:
    """What corpora are built from: some 1300 documents, no two alike, and a tokenizer trained on them."""

    model: bytes
    texts: list[Text]

    def encode(self, path: Path, text: str) -> list[list[int]]:
        path.write_bytes(self.model)
        return sentences_of(load(path), text)


def sentences_of(tokenizer: Any, text: str) -> list[list[int]]:
    return [ids for ids in tokenizer.encode([s for p in clean(text).paragraphs for s in split_sentences(p)]) if ids]


def build(
    directory: Path, material: Material, texts: Sequence[Sequence[Text]], edit: Edit | None = None, *, digests: bool = True
) -> Path:
    """A corpus of these documents, one list for each of SHARDS; `edit` may falsify a shard before anything is counted.
    digests: of the texts; older corpora have none."""
    directory.mkdir()
    tokenizer = directory / "tokenizer.model"
    tokenizer.write_bytes(material.model)
    infos, samples, counts = [], [], np.zeros((2, VOCAB_SIZE), np.int64)
    for index, ((split, source), documents) in enumerate(zip(SHARDS, texts, strict=True)):
        path = directory / f"{split}-{index:05d}.arrow"
        with ShardWriter(path, split, "uint16", vocab_size=VOCAB_SIZE, tokenizer_sha256=file_sha256(tokenizer)) as writer:
            for number, text in enumerate(documents):
                own = digest(clean(text.text).paragraphs) if digests else b""
                writer.add(Document(source, str(number), text.title, text.sentences, own))
                if number in (3, 40):
                    place = {"shard": path.name, "document": number, "source": source, "id": str(number)}
                    samples.append({**place, "title": text.title, "text": text.text})
        info, tokens = rewritten(path, writer.close(), edit)
        infos.append(info)
        counts[SPLITS.index(split)] += np.bincount(tokens[tokens < VOCAB_SIZE], minlength=VOCAB_SIZE)
    np.save(directory / "unigram_counts.npy", counts)
    (directory / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    write_manifest(directory, manifest_of(directory, infos, counts))
    return directory


def rewritten(path: Path, info: ShardInfo, edit: Edit | None) -> tuple[ShardInfo, np.ndarray]:
    batch = pa.ipc.open_file(path.read_bytes()).get_batch(0)
    columns = {name: batch.column(name) for name in ("tokens", "sentence_ends")}
    values = {name: column.values.to_numpy().copy() for name, column in columns.items()}
    if edit is None:
        return info, values["tokens"]
    edit(path.name, values["tokens"], values["sentence_ends"])
    for name, column in columns.items():
        edited = pa.ListArray.from_arrays(column.offsets, pa.array(values[name]))
        batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), edited)
    return write_batch(path, batch), values["tokens"]


def manifest_of(directory: Path, infos: Sequence[ShardInfo], counts: np.ndarray) -> Manifest:
    def total(what: str, source: str) -> dict[str, int]:
        return {split: sum(getattr(i, what) for i in infos if i.source == source and i.split == split) for split in SPLITS}

    sources = []
    for name in ("prose", "terms"):
        documents = total("documents", name)
        kept = sum(documents.values())
        sources.append(SourceInfo(name, kept + 2, kept, 1000, {"too short": 2}, documents, total("tokens", name)))
    p = counts[1][FIRST_ORDINARY_ID:] / counts[1][FIRST_ORDINARY_ID:].sum()
    q = (counts[0][FIRST_ORDINARY_ID:] + 1) / (counts[0][FIRST_ORDINARY_ID:] + 1).sum()
    hashes = {name: file_sha256(directory / name) for name in ("tokenizer.model", "unigram_counts.npy", "samples.jsonl")}
    return Manifest(
        format=FORMAT,
        vocab_size=VOCAB_SIZE,
        token_dtype="uint16",
        tokenizer_sha256=hashes["tokenizer.model"],
        unigram_counts_sha256=hashes["unigram_counts.npy"],
        samples_sha256=hashes["samples.jsonl"],
        shards=tuple(infos),
        sources=tuple(sources),
        settings={},
        versions={},
        heldout_unigram_entropy_nats=-sum(x * math.log(x) for x in p if x),
        heldout_unigram_cross_entropy_nats=-sum(x * math.log(y) for x, y in zip(p, q, strict=True)),
    )


def shared_out(texts: Sequence[Text]) -> list[list[Text]]:
    return [list(texts[200:800]), list(texts[800:]), list(texts[:200])]


def look(directory: Path, **options: Any) -> Audit:
    return audit(directory, training_loader, **{"positions": 20_000, **options})


def failures(found: Audit) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def another_source_text(directory: Path) -> None:
    path = directory / "samples.jsonl"
    first, *rest = map(json.loads, path.read_text().splitlines())
    first["text"] = "Quite another text stands here."
    path.write_text("".join(json.dumps(sample) + "\n" for sample in (first, *rest)))
    edit_manifest(directory, lambda m: m.update(samples_sha256=file_sha256(path)))
