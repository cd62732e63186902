"""What this rank owns of each parameter under ZeRO: the fp32 masters and the reduced gradients, piece by piece.

ZeRO flattens a group's parameters, pads the end and gives each rank one contiguous part, so a partition starts and ends in
the middle of tensors. A Fragment is the overlap of one parameter with one rank's part. Norms are summed over fragments, so
padding never counts, and a tensor's own norm (LAMB) is right although the tensor is cut.

The names of DeepSpeed's objects that are relied on are all in this file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Fragment:
    """The part of parameter `name` that this rank updates: elements [offset, offset + numel) of the flattened parameter,
    stored at [start, start + numel) of `flat`, the tensor that the client optimiser holds in group `group`."""

    name: str
    group: int
    offset: int
    numel: int
    flat: Tensor
    start: int
    gradient: Callable[[], Tensor | None]  # 1-D of numel elements, after the reduction; None without a gradient

    @property
    def master(self) -> Tensor:
        """The fp32 values, a 1-D view."""
        return self.view(self.flat)

    def view(self, like_flat: Tensor) -> Tensor:
        """This fragment's elements of a tensor that is shaped like `flat` (an optimiser's moment, say)."""
        return like_flat.detach().view(-1)[self.start : self.start + self.numel]


@dataclass(frozen=True)
class Partitions:
    """All fragments of this rank, and how sums over them become sums over the model."""

    fragments: tuple[Fragment, ...]
    tensor_names: tuple[str, ...]  # every parameter's name, the same order on all ranks
    all_reduce_sum: Callable[[Tensor], None] | None  # None where every rank holds everything


def replicated(named_parameters: Sequence[tuple[str, Tensor]], groups: Sequence[dict[str, Any]]) -> Partitions:
    """Stage 0 in fp32 (or no engine at all): each rank updates every parameter with the same reduced gradient."""
    group_of = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
    fragments = tuple(
        Fragment(name, group_of[id(p)], 0, p.numel(), p, 0, partial(_whole_gradient, p))
        for name, p in named_parameters
        if id(p) in group_of
    )
    return Partitions(fragments, tuple(f.name for f in fragments), None)


def _whole_gradient(parameter: Tensor) -> Tensor | None:
    return None if parameter.grad is None else parameter.grad.view(-1)


def _fragment_gradient(mapping: Any, parameter: Any) -> Tensor:
    gradient: Tensor = mapping.get_lp_grad_fragment(parameter._index_in_param_group)
    return gradient.view(-1)


def zero_1_or_2(
    named_parameters: Sequence[tuple[str, Tensor]],
    groups: Sequence[dict[str, Any]],
    all_reduce_sum: Callable[[Tensor], None],
) -> Partitions:
    """Stages 1 and 2: one flat fp32 partition a group; `groups` are the client optimiser's after ZeRO has replaced their
    parameters by the partitions. Raises RuntimeError where this DeepSpeed does not keep what is needed."""
    fragments = []
    for name, parameter in named_parameters:
        if not hasattr(parameter, "_hp_mapping"):
            raise RuntimeError(
                f"parameter {name} has no _hp_mapping: this DeepSpeed's ZeRO keeps its partitions differently; "
                "use deepspeed 0.19.8 (pinned in requirements.txt)"
            )
        mapping = parameter._hp_mapping
        if mapping is None:  # none of it lives on this rank
            continue
        group = mapping.param_group_index
        (flat,) = groups[group]["params"]
        fragments.append(
            Fragment(
                name=name,
                group=group,
                offset=mapping.lp_fragment_address.start,
                numel=mapping.hp_fragment_address.numel,
                flat=flat,
                start=mapping.hp_fragment_address.start,
                gradient=partial(_fragment_gradient, mapping, parameter),
            )
        )
    return Partitions(tuple(fragments), tuple(name for name, _ in named_parameters), all_reduce_sum)
