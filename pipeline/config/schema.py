"""The configuration of a run: typed, strict, one owner per value.

recipe (TOML) -> `--set section.key=value` -> RunConfig, frozen and validated. Nothing here depends on the corpus, the
machine or the launcher: those are checked against it where they meet (`batch_arithmetic`, the corpus manifest).
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ModelConfig:
    """Shape and wiring. The vocabulary's size is the corpus's."""

    encoder: Literal["sibert-a", "sibert-d", "bert"] = "sibert-a"  # model/encoder.py says what each is
    head: Literal["paper", "invariant", "tied"] = "paper"  # model/heads.py
    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn_width: int = 3072
    max_seq_len: int = 512
    init_std: float = 0.02  # truncated normal, paper section 5
    init: Literal["normal", "balanced"] = "normal"  # pipeline/init
    score_offset: float = 0.0  # where query and key biases start (init/normal.py); 0 as in the paper
    unigram_bias: bool = True  # start the decoder's bias at the log unigram frequencies
    tau: float = 1.0  # of the invariant head only: logits are τ·cosine·sqrt(D)


@dataclass(frozen=True)
class DataConfig:
    """What a sample is."""

    objective: Literal["mlm", "mlm+nsp"] = "mlm"
    seq_len: int = 128
    mask_fraction: float = 0.15


@dataclass(frozen=True)
class BatchConfig:
    """The global batch is the recipe's; accumulation follows from the launcher's world size."""

    global_sequences: int = 256
    micro_sequences: int = 32


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run: linear warm-up, then the named decay."""

    decay: Literal["linear", "step", "constant"] = "linear"
    warmup_steps: int = 0
    milestones: tuple[float, ...] = ()  # of `step`: fractions of the run at which the rate falls
    factor: float = 0.1  # of `step`: what it is multiplied by at each milestone


@dataclass(frozen=True)
class OptimConfig:
    """The encoder's optimiser: `sgd` is SGD + weight decay + relative global clipping (Algorithm 1)."""

    rule: Literal["sgd", "adamw"] = "sgd"
    lr: float = 8e-4
    weight_decay: float = 1e-2
    clip_c: float = 2.0  # sgd only: C of the slides; the paper's table has 4; inf means no clipping
    clip_over: Literal["all", "matrix"] = (
        "all"  # sgd only: one norm of everything (the paper), or one of each matrix (sibert-d)
    )
    max_grad_norm: float = 1.0  # adamw only: the usual clipping by global norm
    betas: tuple[float, float] = (0.9, 0.999)  # adamw only
    eps: float = 1e-6  # adamw only
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass(frozen=True)
class HeadOptimConfig:
    """LAMB for the parameters that are not scale invariant; unused where there are none (invariant head, AdamW)."""

    lr: float = 8e-4
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass(frozen=True)
class TrainConfig:
    """The run: its length, its rhythm and its seed."""

    steps: int = 1000
    seed: int = 0
    ds_config: str = "zero1"  # a file of ds_configs/, or a path
    log_every_steps: int = 10
    eval_every_steps: int = 100
    eval_sequences: int = 512  # held-out sequences of each evaluation; the last one takes them all
    checkpoint_every_steps: int = 500
    keep_last_checkpoints: int = 0  # the newest so many are kept; 0: all, none is ever deleted
    keep_every_steps: int = 0  # of the older ones, those at multiples of this are kept, too; 0: none
    activation_checkpointing: bool = False  # keep one tensor a layer and compute the layers again in the backward pass
    update_elements: int = 1_000_000  # the update goes in parts, the first at most so many weights (or a 64th); 0: all at once
    split_masters: bool = True  # in bf16: fp32 masters as bf16 parameters and 16 bits more (ZeRO 1-3, not offloaded)
    timeout_s: float = 300.0  # a run that gets no further for so long ends, and says which rank is to blame
    max_nonfinite_steps: int = 5  # so many skipped steps in a row end the run with an error


@dataclass(frozen=True)
class RunConfig:
    """Everything a run is. `load_recipe` makes one; `as_dict` and `from_dict` round-trip it through JSON."""

    description: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    head_optim: HeadOptimConfig = field(default_factory=HeadOptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        validate(self)


def validate(config: RunConfig) -> None:
    """Raise ValueError where values contradict each other or the mathematics."""
    _check_positive(config)
    _validate_model(config.model, config.data)
    _validate_optim(config.optim, config.model)
    for name, optim in (("optim", config.optim), ("head_optim", config.head_optim)):
        _validate_rates(name, optim, config.train.steps)


def _validate_model(model: ModelConfig, data: DataConfig) -> None:
    if model.width % model.heads:
        raise ValueError(f"model.width = {model.width} is not divisible by model.heads = {model.heads}")
    if data.seq_len > model.max_seq_len:
        raise ValueError(f"data.seq_len = {data.seq_len} exceeds model.max_seq_len = {model.max_seq_len}")
    if data.seq_len < 8:
        raise ValueError(f"data.seq_len = {data.seq_len}: at least 8")
    if not 0 < data.mask_fraction < 1:
        raise ValueError(f"data.mask_fraction = {data.mask_fraction}: expected between 0 and 1")
    if (model.encoder == "bert") != (model.head == "tied"):
        raise ValueError(
            f"model.encoder = {model.encoder!r} with model.head = {model.head!r}: bert has the tied head, and a head tied "
            "to the embedding breaks SIBERT's invariance (use paper or invariant)"
        )
    if model.init == "balanced" and (model.encoder, model.head) != ("sibert-d", "invariant"):
        raise ValueError(
            f"model.init = 'balanced' with model.encoder = {model.encoder!r} and model.head = {model.head!r}: only in "
            "sibert-d with the invariant head is every matrix scale invariant by itself; use 'normal'"
        )


def _validate_optim(optim: OptimConfig, model: ModelConfig) -> None:
    if optim.rule == "sgd" and model.encoder == "bert" and not math.isinf(optim.clip_c):
        raise ValueError("model.encoder = 'bert' is not scale invariant: relative clipping needs optim.clip_c = inf there")
    if not optim.clip_c > 1:
        raise ValueError(f"optim.clip_c = {optim.clip_c}: C must exceed 1 (C <= 1 clips at equilibrium), inf for none")
    if optim.rule == "sgd" and optim.weight_decay == 0 and not math.isinf(optim.clip_c):
        raise ValueError("optim.weight_decay = 0 makes the clip threshold 0 and no step would move: set optim.clip_c = inf")
    if optim.clip_over == "matrix" and (optim.rule != "sgd" or model.encoder != "sibert-d"):
        raise ValueError(
            f"optim.clip_over = 'matrix' with optim.rule = {optim.rule!r} and model.encoder = {model.encoder!r}: only in "
            "sibert-d is every matrix scale invariant by itself; use 'all'"
        )
    if model.init == "balanced" and (optim.rule != "sgd" or optim.weight_decay == 0):
        raise ValueError(
            "model.init = 'balanced' is the equilibrium of SGD with weight decay: set optim.rule = 'sgd' and λ > 0"
        )


def _validate_rates(name: str, optim: OptimConfig | HeadOptimConfig, steps: int) -> None:
    schedule = optim.schedule
    if optim.lr * optim.weight_decay >= 1:
        product = optim.lr * optim.weight_decay
        raise ValueError(f"{name}.lr * {name}.weight_decay = {product:g}: at 1 or more a step would erase the weights")
    if not all(beta < 1 for beta in optim.betas):
        raise ValueError(f"{name}.betas = {optim.betas}: each must be below 1")
    if schedule.decay == "step" and not (schedule.milestones and all(milestone < 1 for milestone in schedule.milestones)):
        raise ValueError(f"{name}.schedule.milestones = {schedule.milestones}: fractions of the run, between 0 and 1")
    if schedule.warmup_steps >= steps:
        raise ValueError(f"{name}.schedule.warmup_steps = {schedule.warmup_steps} is not below train.steps = {steps}")


_MAY_BE_ZERO = {
    *("weight_decay", "warmup_steps", "seed", "score_offset"),
    *("keep_last_checkpoints", "keep_every_steps", "update_elements"),
}


def _check_positive(section: Any, prefix: str = "") -> None:
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        if dataclasses.is_dataclass(value):
            _check_positive(value, f"{prefix}{f.name}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            low_enough = number >= 0 if f.name in _MAY_BE_ZERO else number > 0
            finite = math.isfinite(number) or (f.name in {"clip_c", "max_grad_norm"} and number > 0)
            if not (low_enough and finite):
                expected = "a number not below zero" if f.name in _MAY_BE_ZERO else "a number above zero"
                raise ValueError(f"{prefix}{f.name} = {number}: expected {expected}")
