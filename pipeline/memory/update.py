"""What step() holds beside the model states: the gradients that are left, copies of a part's, temporaries of the rules."""

from collections.abc import Iterator, Sequence

import torch

from pipeline.memory.partition import Rank
from pipeline.memory.states import Group
from pipeline.memory.system import COPIES, FP32_BYTES, GRADIENTS, WORKSPACE, Kinds, System
from pipeline.optim.fp32_vector import longest_chunk


def update(rank: Rank) -> Iterator[Kinds]:
    """While the norms are taken, then at each part of the update. Split masters copy no gradient to fp32."""
    system, groups, low = rank.system, rank.groups, rank.system.forward_bytes
    norms, work = (max(_temporaries(group, system, of) for group in groups) for of in ("norms", "update"))
    yield {GRADIENTS: rank.held_gradients, WORKSPACE: norms}
    if system.stage == 0:
        copies = FP32_BYTES * rank.elements if low < FP32_BYTES else 0
        yield {GRADIENTS: rank.held_gradients, COPIES: copies, WORKSPACE: work}
        return
    to_fp32 = 0 if system.splits_masters or low == FP32_BYTES else FP32_BYTES
    left = rank.held_gradients
    for group, own in zip(groups, rank.own, strict=True):
        flat = low if len(own) > 1 else 0  # one tensor is flat already
        freed = 0 if system.stage == 3 else low * sum(own.values())
        held = left - freed if flat + to_fp32 else left  # in the update: what is copied is freed first
        work = _temporaries(group, system, "update")
        for part in _parts(list(group.sizes.values()), system):
            yield {GRADIENTS: left, COPIES: (flat + to_fp32) * part // system.world_size}
            yield {GRADIENTS: held, COPIES: (to_fp32 or flat) * part // system.world_size, WORKSPACE: work}
        left -= freed


def _temporaries(group: Group, system: System, of: str) -> int:
    """Bytes of fp32 temporaries while a group's norms are taken or it is updated: a few pieces at a time."""
    split, chunk = system.splits_masters, longest_chunk(torch.cuda.is_available())
    part = sum(group.sizes.values()) // system.partitions
    longest = part if split and group.rule != "lamb" else min(part, max(group.sizes.values()))
    if group.rule == "lamb":  # m, v and g of a direction, and the master; of the piece before, the direction and the master
        pieces = 3 + split + (1 + split) * (longest > chunk)
    elif split:  # a norm: the master is put together from two; an update: master, gradient, remainder
        pieces = 2 if of == "norms" else 3
    else:
        pieces = 1 if of == "norms" and system.forward_bytes < FP32_BYTES else 0
    return FP32_BYTES * pieces * min(chunk, longest)


def _parts(sizes: Sequence[int], system: System) -> list[int]:
    """Elements of the parts that are updated one after the other: stage 3 cuts a group once more."""
    if system.stage != 3:
        return [sum(sizes)]
    parts = [0]
    for size in sizes:
        if parts[-1] // system.world_size >= system.zero["sub_group_size"]:
            parts.append(0)
        parts[-1] += size
    return parts
