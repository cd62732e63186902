"""Gradients in the backward pass: where they lie until they are reduced, and what is copied for that."""

from collections.abc import Sequence

from torch import nn

from pipeline.memory.partition import Rank
from pipeline.memory.system import COPIES, GRADIENTS, Kinds, plus
from pipeline.memory.trace import Meter

ALL_REDUCED_AT_ONCE = 500_000_000  # elements, stage 0: DeepSpeed's own constant


class Reduction:
    """What ZeRO does with a rank's gradients, fed with each as the traced backward pass makes it.

    Stages 0 and 1 keep them all until the pass is over; stages 2 and 3 reduce a bucket whenever it is full.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank, self.system = rank, rank.system
        self.own_names = {name for sizes in rank.own for name in sizes}
        self.waiting = 0  # elements in the bucket,
        self.others: list[nn.Parameter] = []  # and those of them that belong to other ranks

    def keep(self, name: str, parameter: nn.Parameter, meter: Meter) -> None:
        """Takes a gradient that has just been made."""
        if self.system.stage < 2:
            return
        size = parameter.numel()
        if self.waiting and self.waiting + size > self.system.zero["reduce_bucket_size"]:
            meter.add(COPIES, self._copies())
            meter.add(COPIES, -self._copies())
            self.waiting = 0
            for other in self.others:
                other.grad = None
            self.others.clear()
        self.waiting += size
        if self.system.stage == 3:
            parameter.grad = None  # it is in the bucket, then in its buffer
        elif name not in self.own_names:
            self.others.append(parameter)

    def at_the_end(self, backward_end: Kinds) -> Kinds:
        """When the pass is over and the activations are gone: gradients, and the flat copy of the last bucket."""
        low, elements = self.system.forward_bytes, self.rank.elements
        if self.system.stage == 0:
            return {GRADIENTS: low * elements, COPIES: low * min(elements, ALL_REDUCED_AT_ONCE)}
        if self.system.stage == 1:
            sizes = [size for group in self.rank.groups for size in group.sizes.values()]
            return {GRADIENTS: low * elements, COPIES: low * _fullest(sizes, self.system.zero["reduce_bucket_size"])}
        return plus(backward_end, {COPIES: self._copies()})

    def _copies(self) -> int:
        """Bytes beside a bucket while it is reduced: a flat copy, under stage 3 with the part of it that comes back."""
        comes_back = self.waiting // self.system.world_size if self.system.stage == 3 else 0
        return self.system.forward_bytes * (self.waiting + comes_back)


def _fullest(sizes: Sequence[int], limit: int) -> int:
    """The most elements that are in a bucket of `limit` when it is reduced; a tensor alone is not copied."""
    fullest, bucket, tensors = 0, 0, 0
    for size in [*sizes, limit + 1]:
        if bucket + size > limit:
            fullest = max(fullest, bucket if tensors > 1 else 0)
            bucket, tensors = 0, 0
        bucket, tensors = bucket + size, tensors + 1
    return fullest
