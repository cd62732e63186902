"""The benchmark of a training step: its count of operations, and its table."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.floor import SIZES, operations
from benchmarks.training_step import BERT, COMPILED, MODERN_BERT, OURS, PLAIN, Row, recipe_of, table
from pipeline.data.random_batch import random_batch
from pipeline.model.build import build_model


@pytest.mark.parametrize(("name", "sequences"), [("toy", 2), ("mini", 1)])
def test_operations_are_those_that_torch_counts(name: str, sequences: int) -> None:
    size, predictions = SIZES[name], 3
    model = build_model(recipe_of(size, "fp32", sequences), size.vocabulary)
    batch = random_batch(torch.Generator().manual_seed(0), sequences, size.seq_len, predictions, size.vocabulary, nsp=False)
    with FlopCounterMode(display=False) as counter:
        model(batch)
    assert counter.get_total_flops() * 3 == operations(size, sequences, sequences * predictions)


def test_the_table_says_how_many_times_as_fast_ours_is() -> None:
    seconds = {OURS: 2.0, PLAIN: 1.0, COMPILED: 1.5, BERT: 3.0, MODERN_BERT: 5.0}
    row = Row("large", "bf16", 1000, seconds, 1.6, 989e12, "attention: Triton kernels", "NVIDIA H100 80GB HBM3")
    assert table([row]).splitlines()[-1] == "| large | bf16 | 1,000 | 500 | 0.50 | 0.75 | 1.50 | 2.50 | 1.25 | 50% |"
