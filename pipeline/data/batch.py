"""A batch, and which samples are in it: rank and micro step to sample counters."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, device

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """B sequences of L tokens as the model reads them, with P predictions each; the model's one argument.

    P is the same for every sequence: a sequence with fewer predictions has slots of weight 0. In fine-tuning a sequence has one
    prediction, its class, or two, the places of an answer's first and last token.
    """

    input_ids: Tensor  # int64 [B, L], after masking
    token_type_ids: Tensor  # int64 [B, L], 0 for A and for packed text, 1 for B
    positions: Tensor  # int64 [B, P], ascending in real data; 0 in empty slots
    labels: Tensor  # int64 [B, P], the token that stood there, a class, or a place; 0 in empty slots
    weights: Tensor  # float32 [B, P], 1, or 0 in empty slots
    attention_mask: Tensor | None = None  # float32 [B, L], 1 on tokens, 0 on padding; None: no padding, as in packed text
    nsp_labels: Tensor | None = None  # int64 [B], 0: B follows A, 1: it does not; None without sentence pairs
    is_masked: Tensor | None = None  # bool [B, P], the input there is [MASK]; only evaluation reads it
    dropout_keys: Tensor | None = None  # int64 [B], what each sequence's dropout masks follow from; None: no dropout

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch of what `function` makes of each tensor; what is None stays None."""
        return Batch(**{name: function(tensor) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that is there, by the name of its field."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}

    def to(self, where: device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on another device. `non_blocking`: a copy of pinned memory is queued, and not waited for."""
        return self.map(lambda tensor: tensor.to(where, non_blocking=non_blocking))


def rank_indices(step: int, micro_step: int, rank: int, world_size: int, global_batch: int, micro_batch: int) -> Ints:
    """The sample counters of one rank's micro batch, int64 [micro_batch].

    The global batch of step s is the counters [s * G, (s + 1) * G) whatever the world size. Within it, micro step a
    of rank r takes the micro_batch counters from (a * world_size + r) * micro_batch on.
    ValueError: a number out of range, or a global batch that world_size * micro_batch does not divide.
    """
    if min(world_size, global_batch, micro_batch) < 1 or global_batch % (world_size * micro_batch):
        raise ValueError(
            f"global_batch {global_batch} with world_size {world_size} and micro_batch {micro_batch}: expected a "
            f"positive multiple of world_size * micro_batch = {world_size * micro_batch}; change one of the three"
        )
    accumulation = global_batch // (world_size * micro_batch)
    if step < 0 or not 0 <= micro_step < accumulation or not 0 <= rank < world_size:
        raise ValueError(
            f"step {step}, micro_step {micro_step}, rank {rank}: expected step >= 0, micro_step in "
            f"[0, {accumulation}), rank in [0, {world_size})"
        )
    first = step * global_batch + (micro_step * world_size + rank) * micro_batch
    return np.arange(first, first + micro_batch, dtype=np.int64)
