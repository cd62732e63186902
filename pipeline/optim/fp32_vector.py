"""fp32 numbers as an optimiser keeps them: whole, or split into bf16 parameters and the 16 bits that these lack.

A bf16 parameter is the upper half of its fp32 master, rounded to the nearest. What the master has more or less than it, in
units of fp32's last place, lies within ±2^15; so 16 bits beside the parameter keep the master, instead of 32.

    master = parameter + remainder · (one unit in the last place)        read as integers: bits(x) = bits(h)·2^16 + r

All but one of the 65,537 remainders fit: +2^15, of a number exactly between two parameters of which the lower one is even, is
kept as 2^15 - 1. That moves a master by its last bit (one in 131,072, where the lower bits are evenly spread) and leaves the
parameter as it is: it is always the one that fp32 masters would be rounded to.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_REMAINDER = 2**15 - 1
# Pieces that stay in a CPU's cache; a GPU's time goes into the launches, so it gets longer ones.
CHUNK_ELEMENTS, CHUNK_ELEMENTS_OF_A_GPU = 2**19, 2**22


def longest_chunk(on_gpu: bool) -> int:
    """Elements of the pieces in which norms are taken and split numbers put together."""
    return CHUNK_ELEMENTS_OF_A_GPU if on_gpu else CHUNK_ELEMENTS


@dataclass(frozen=True)
class Fp32Vector:
    """1-D numbers: those of `high`; where there is a `low`, `high` are bf16 parameters and `low` (int16) their remainders."""

    high: Tensor
    low: Tensor | None = None

    def numel(self) -> int:
        """How many."""
        return self.high.numel()

    @property
    def is_cuda(self) -> bool:
        """Are they on a GPU?"""
        return self.high.is_cuda

    def split(self, size: int) -> list["Fp32Vector"]:
        """Views of `size` each, the last one perhaps shorter."""
        highs = self.high.split(size)
        lows = [None] * len(highs) if self.low is None else self.low.split(size)
        return [Fp32Vector(high, low) for high, low in zip(highs, lows, strict=True)]

    def values(self) -> Tensor:
        """A view of whole numbers; of split ones a new tensor."""
        if self.low is None:
            return self.high
        bits = self.low.int()
        bits.add_(self.high.float().view(torch.int32))
        return bits.view(torch.float32)

    def store(self, values: Tensor) -> None:
        """Put fp32 values in their place."""
        size = longest_chunk(self.is_cuda)
        for piece, part in zip(self.split(size), values.split(size), strict=True):
            piece._store(part.to(self.high.device))

    def _store(self, values: Tensor) -> None:
        self.high.copy_(values)  # rounded to the nearest, where it is bf16
        if self.low is not None:
            remainder = self.high.float().view(torch.int32)
            torch.sub(values.view(torch.int32), remainder, out=remainder)
            self.low.copy_(remainder.clamp_(max=LARGEST_REMAINDER))

    def read_into(self, out: Tensor) -> None:
        """Copy the values, piece by piece; on a GPU this only queues the copies."""
        size = longest_chunk(self.is_cuda)
        for piece, there in zip(self.split(size), out.split(size), strict=True):
            there.copy_(piece.values(), non_blocking=True)

    def pieces(self) -> Iterator[Tensor]:
        """The values, piece by piece, to be changed in place: a piece is stored when the next one is asked for."""
        for piece in self.split(longest_chunk(self.is_cuda)):
            values = piece.values()
            yield values
            if piece.low is not None:
                piece._store(values)
            del values  # before the next one is put together
