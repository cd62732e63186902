"""The configuration of a run: typed, strict, one owner per value.

recipe (TOML) -> `--set section.key=value` -> RunConfig, frozen and validated. Nothing here depends on the corpus, the
machine or the launcher: those are checked against it where they meet (`batch_arithmetic`, the corpus manifest).
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from preprocessing.cli import nearest

RECIPES = Path(__file__).parent / "recipes"


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
    init: Literal["normal", "balanced"] = "normal"  # model/initialise.py
    score_offset: float = 0.0  # where query and key biases start (model/initialise.py); 0 as in the paper
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


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain values (infinite numbers as the string "inf", for strict JSON)."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return "inf" if isinstance(value, float) and math.isinf(value) else value

    result = plain(config)
    assert isinstance(result, dict)
    return result


def from_dict(values: Mapping[str, Any], where: str) -> RunConfig:
    """A RunConfig from nested plain values; `where` names their origin in errors. ValueError on a bad key or value."""
    built = _build(RunConfig, values, where, prefix="")
    assert isinstance(built, RunConfig)
    return built


def recipe_names() -> list[str]:
    """The recipes that come with the pipeline."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The recipe called `name` (or the TOML file at that path) under `--set` overrides ("optim.lr=0.1").

    Raises ValueError on an unknown recipe, key or value, naming the nearest legal one.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"no recipe {name!r}: {nearest(name, recipe_names())}, or the path of a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(values, override)
    return from_dict(values, where=f"recipe {path.name}" + (" with --set" if overrides else ""))


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set {override}: expected section.key=value, for example --set optim.lr=0.1")
    if "\n" in text:
        raise ValueError(f"--set {override!r}: one value on one line")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # an unquoted string
    *sections, leaf = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    values[leaf] = value


def _build(cls: type, values: Any, where: str, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: {prefix.rstrip('.')} is a section of keys, got {values!r}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ValueError(f"{where}: unknown key {prefix + key!r}; {nearest(key, hints)}")
    return cls(**{key: _convert(hints[key], value, where, prefix + key) for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where, prefix=key + ".")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        raise ValueError(f"{where}: {key} = {value!r}; {nearest(str(value), map(str, arguments))}")
    if origin is tuple:
        if isinstance(value, (list, tuple)) and (arguments[-1] is Ellipsis or len(value) == len(arguments)):
            return tuple(_convert(arguments[0], v, where, key) for v in value)
    elif hint is float and value == "inf":
        return math.inf
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    elif (hint is float and isinstance(value, float)) or (
        isinstance(hint, type) and type(value) is hint
    ):  # nan and inf have their own refusals
        return value
    expected = hint.__name__ if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else str(hint)
    raise ValueError(f"{where}: {key} = {value!r}, expected {expected}")


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


@dataclass(frozen=True)
class BatchArithmetic:
    """How the global batch is made of micro batches."""

    world_size: int
    micro_sequences: int
    accumulation_steps: int
    global_sequences: int


def batch_arithmetic(batch: BatchConfig, world_size: int) -> BatchArithmetic:
    """Accumulation = global / (micro × world size); ValueError with all four numbers and batches that would do."""
    if world_size < 1:
        raise ValueError(f"world size {world_size}: expected at least 1")
    per_step = batch.micro_sequences * world_size
    if batch.global_sequences % per_step:
        below = batch.global_sequences // per_step * per_step
        fits = " or ".join(str(b) for b in (below, below + per_step) if b)
        micros = [m for m in range(batch.micro_sequences, 0, -1) if batch.global_sequences % (m * world_size) == 0]
        remedy = f"batch.micro_sequences={micros[0]} or " if micros else ""
        raise ValueError(
            f"batch.global_sequences = {batch.global_sequences} is not divisible by batch.micro_sequences = "
            f"{batch.micro_sequences} x world size {world_size} = {per_step} (accumulation would be "
            f"{batch.global_sequences / per_step:.2f}); --set {remedy}batch.global_sequences={fits} would do"
        )
    return BatchArithmetic(world_size, batch.micro_sequences, batch.global_sequences // per_step, batch.global_sequences)
