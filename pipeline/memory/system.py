"""A system: a recipe's model and optimiser on a number of ranks. And the kinds of what a rank holds."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from pipeline.config.ds_config import load_ds_config, precision
from pipeline.config.load import changed
from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.masking import predictions_per_sequence
from pipeline.data.random_batch import random_batch

PARAMETERS, MASTERS, GRADIENTS, MOMENTS = "parameters", "masters", "gradients", "moments"
COPIES, ACTIVATIONS, LOGITS, WORKSPACE = "ZeRO's copies", "activations", "logits", "workspace"
KINDS = (PARAMETERS, MASTERS, GRADIENTS, MOMENTS, COPIES, ACTIVATIONS, LOGITS, WORKSPACE)
Kinds = dict[str, int]  # bytes by kind
FP32_BYTES, BF16_BYTES = 4, 2


@dataclass(frozen=True)
class System:
    """One row of the comparison; the sizes of batch and sequence, mechanics and precision are the configuration's."""

    name: str
    config: RunConfig
    vocab_size: int
    world_size: int = 1

    @cached_property
    def mechanics(self) -> dict[str, Any]:
        """The file of ds_configs/."""
        return load_ds_config(self.config.train.ds_config)

    @property
    def zero(self) -> dict[str, Any]:
        """Its section on ZeRO."""
        section: dict[str, Any] = self.mechanics["zero_optimization"]
        return section

    @property
    def stage(self) -> int:
        """Of ZeRO."""
        return int(self.zero["stage"])

    @property
    def precision(self) -> str:
        """What the forward pass computes in, fp32 or bf16."""
        return precision(self.mechanics)

    @property
    def forward_bytes(self) -> int:
        """Of a number in the forward pass."""
        return BF16_BYTES if self.precision == "bf16" else FP32_BYTES

    @property
    def partitions(self) -> int:
        """Into how many parts ZeRO cuts masters and moments: one a rank, under stage 0 none."""
        return self.world_size if self.stage else 1

    @property
    def can_split_masters(self) -> bool:
        """Do bf16 parameters and fp32 masters of the same elements lie on one device?"""
        return self.stage > 0 and "offload_optimizer" not in self.zero and self.precision == "bf16"

    @property
    def splits_masters(self) -> bool:
        """Are fp32 masters kept as bf16 parameters and remainders?"""
        return self.config.train.split_masters and self.can_split_masters

    @property
    def master_bytes(self) -> int:
        """Of one master, beside the parameter."""
        return 2 if self.splits_masters else 4

    @property
    def micro_sequences(self) -> int:
        """What a rank takes at a time."""
        return self.config.batch.micro_sequences

    @property
    def accumulates(self) -> bool:
        """Does a rank take several micro batches a step?"""
        return self.config.batch.global_sequences > self.micro_sequences * self.world_size


def shipped(stage: int, precision: str) -> str:
    """The name of ds_configs/' plain mechanics."""
    return f"zero{stage}" + "-bf16" * (precision == "bf16")


def random_micro_batch(system: System, generator: torch.Generator) -> Batch:
    """A made-up batch of the form that a rank's micro batches have: padded, as sentence pairs are, or packed."""
    data, nsp = system.config.data, system.config.data.objective == "mlm+nsp"
    predictions, shortest = predictions_per_sequence(data.seq_len, data.mask_fraction), data.seq_len // 2 if nsp else None
    return random_batch(
        generator, system.micro_sequences, data.seq_len, predictions, system.vocab_size, nsp=nsp, shortest=shortest
    )


def with_layers(system: System, layers: int) -> System:
    """The same with another depth."""
    return replace(system, config=changed(system.config, {"model.layers": layers}))


def plus(*many: Kinds) -> Kinds:
    """The sum, kind by kind."""
    kinds: Kinds = {}
    for one in many:
        for kind, size in one.items():
            kinds[kind] = kinds.get(kind, 0) + size
    return kinds


def with_adam(config: RunConfig) -> RunConfig:
    """The same shape, positions and batch as BERT with AdamW."""
    model = {
        "model.encoder": "bert",
        "model.head": "tied",
        "model.embedding": "summed",
        "model.mask_embedding": "learned",
        "model.branch_scale": 1.0,
        "model.attention_power": 1,
        "model.final_norm": True,
        "model.init": "normal",
        "model.score_offset": 0.0,
    }
    clipping = {"optim.clip_c": float("inf"), "optim.clip_over": "all"}
    return changed(config, {**model, "optim.rule": "adamw", "optim.lr": 1e-4, "optim.weight_decay": 0.01, **clipping})


def with_head(config: RunConfig, head: str) -> RunConfig:
    """A SIBERT recipe with the other head."""
    assert head in ("paper", "invariant")
    return changed(config, {"model.head": head, "model.init": config.model.init if head == "invariant" else "normal"})
