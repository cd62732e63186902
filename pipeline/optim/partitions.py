"""What this rank owns of each parameter: the fp32 masters and the reduced gradients, piece by piece.

ZeRO flattens parameters, pads, and gives each rank a part, so a partition starts and ends in the middle of tensors. A
Fragment is the overlap of one parameter with one rank's part. Norms are summed over fragments, so padding never counts, and
a tensor's own norm (LAMB) is right although the tensor is cut. How the fragments are read out of DeepSpeed's objects is
`deepspeed_internals`' business.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from pipeline.optim.fp32_vector import Fp32Vector


@dataclass(frozen=True)
class Fragment:
    """The part of parameter `name` that this rank updates: elements [offset, offset + numel) of the flattened parameter,
    stored at [start, start + numel) of `flat`, the tensor that the client optimiser holds in group `group`. Where masters are
    split, `flat` is the bf16 parameters and `remainders`, shaped like it, the rest of them."""

    name: str
    group: int
    offset: int
    numel: int
    flat: Tensor
    start: int
    gradient: Callable[[], Tensor | None]  # 1-D of numel elements, after the reduction; None where the loss had no use of it
    remainders: Tensor | None = None

    @property
    def master(self) -> Fp32Vector:
        """The fp32 values, where they are kept."""
        return Fp32Vector(self.view(self.flat), None if self.remainders is None else self.view(self.remainders))

    def view(self, like_flat: Tensor) -> Tensor:
        """This fragment's elements of a tensor that is shaped like `flat` (an optimiser's moment, say)."""
        return like_flat.detach().view(-1)[self.start : self.start + self.numel]


@dataclass(frozen=True)
class Partitions:
    """All fragments of this rank, and how sums over them become sums over the model."""

    fragments: tuple[Fragment, ...]
    all_reduce_sum: Callable[[Tensor], None] | None  # None: a single process without a process group
    copies: int  # how many ranks hold each element: 1 where it is partitioned, the world size where it is not
    device: torch.device  # where all_reduce_sum wants its tensor

    @property
    def replicated(self) -> bool:
        """Does every rank hold everything?"""
        return self.all_reduce_sum is None or self.copies > 1

    @cached_property
    def master_spans(self) -> list[tuple[int, Fp32Vector]]:
        """(group, masters), as few as there can be: they are the same memory at every step."""
        runs: list[Fragment] = []
        for f in self.fragments:
            if runs and f.flat is runs[-1].flat and f.start == runs[-1].start + runs[-1].numel:
                runs[-1] = replace(runs[-1], numel=runs[-1].numel + f.numel)
            else:
                runs.append(f)
        return [(run.group, run.master) for run in runs]

    def masters(self) -> dict[str, Tensor]:
        """This rank's fp32 values of each parameter it owns a part of, 1-D."""
        return {f.name: f.master.values() for f in self.fragments}

    def gradients(self) -> dict[str, Tensor]:
        """This rank's reduced gradients, 1-D, after the reduction and before the step; none of a parameter without."""
        return {f.name: g for f in self.fragments if (g := f.gradient()) is not None}

    def spans(self, pieces: Mapping[str, Tensor]) -> list[tuple[int, Tensor]]:
        """(group, 1-D tensor) of the fragments' pieces, by name, those of a group that lie side by side in memory as one: a
        norm over them is one pass instead of hundreds."""
        runs: list[tuple[int, Tensor, int]] = []  # group, first piece, elements
        for f in self.fragments:
            piece = pieces.get(f.name)
            if piece is None:
                continue
            if runs and runs[-1][0] == f.group and _continues(*runs[-1][1:], piece):
                runs[-1] = (*runs[-1][:2], runs[-1][2] + piece.numel())
            else:
                runs.append((f.group, piece, piece.numel()))
        return [(group, first.as_strided((numel,), (1,))) for group, first, numel in runs]


def _continues(first: Tensor, numel: int, piece: Tensor) -> bool:
    """Does the 1-D `piece` begin where `numel` elements from the start of `first` end?"""
    here, there = first.untyped_storage(), piece.untyped_storage()
    return here.data_ptr() == there.data_ptr() and first.storage_offset() + numel == piece.storage_offset()


def replicated(
    named_parameters: Sequence[tuple[str, Tensor]],
    groups: Sequence[dict[str, Any]],
    all_reduce_sum: Callable[[Tensor], None] | None = None,
    copies: int = 1,
) -> Partitions:
    """Every rank updates every parameter itself with the same reduced gradient (stage 0 in fp32, or no engine at all)."""
    group_of = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
    fragments = tuple(
        Fragment(name, group_of[id(p)], 0, p.numel(), p, 0, partial(whole_gradient, p))
        for name, p in named_parameters
        if id(p) in group_of
    )
    return Partitions(fragments, all_reduce_sum, copies, fragments[0].flat.device)


def whole_gradient(parameter: Tensor) -> Tensor | None:
    """A parameter's own gradient, 1-D, where nothing cuts it."""
    return None if parameter.grad is None else parameter.grad.view(-1)
