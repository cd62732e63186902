"""A batch, and which samples are in it: rank and micro step to sample counters."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What a pretraining step reads. The P predicted positions are static: surplus slots have weight 0."""

    input_ids: torch.Tensor  # int64 [B, L], after masking
    attention_mask: torch.Tensor  # float32 [B, L], 1 on tokens, 0 on padding
    token_type_ids: torch.Tensor  # int64 [B, L], 0 for A and for packed text, 1 for B
    positions: torch.Tensor  # int64 [B, P], ascending; 0 in surplus slots
    labels: torch.Tensor  # int64 [B, P], the token that stood there; 0 in surplus slots
    weights: torch.Tensor  # float32 [B, P], 1, or 0 in surplus slots
    is_masked: torch.Tensor  # bool [B, P], the input there is [MASK] (not a random or kept token)
    nsp_labels: torch.Tensor | None  # int64 [B], 0: B follows A, 1: it does not; None without sentence pairs

    def model_inputs(self) -> tuple[torch.Tensor | None, ...]:
        """The arguments of the model's forward, in order; no attention mask for packed text, which has no padding."""
        mask = None if self.nsp_labels is None else self.attention_mask
        return self.input_ids, self.token_type_ids, mask, self.positions, self.labels, self.weights, self.nsp_labels

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: t.to(device) for name, t in tensors.items() if t is not None})


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
