"""What one rank puts into a checkpoint, and its copy in host memory, from which a thread can write while training goes on."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.checkpoint.layout import fragment_key
from pipeline.optim.fp32_vector import Fp32Vector
from pipeline.optim.optimizer import MOMENTS, PretrainingOptimizer
from pipeline.optim.partitions import Fragment

PARAM, RNG, WINDOW = "param", "rng", "window"


def fragment_tensors(optimizer: PretrainingOptimizer, fragment: Fragment) -> dict[str, Fp32Vector]:
    """By kind: the fragment's fp32 master and, unless SGD trains it, its moments, where they are kept."""
    kept = {PARAM: fragment.master}
    if optimizer.all_groups[fragment.group]["rule"] != "sgd":
        kept |= {key: Fp32Vector(view) for key, view in zip(MOMENTS, optimizer.moment_views(fragment), strict=True)}
    return kept


def owned_tensors(optimizer: PretrainingOptimizer, rank: int) -> dict[str, Fp32Vector]:
    """The fragments that this rank writes, by their keys; where every rank has everything (stage 0), rank 0 alone writes."""
    assert optimizer.partitions is not None
    if optimizer.partitions.replicated and rank > 0:
        return {}
    return {
        fragment_key(kind, fragment.name, fragment.offset): numbers
        for fragment in optimizer.partitions.fragments
        for kind, numbers in fragment_tensors(optimizer, fragment).items()
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

    def take(self, tensors: Mapping[str, Tensor | Fp32Vector]) -> None:
        """Copy tensors, and fp32 numbers as whole ones. On a GPU this only queues the copies, before the next step."""
        self._copies = {key: self._copy(key, tensor) for key, tensor in tensors.items()}
        if torch.cuda.is_available():
            self._copied = torch.cuda.Event()
            self._copied.record()

    def tensors(self) -> dict[str, Tensor]:
        """The copies, once they are complete."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copies

    def _copy(self, key: str, source: Tensor | Fp32Vector) -> Tensor:
        if isinstance(source, Fp32Vector):
            there = self._memory(key, (source.numel(),), torch.float32, source.is_cuda)
            source.read_into(there)
            return there
        return self._memory(key, source.shape, source.dtype, source.is_cuda).copy_(source.detach(), non_blocking=True)

    def _memory(self, key: str, shape: Sequence[int], dtype: torch.dtype, pinned: bool) -> Tensor:
        there = self._copies.get(key)
        if there is None or there.shape != tuple(shape) or there.dtype != dtype:
            there = torch.empty(tuple(shape), dtype=dtype, pin_memory=pinned)
        return there
