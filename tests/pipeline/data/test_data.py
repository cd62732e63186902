"""Batches: functions of their counters alone, every sample once an epoch, packed text as defined."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.batch import Batch, rank_indices
from pipeline.data.pretraining import PretrainingData
from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID
from tests.helpers.numbered_corpora import DOCUMENTS, OBJECTIVES, L, assert_rows_equal, make, streams, unmasked, write_corpus

SUMMED = ("input_ids", "attention_mask", "token_type_ids", "positions", "labels", "weights", "is_masked", "nsp_labels")


def checksum(batch: Batch) -> int:
    """Of all tensors, packed text with the mask of ones that it need not have."""
    tensors = {"attention_mask": torch.ones(batch.input_ids.shape), **batch.tensors()}
    return zlib.crc32(b"".join(tensors[name].numpy().tobytes() for name in SUMMED if name in tensors))


# --- purity


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_sample_is_a_function_of_its_counter(corpus: Any, objective: str) -> None:
    """Alone, in any batch, in any order, from another object: the same rows, also across the end of an epoch."""
    data = make(corpus, objective)
    consumed_B = np.arange(data.n_samples - 12, data.n_samples + 12)
    batch = data.batch(consumed_B)
    order = np.random.default_rng(0).permutation(24)
    assert_rows_equal(batch, order.tolist(), make(corpus, objective).batch(consumed_B[order]))
    for b in (0, 11, 12, 23):
        assert_rows_equal(batch, [b], data.batch(consumed_B[b : b + 1]))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_world_size_reads_the_same_global_batch(corpus: Any, objective: str) -> None:
    expected = make(corpus, objective).batch(np.arange(8, 16))
    for world_size, micro in ((1, 8), (1, 2), (2, 2), (4, 2), (4, 1)):
        data = make(corpus, objective)
        row = 0
        for a in range(8 // (world_size * micro)):
            for rank in range(world_size):
                part = data.batch(rank_indices(1, a, rank, world_size, 8, micro))
                assert_rows_equal(expected, list(range(row, row + micro)), part)
                row += micro


@pytest.mark.parametrize(("objective", "expected"), [("mlm", 2758230196), ("mlm+nsp", 3348863644)])
def test_golden_batches(corpus: Any, objective: str, expected: int) -> None:
    """Another process and another machine read the same. A change here changes what every unfinished run reads."""
    assert checksum(make(corpus, objective).batch(np.arange(50))) == expected


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_seed_and_epoch_change_masks_and_order(corpus: Any, objective: str) -> None:
    data = make(corpus, objective)
    here = np.arange(data.n_samples)
    first, second = data.batch(here), data.batch(here + data.n_samples)
    other = make(corpus, objective, seed=2).batch(here)
    for batch in (second, other):
        assert (batch.input_ids == first.input_ids).all(dim=1).sum() <= 2
    in_place = [data._samples(np.full(data.n_samples, e), here) for e in (0, 1)]  # the same samples, unshuffled
    in_place.append(make(corpus, objective, seed=2)._samples(np.zeros_like(here), here))
    for batch in in_place[1:]:
        agreement = (batch.positions == in_place[0].positions).float().mean()
        assert agreement < 0.3, "the masks of other seeds and epochs coincide"
        if batch.nsp_labels is not None:
            assert (batch.nsp_labels == in_place[0].nsp_labels).float().mean() < 0.75


# --- packed text


def test_packed_samples_read_every_stretch_of_the_stream_once_an_epoch(corpus: Any) -> None:
    data = make(corpus)
    expected = [
        [CLS_ID, *stream[j * (L - 2) : (j + 1) * (L - 2)].tolist(), SEP_ID]
        for stream in streams(DOCUMENTS)
        for j in range(len(stream) // (L - 2))
    ]
    assert data.n_samples == len(expected)
    orders = []
    for epoch in range(3):
        batch = data.batch(np.arange(epoch * data.n_samples, (epoch + 1) * data.n_samples))
        rows = unmasked(batch).tolist()
        assert sorted(rows) == sorted(expected)
        orders.append(rows)
        assert batch.attention_mask is None
        assert not batch.token_type_ids.any()
        assert batch.nsp_labels is None
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != expected


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shapes_and_masks(corpus: Any, objective: str) -> None:
    data = make(corpus, objective)
    B, P = 40, data.n_predictions
    assert round(0.15 * (L - 2)) == P == 4
    batch = data.batch(np.arange(B))
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.tensors().items()}
    expected = {
        "input_ids": ((B, L), torch.int64),
        "token_type_ids": ((B, L), torch.int64),
        "positions": ((B, P), torch.int64),
        "labels": ((B, P), torch.int64),
        "weights": ((B, P), torch.float32),
        "is_masked": ((B, P), torch.bool),
    }
    of_pairs = {"attention_mask": ((B, L), torch.float32), "nsp_labels": ((B,), torch.int64)}
    assert shapes == (expected | of_pairs if objective == "mlm+nsp" else expected)
    at_positions_BP = batch.input_ids.gather(1, batch.positions)
    assert torch.equal(batch.is_masked, at_positions_BP == MASK_ID)
    assert (batch.labels[batch.weights > 0] >= FIRST_ORDINARY_ID).all()
    assert 0.6 < batch.is_masked.float().mean() < 0.95
    assert (batch.input_ids == MASK_ID).sum() == batch.is_masked.sum()


def test_is_masked_is_false_in_surplus_slots(tmp_path: Path) -> None:
    documents = [[[[9]] for _ in range(40)]]  # one ordinary token a document: half of a packed sample is [SEP]
    data = make(write_corpus(tmp_path, documents), seq_len=8, mask_fraction=1.0)
    batch = data.batch(np.arange(data.n_samples))
    assert data.n_predictions == 6
    assert batch.weights.sum(dim=1).tolist() == [3.0] * data.n_samples
    assert not batch.is_masked[batch.weights == 0].any()
    assert batch.is_masked.any()


# --- bad input


def test_bad_settings(corpus: Any, tmp_path: Path) -> None:
    for changes, message in [
        ({"objective": "nsp"}, "objective: got 'nsp', expected 'mlm' or"),
        ({"seq_len": 4}, "seq_len: got 4, expected at least 5"),
        ({"seed": -1}, "seed: got -1"),
        ({"mask_fraction": 0.0}, "mask_fraction: got 0.0"),
        ({"seq_len": 100_000}, "no sample, each of its 3 shards holds less than the 99998 tokens .*lower seq_len"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(corpus, **changes)
    with pytest.raises(ValueError, match="split 'heldout': no sample"):
        PretrainingData(corpus, "heldout", "mlm", L, 0.15, 0)
    one_document = write_corpus(tmp_path, [[[[9] * 10] * 10]])
    with pytest.raises(ValueError, match=r"one document, expected at least 2.*use objective 'mlm'"):
        make(one_document, "mlm+nsp")
    assert make(one_document, "mlm").n_samples == 3


def test_bad_counters(corpus: Any) -> None:
    data = make(corpus)
    for consumed in (np.array([-1]), np.zeros((2, 2), dtype=np.int64), np.array([0.0])):
        with pytest.raises(ValueError, match="consumed: got"):
            data.batch(consumed)
    assert data.batch(np.empty(0, dtype=np.int64)).input_ids.shape == (0, L)
