"""Which samples a rank reads, and what can be done to a whole batch."""

from typing import Any

import numpy as np
import pytest

from pipeline.data.batch import rank_indices
from tests.helpers.numbered_corpora import OBJECTIVES, assert_rows_equal, make


def test_rank_indices_give_the_same_global_batch_whatever_the_world() -> None:
    G, micro = 16, 2
    for step in (0, 3):
        expected = list(range(step * G, (step + 1) * G))
        for world_size in (1, 2, 4, 8):
            seen = [
                rank_indices(step, a, r, world_size, G, micro)
                for a in range(G // (world_size * micro))
                for r in range(world_size)
            ]
            assert np.concatenate(seen).tolist() == expected


def test_rank_indices_keep_the_order_for_other_micro_batches() -> None:
    for micro in (1, 2, 4, 8):
        seen = [rank_indices(1, a, r, 2, 16, micro) for a in range(8 // micro) for r in range(2)]
        assert np.concatenate(seen).tolist() == list(range(16, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0, 3, 16, 2), r"global_batch 16 with world_size 3 .* multiple of world_size \* micro_batch = 6"),
        ((0, 0, 0, 1, 0, 2), "global_batch 0"),
        ((0, 0, 0, 0, 16, 2), "world_size 0"),
        ((0, 4, 0, 2, 16, 2), r"micro_step in \[0, 4\)"),
        ((0, 0, 2, 2, 16, 2), r"rank in \[0, 2\)"),
        ((-1, 0, 0, 2, 16, 2), "step -1"),
    ],
)
def test_rank_indices_bad_input(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_indices(*arguments)


def test_to_moves_every_tensor(corpus: Any) -> None:
    for objective in OBJECTIVES:
        batch = make(corpus, objective).batch(np.arange(2)).to("meta")
        assert all(tensor.device.type == "meta" for tensor in batch.tensors().values())
        assert (batch.nsp_labels is None) == (objective == "mlm")


def test_map_reaches_every_tensor_and_leaves_what_is_not_there(corpus: Any) -> None:
    batch = make(corpus).batch(np.arange(4))
    part = batch.map(lambda tensor: tensor[1:3])
    assert_rows_equal(batch, [1, 2], part)
    assert part.tensors().keys() == batch.tensors().keys()
    assert part.attention_mask is None
    assert part.nsp_labels is None
