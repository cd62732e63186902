"""What one rank puts into a checkpoint, and its copy in host memory, from which a thread can write while training goes on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.checkpoint.layout import fragment_key
from pipeline.optim.optimizer import MOMENTS, PretrainingOptimizer
from pipeline.optim.partitions import Fragment

PARAM, RNG, WINDOW = "param", "rng", "window"


def fragment_tensors(optimizer: PretrainingOptimizer, fragment: Fragment) -> dict[str, Tensor]:
    """By kind: the fragment's fp32 master and, unless SGD trains it, its moments, as 1-D views."""
    views = {PARAM: fragment.master}
    if optimizer.all_groups[fragment.group]["rule"] != "sgd":
        views |= dict(zip(MOMENTS, optimizer.moment_views(fragment), strict=True))
    return views


def owned_tensors(optimizer: PretrainingOptimizer, rank: int) -> dict[str, Tensor]:
    """The fragments that this rank writes, by their keys; where every rank has everything (stage 0), rank 0 alone writes."""
    assert optimizer.partitions is not None
    if optimizer.partitions.replicated and rank > 0:
        return {}
    return {
        fragment_key(kind, fragment.name, fragment.offset): view
        for fragment in optimizer.partitions.fragments
        for kind, view in fragment_tensors(optimizer, fragment).items()
    }


def rng_states(device: torch.device) -> dict[str, Tensor]:
    """torch's generators of this process. Pretraining draws nothing from them (masks and order are functions of the seed): they
    are kept so that a model which does is resumed exactly, too."""
    states = {f"{RNG}|cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states[f"{RNG}|cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `rng_states` gave; a generator that is not among them is left as it is."""
    if f"{RNG}|cpu" in states:
        torch.set_rng_state(states[f"{RNG}|cpu"])
    if device.type == "cuda" and f"{RNG}|cuda" in states:
        torch.cuda.set_rng_state(states[f"{RNG}|cuda"], device)


class Snapshot:
    """Copies in host memory that is allocated once, at the first `take`, and used again by every later one."""

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors. On a GPU this only queues the copies, before the kernels of the next step."""
        self._copies = {key: self._copy(key, tensor.detach()) for key, tensor in tensors.items()}
        if torch.cuda.is_available():
            self._copied = torch.cuda.Event()
            self._copied.record()

    def tensors(self) -> dict[str, Tensor]:
        """The copies, once they are complete."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copies

    def _copy(self, key: str, tensor: Tensor) -> Tensor:
        there = self._copies.get(key)
        if there is None or there.shape != tensor.shape or there.dtype != tensor.dtype:
            there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
        return there.copy_(tensor, non_blocking=True)
