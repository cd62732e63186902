"""Made-up batches have the form of real ones, and are the same for ever: published figures hang on them."""

import zlib

import pytest
import torch

from pipeline.data.batch import Batch
from pipeline.data.random_batch import random_batch
from pipeline.model.invariance import probe_batch
from pipeline.verify import cell
from preprocessing.corpus.reader import FIRST_ORDINARY_ID

SIZE = (40, 12, 5, 30)  # sequences, tokens, predictions, vocabulary


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def checksum(batch: Batch) -> int:
    return zlib.crc32(b"".join(batch.tensors()[name].numpy().tobytes() for name in sorted(batch.tensors())))


def test_a_full_batch_predicts_what_stands_there() -> None:
    batch = random_batch(generator(), *SIZE, nsp=False)
    assert batch.attention_mask is batch.nsp_labels is None
    assert torch.equal(batch.labels, batch.input_ids.gather(1, batch.positions))
    assert batch.weights.shape == (40, 5)
    assert batch.weights.all()
    assert set(batch.input_ids.unique().tolist()) == set(range(FIRST_ORDINARY_ID, 30))
    assert batch.token_type_ids.sum(dim=1).tolist() == [6] * 40


def test_a_ragged_batch_has_padding_and_empty_slots_but_predicts_no_padding() -> None:
    batch = random_batch(generator(), *SIZE, nsp=True, shortest=4)
    assert batch.attention_mask is not None
    assert set(batch.attention_mask.sum(dim=1).tolist()) == set(range(4, 13))
    assert batch.attention_mask.gather(1, batch.positions).all()
    assert 0 < (batch.weights == 0).float().mean() < 0.2
    assert batch.nsp_labels is not None
    assert set(batch.nsp_labels.tolist()) == {0, 1}


def test_the_generator_alone_decides() -> None:
    again = generator()
    first, second = (random_batch(again, *SIZE, nsp=True, shortest=4) for _ in range(2))
    assert checksum(first) == checksum(random_batch(generator(), *SIZE, nsp=True, shortest=4))
    assert checksum(first) != checksum(second)


@pytest.mark.parametrize(("case", "expected"), [("paper", 2473153760), ("invariant", 2460117533)])
def test_what_certify_trains_on(case: str, expected: int) -> None:
    """docs/certify.md has figures of these batches."""
    assert checksum(cell._batch(case, 16, step=3)) == expected


@pytest.mark.parametrize(("nsp", "expected"), [(False, 3222407445), (True, 3973942612)])
def test_what_invariance_is_measured_on(nsp: bool, expected: int) -> None:
    """docs/invariance.md has figures of these."""
    assert checksum(probe_batch(1024, 64, nsp, 3, 16, seed=0)) == expected
