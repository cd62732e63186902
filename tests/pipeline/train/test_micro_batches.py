"""Micro batches that a thread makes ahead are those that would be made in turn."""

import threading

import numpy as np
import pytest
import torch

from pipeline.config.batch import BatchArithmetic
from pipeline.data.batch import Batch, Ints
from pipeline.distributed.launch import World
from pipeline.train.micro_batches import OneAhead, micro_batches

STEPS, PARTS = 4, 3


def batch_of(counters: Ints) -> Batch:
    ids = torch.from_numpy(np.asarray(counters))[:, None]
    return Batch(ids, ids, ids, ids, ids.float())


class Counting:
    """Samples that are their own counters."""

    def batch(self, consumed_B: Ints) -> Batch:
        return batch_of(consumed_B)


def test_on_a_cpu_a_rank_has_its_parts_of_the_global_batch() -> None:
    batches = micro_batches(Counting(), World(1, 2, 1, "", 0), BatchArithmetic(2, 2, 2, 8), torch.device("cpu"))
    assert [batch.input_ids.flatten().tolist() for batch in batches(3)] == [[26, 27], [30, 31]]


def test_made_ahead_they_are_the_same_in_the_same_order_whatever_is_asked_for_between() -> None:
    made: list[tuple[tuple[int, int], str]] = []

    def make(step: int, micro_step: int) -> Batch:
        made.append(((step, micro_step), threading.current_thread().name))
        return batch_of(np.array([step, micro_step]))

    ahead = OneAhead(make, PARTS)
    found = []
    for step in range(STEPS):
        found += [batch.input_ids.flatten().tolist() for batch in ahead.of_step(step)]
        if step == 1:  # a probe takes the first of the next step and no more
            assert next(ahead.of_step(step + 1)).input_ids.flatten().tolist() == [step + 1, 0]
    assert found == [[step, part] for step in range(STEPS) for part in range(PARTS)]
    ahead.thread.shutdown()
    assert made[-1][0] == (STEPS, 0)  # one more than was asked for
    assert all(name.startswith("batches") for _, name in made)  # never two at once
    assert len(made) == STEPS * PARTS + 3  # of the probe: its batch, the one after it, and again what came instead of it


def test_an_error_comes_where_its_batch_is_asked_for() -> None:
    def make(step: int, micro_step: int) -> Batch:
        if step:
            raise OSError("the disk is gone")
        return batch_of(np.array([step]))

    ahead = OneAhead(make, 1)
    assert len(list(ahead.of_step(0))) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        list(ahead.of_step(1))


def test_the_thread_begins_on_the_device_that_it_is_told() -> None:
    said: list[str] = []
    ahead = OneAhead(lambda step, micro_step: batch_of(np.array([0])), 1, start_thread=lambda: said.append("here"))
    next(ahead.of_step(0))
    assert said == ["here"]


def test_on_a_gpu_copies_are_pinned_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []
    copies: list[tuple[object, bool]] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(int(tensor.flatten()[0]))
        return tensor

    def to(batch: Batch, where: object, non_blocking: bool = False) -> Batch:
        copies.append((where, non_blocking))
        return batch

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
    monkeypatch.setattr(Batch, "to", to)
    gpu = torch.device("cuda", 1)
    batches = micro_batches(Counting(), World(0, 1, 0, "", 0), BatchArithmetic(1, 2, 2, 4), gpu)
    assert [batch.input_ids.flatten().tolist() for batch in batches(0)] == [[0, 1], [2, 3]]
    assert copies == [(gpu, True)] * 2
    assert set(pinned) >= {0, 2}
