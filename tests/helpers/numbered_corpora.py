"""Corpora whose tokens are numbered, so that a token tells where it stood; and what is read from them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from pipeline.data.batch import Batch
from pipeline.data.pretraining import PretrainingData
from preprocessing.corpus.reader import FIRST_ORDINARY_ID, SEP_ID, Shard
from preprocessing.corpus.writer import Document, ShardWriter

VOCAB_SIZE = 30_000
OBJECTIVES = ("mlm", "mlm+nsp")
L = 32

Documents = list[list[list[list[int]]]]  # [shard][document][sentence][token]


def numbered_documents(sentence_counts: list[list[int]], lengths: tuple[int, int], seed: int = 0) -> Documents:
    """Documents whose ordinary tokens are 5, 6, 7, … over the whole split, so a token tells where it stood."""
    rng = np.random.default_rng(seed)
    token = FIRST_ORDINARY_ID
    shards: Documents = []
    for counts in sentence_counts:
        shard = []
        for n_sentences in counts:
            document = []
            for length in rng.integers(*lengths, n_sentences).tolist():
                document.append(list(range(token, token + length)))
                token += length
            shard.append(document)
        shards.append(shard)
    assert token <= VOCAB_SIZE
    return shards


def write_corpus(directory: Path, documents: Documents, split: str = "train") -> Any:
    """Real shards behind the two names of a Corpus that PretrainingData reads."""
    directory.mkdir(parents=True, exist_ok=True)
    shards = []
    for index, shard in enumerate(documents):
        with ShardWriter(directory / f"{split}-{index:05d}.arrow", split, "uint16", vocab_size=VOCAB_SIZE) as writer:
            for number, sentences in enumerate(shard):
                writer.add(Document("made up", str(number), "", sentences))
        shards.append(Shard(writer.path, writer.close(), token_dtype="uint16"))
    return SimpleNamespace(vocab_size=VOCAB_SIZE, shards=lambda name: tuple(shards) if name == split else ())


DOCUMENTS = numbered_documents([[20, 1, 30, 2, 40] * 3, [3] * 30, [100]], (3, 14))


def make(corpus: Any, objective: str = "mlm", seq_len: int = L, seed: int = 1, **changes: Any) -> PretrainingData:
    return PretrainingData(corpus, "train", objective, seq_len, changes.pop("mask_fraction", 0.15), seed, **changes)


def unmasked(batch: Batch) -> torch.Tensor:
    """input_ids with the labels put back."""
    tokens_BL = batch.input_ids.clone()
    real_BP = batch.weights > 0
    row_BP = torch.arange(len(tokens_BL))[:, None].expand_as(real_BP)
    tokens_BL[row_BP[real_BP], batch.positions[real_BP]] = batch.labels[real_BP]
    return tokens_BL


def assert_rows_equal(one: Batch, rows: list[int], other: Batch) -> None:
    for name, value in one.tensors().items():
        assert torch.equal(value[rows], other.tensors()[name]), name


def streams(documents: Documents) -> list[np.ndarray]:
    """Each shard's stream, made from the documents: the sentences' tokens, then [SEP]."""
    return [np.array([t for doc in shard for sentence in [*doc, [SEP_ID]] for t in sentence]) for shard in documents]
