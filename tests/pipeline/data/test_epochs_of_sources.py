"""A source that an epoch reads e times has each of its samples so often, each time under another mask."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.data.pretraining import PretrainingData
from preprocessing.corpus.reader import Shard
from preprocessing.corpus.writer import Document, ShardWriter

SEQ_LEN, VOCAB_SIZE = 12, 5000
SAMPLES = (40, 20, 30)  # of each shard; a stretch of SEQ_LEN - 2 tokens each


def corpus(directory: Path, epochs: tuple[float, ...]) -> Any:
    """Shards of consecutive ids, so that a stretch's first token names it."""
    shards, first = [], 5
    for index, (count, times) in enumerate(zip(SAMPLES, epochs, strict=True)):
        tokens = count * (SEQ_LEN - 2)
        with ShardWriter(directory / f"train-{index:05d}.arrow", "train", "uint16", vocab_size=VOCAB_SIZE) as writer:
            writer.add(Document(f"source {index}", "", "", [range(first, first + tokens)]))
        first += tokens
        shards.append(Shard(writer.path, writer.close(), token_dtype="uint16", epochs=times))
    return SimpleNamespace(vocab_size=VOCAB_SIZE, shards=lambda split: tuple(shards))


def stretches(data: PretrainingData) -> list[int]:
    """Which stretch each sample of the first epoch is, counted over all shards."""
    batch = data.batch(np.arange(data.n_samples))
    tokens_BL = batch.input_ids.clone()
    tokens_BL.scatter_(1, batch.positions, batch.labels)
    assert (tokens_BL[:, 2:-1] - tokens_BL[:, 1:-2] == 1).all()
    return [(int(row[1]) - 5) // (SEQ_LEN - 2) for row in tokens_BL]


@pytest.mark.parametrize("epochs", [(1.0, 1.0, 1.0), (1.0, 3.0, 1.0), (2.5, 1.0, 0.5), (1.0, 4 / 3, 0.1)])
def test_each_sample_comes_as_often_as_its_source_is_read(tmp_path: Path, epochs: tuple[float, ...]) -> None:
    data = PretrainingData(corpus(tmp_path, epochs), "train", "mlm", SEQ_LEN, 0.15, seed=3)
    expected, first = Counter[int](), 0
    for count, times in zip(SAMPLES, epochs, strict=True):
        expected.update(first + j % count for j in range(int(count * times + 1e-6)))
        first += count
    assert Counter(stretches(data)) == expected
    assert data.n_samples == expected.total()


def test_a_second_reading_has_other_masks(tmp_path: Path) -> None:
    data = PretrainingData(corpus(tmp_path, (2.0, 1.0, 1.0)), "train", "mlm", SEQ_LEN, 0.15, seed=3)
    batch = data.batch(np.arange(data.n_samples))
    positions: dict[int, list[list[int]]] = {}
    for stretch, row in zip(stretches(data), batch.positions.tolist(), strict=True):
        positions.setdefault(stretch, []).append(row)
    twice = [rows for rows in positions.values() if len(rows) == 2]
    assert len(twice) == SAMPLES[0]
    assert sum(one == other for one, other in twice) < SAMPLES[0] // 4  # by chance 1 in 45
