"""What is weighed: a recipe's model and optimiser on a number of ranks, and the kinds of what they hold."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.ds_config import load_ds_config, precision
from pipeline.config.load import changed
from pipeline.config.schema import RunConfig
from pipeline.data.masking import predictions_per_sequence
from pipeline.model.pretraining import PretrainingModel, build_model

PARAMETERS, MASTERS, GRADIENTS, MOMENTS = "parameters", "masters", "gradients", "moments"
COPIES, ACTIVATIONS, LOGITS, WORKSPACE = "ZeRO's copies", "activations", "logits", "workspace"
KINDS = (PARAMETERS, MASTERS, GRADIENTS, MOMENTS, COPIES, ACTIVATIONS, LOGITS, WORKSPACE)


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


def skeleton(config: RunConfig, vocab_size: int) -> PretrainingModel:
    """The model without storage. ValueError for sizes that no tensor can have."""
    try:
        with torch.device("meta"):
            return real_model(config, vocab_size)
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise ValueError(f"model.width = {config.model.width:,}, vocabulary {vocab_size:,}: too large for a tensor") from error


def real_model(config: RunConfig, vocab_size: int) -> PretrainingModel:
    """The model with torch's own initialisation, on the CPU."""
    model = build_model(config.model, vocab_size, config.data.objective == "mlm+nsp", np.broadcast_to(1.0, vocab_size))
    model.encoder.activation_checkpointing = config.train.activation_checkpointing
    return model


def random_inputs(system: System) -> tuple[Tensor | None, ...]:
    """The arguments of the model's forward, as a real micro batch has them."""
    data, batch, vocab_size = system.config.data, system.micro_sequences, system.vocab_size
    predictions = predictions_per_sequence(data.seq_len, data.mask_fraction)
    nsp = data.objective == "mlm+nsp"
    ids_BL = torch.randint(5, vocab_size, (batch, data.seq_len))
    positions_BP = torch.arange(predictions).repeat(batch, 1)
    return (
        ids_BL,
        torch.zeros_like(ids_BL),
        torch.ones(batch, data.seq_len) if nsp else None,
        positions_BP,
        ids_BL.gather(1, positions_BP),
        torch.ones(batch, predictions),
        torch.zeros(batch, dtype=torch.int64) if nsp else None,
    )


def with_layers(system: System, layers: int) -> System:
    """The same with another depth."""
    return replace(system, config=changed(system.config, {"model.layers": layers}))


def with_adam(config: RunConfig) -> RunConfig:
    """The same shape and batch as BERT with AdamW."""
    model = {"model.encoder": "bert", "model.head": "tied", "model.init": "normal", "model.score_offset": 0.0}
    clipping = {"optim.clip_c": float("inf"), "optim.clip_over": "all"}
    return changed(config, {**model, "optim.rule": "adamw", "optim.lr": 1e-4, "optim.weight_decay": 0.01, **clipping})


def with_head(config: RunConfig, head: str) -> RunConfig:
    """A SIBERT recipe with the other head."""
    assert head in ("paper", "invariant")
    return changed(config, {"model.head": head, "model.init": config.model.init if head == "invariant" else "normal"})
