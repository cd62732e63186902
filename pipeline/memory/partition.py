"""Which rank owns what: ZeRO 1 and 2 cut each flat parameter group into one part a rank, all of the same even size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from pipeline.memory.states import Group, groups_of
from pipeline.memory.system import System


@dataclass(frozen=True)
class Rank:
    """One rank of a system. `own`: of each group the tensors, with their elements, of which it owns a part."""

    system: System
    groups: list[Group]
    own: list[dict[str, int]]

    @property
    def elements(self) -> int:
        """Of the whole model."""
        return total_elements(group.sizes for group in self.groups)

    @property
    def held_gradients(self) -> int:
        """Bytes of gradients between the backward pass and the step: ZeRO keeps those of all owned tensors whole. Stage 3 has a
        buffer that is always there (`states.between_steps`)."""
        return 0 if self.system.stage == 3 else self.system.forward_bytes * total_elements(self.own)


def fullest_rank(system: System) -> Rank:
    """The rank that holds most gradients; under stages 0 and 3 they are all alike."""
    groups, world = groups_of(system.config, system.vocab_size), system.world_size
    if system.stage not in (1, 2):
        return Rank(system, groups, [group.sizes for group in groups])
    candidates = sorted({rank for group in groups for rank in _with_a_start(group.sizes, world)})
    owned = ([owned_tensors(group.sizes, rank, world) for group in groups] for rank in candidates)
    return Rank(system, groups, max(owned, key=total_elements))


def owned_tensors(sizes: Mapping[str, int], rank: int, world: int) -> dict[str, int]:
    """Those tensors of a flat group of which the rank's part has elements."""
    each = _part(sizes, world)
    ends = accumulate(sizes.values())
    spans = zip(sizes.items(), ends, strict=True)
    return {n: size for (n, size), end in spans if end - size < (rank + 1) * each and end > rank * each}


def _with_a_start(sizes: Mapping[str, int], world: int) -> set[int]:
    """The ranks in whose part of a flat group a tensor starts. One of them holds most: a rank in which none starts holds no
    tensor that the rank before it does not hold."""
    each, ends = _part(sizes, world), [*accumulate(sizes.values())]
    return {start // each for start in (0, *ends[:-1])}


def _part(sizes: Mapping[str, int], world: int) -> int:
    """Elements of a rank's part: an even number, the last one padded."""
    return -(-sum(sizes.values()) // (2 * world)) * 2


def total_elements(groups: Iterable[Mapping[str, int]]) -> int:
    """Elements of all tensors of all groups."""
    return sum(sum(sizes.values()) for sizes in groups)
