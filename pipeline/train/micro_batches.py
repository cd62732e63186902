"""This rank's micro batches of each step, on its device; on a GPU the next one is made while the present one trains."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol

import torch

from pipeline.config.batch import BatchArithmetic
from pipeline.data.batch import Batch, Ints, rank_indices
from pipeline.distributed.launch import World


class Samples(Protocol):
    """What is trained on: a pure function of the counters, which any thread may ask."""

    def batch(self, consumed_B: Ints, /) -> Batch:
        """The samples with these global counters."""


MicroBatches = Callable[[int], Iterator[Batch]]  # of a step, counted from 0


def micro_batches(data: Samples, world: World, batch: BatchArithmetic, device: torch.device) -> MicroBatches:
    """On a CPU each is made when it is its turn: there reading would take the training's cores."""

    def make(step: int, micro_step: int) -> Batch:
        sizes = (world.rank, world.size, batch.global_sequences, batch.micro_sequences)
        return data.batch(rank_indices(step, micro_step, *sizes))

    if device.type != "cuda":
        return lambda step: (make(step, micro_step).to(device) for micro_step in range(batch.accumulation_steps))
    ahead = OneAhead(
        lambda step, micro_step: make(step, micro_step).map(torch.Tensor.pin_memory),  # then its copy waits for nothing
        batch.accumulation_steps,
        start_thread=partial(torch.cuda.set_device, device),  # pinned memory belongs to a GPU's context
    )
    return lambda step: (made.to(device, non_blocking=True) for made in ahead.of_step(step))


class OneAhead:
    """Makes micro batches in order on a thread, always one more than was asked for. What is not the one that was expected (a
    checkpoint's probe asks for the next step's first) is made when it is asked for.

    make(step, micro_step) is a pure function, so that nothing but the time depends on the thread; its error is raised where
    its batch is asked for."""

    def __init__(
        self, make: Callable[[int, int], Batch], per_step: int, start_thread: Callable[[], None] = lambda: None
    ) -> None:
        self.make, self.per_step = make, per_step
        self.thread = ThreadPoolExecutor(1, "batches", initializer=start_thread)
        self.expected: tuple[tuple[int, int], Future[Batch]] | None = None

    def of_step(self, step: int) -> Iterator[Batch]:
        """The micro batches of a step."""
        for micro_step in range(self.per_step):
            here = (step, micro_step)
            made = self.expected[1] if self.expected and self.expected[0] == here else self.thread.submit(self.make, *here)
            found = made.result()
            following = (step, micro_step + 1) if micro_step + 1 < self.per_step else (step + 1, 0)
            self.expected = (following, self.thread.submit(self.make, *following))
            yield found
