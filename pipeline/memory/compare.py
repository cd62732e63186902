"""Systems side by side: predicted, and measured where that was asked for; as text and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config.load import changed, from_dict
from pipeline.config.schema import RunConfig
from pipeline.memory.measure import Measurement
from pipeline.memory.predict import Prediction, predict
from pipeline.memory.system import KINDS, System, shipped, with_adam, with_head

MIB, GIB = 2**20, 2**30
COLUMNS = (("init", "live"), ("forward", "live"), ("backward", "peak"), ("backward", "live"), ("step", "peak"))
WHOLE = "fp32 masters"
HEADINGS = ("after init", "after forward", "peak of backward", "after backward", "peak of step")


@dataclass(frozen=True)
class Row:
    """One system: what it will hold, and perhaps what it held. The last two answer --gpu-gib."""

    system: System
    prediction: Prediction
    measurement: Measurement | None = None
    micro_sequences: int | None = None
    layers: int | None = None


def name_of(config: RunConfig) -> str:
    """What the table calls a configuration."""
    rule = {"sgd": "SGD", "adamw": "AdamW"}[config.optim.rule]
    if config.model.encoder == "bert":
        return f"BERT + {rule}"
    return f"SIBERT + {rule}, {config.model.head} head"


def systems(
    config: RunConfig, vocab_size: int, world_size: int, stages: Sequence[int | None], versus: str | None
) -> list[System]:
    """The recipe under each ZeRO stage (None: under its own mechanics); with versus = "adam" also with SIBERT's other head, and
    BERT + AdamW: with the same engine, with fp32 masters where these are split, and then with the update all at once as well,
    as DeepSpeed does by itself."""
    configs = {name_of(config): config}
    if versus:
        if config.model.encoder != "bert":
            for head in ("paper", "invariant"):
                other = with_head(config, head)
                configs.setdefault(name_of(other), other)
        adam = with_adam(config)
        configs.setdefault(name_of(adam), adam)
        configs[f"{name_of(adam)}, {WHOLE}"] = changed(adam, {"train.split_masters": False})
        by_itself = changed(adam, {"train.split_masters": False, "train.update_elements": 0})
        configs[f"{name_of(adam)}, all at once"] = by_itself
    weighed = [
        System(name, changed(c, {"train.ds_config": mechanics_of(c, stage)}), vocab_size, world_size)
        for stage in stages
        for name, c in configs.items()
    ]
    return [system for system in weighed if system.can_split_masters or not system.name.endswith(WHOLE)]


def mechanics_of(config: RunConfig, stage: int | None) -> str:
    """The file of ds_configs/ for a stage in the precision of the recipe's own; its own, if that has the stage and offloads
    nothing, which is not predicted."""
    if stage is None:
        return config.train.ds_config
    own = System("", config, 8)
    alike = own.stage == stage and "offload_optimizer" not in own.zero
    return config.train.ds_config if alike else shipped(stage, own.precision)


def predicted_rows(made_from: Mapping[str, Any], config: Mapping[str, Any], ds_config: Mapping[str, Any]) -> list[Row]:
    """A run, as its directory tells of it, beside BERT + AdamW; none where that cannot be predicted."""
    try:
        own = from_dict(config, where="config.json")
        world_size = ds_config["train_batch_size"] // (
            ds_config["train_micro_batch_size_per_gpu"] * ds_config["gradient_accumulation_steps"]
        )
        weighed = systems(own, int(made_from["vocab_size"]), world_size, [None], "adam")
        return [Row(s, predict(s)) for s in weighed if s is weighed[0] or s.config.optim.rule == "adamw"]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return []


def table(rows: Sequence[Row]) -> str:
    """Of each system what its fullest rank holds by kind and phase of a step, then all systems in one line each."""
    return "\n\n".join([*(_block(row, *unit(rows)) for row in rows), _summary(rows, *unit(rows))])


def unit(rows: Sequence[Row]) -> tuple[str, int]:
    """GiB, or MiB for small models."""
    return ("MiB", MIB) if max(row.prediction.largest for row in rows) < GIB else ("GiB", GIB)


def _block(row: Row, unit_name: str, of: int) -> str:
    system, prediction = row.system, row.prediction
    shape = f"{system.micro_sequences} x {system.config.data.seq_len} tokens"
    ranks = f"{system.world_size} rank{'s' * (system.world_size > 1)}"
    title = f"{system.name}: {prediction.parameters:,} parameters, ZeRO {system.stage}, {system.precision}, {ranks}, {shape}"
    lines = [title, f"{unit_name:<16}" + "".join(f"{heading:>18}" for heading in HEADINGS)]
    columns = [getattr(prediction, which)[phase] for phase, which in COLUMNS]
    for kind in KINDS:
        if any(column.get(kind) for column in columns):
            lines.append(f"{kind:<16}" + "".join(f"{column.get(kind, 0) / of:>18.3f}" for column in columns))
    lines.append(f"{'predicted':<16}" + "".join(f"{sum(column.values()) / of:>18.3f}" for column in columns))
    if row.measurement:
        measured = [getattr(row.measurement, which)[phase] for phase, which in COLUMNS]
        lines.append(f"{'measured':<16}" + "".join(f"{size / of:>18.3f}" for size in measured))
    return "\n".join(lines)


def _summary(rows: Sequence[Row], unit_name: str, of: int) -> str:
    """Bytes a parameter: between steps, and the peak of step(), which no micro batch changes; then the largest peak."""
    width = max(len(row.system.name) for row in rows) + 2
    head = f"{'':<{width}}{'ZeRO':>5}{'between steps':>15}{'peak of step':>14}{'largest peak':>15}"
    measured, fits = any(row.measurement for row in rows), any(row.micro_sequences is not None for row in rows)
    head += f"{'measured':>12}{'off by':>8}" * measured + f"{'micro batch':>13}{'layers':>8}" * fits
    lines = [f"bytes a parameter between steps and at the peak of step(); the largest peak in {unit_name}", head]
    for row in rows:
        states, step = sum(row.prediction.live["init"].values()), sum(row.prediction.peak["step"].values())
        line = f"{row.system.name:<{width}}{row.system.stage:>5}"
        line += f"{states / row.prediction.parameters:>15.2f}{step / row.prediction.parameters:>14.2f}"
        line += f"{row.prediction.largest / of:>15.3f}"
        if row.measurement:
            off = row.prediction.largest / row.measurement.largest - 1
            line += f"{row.measurement.largest / of:>12.3f}{off:>8.1%}"
        elif measured:
            line += f"{'–':>12}{'':>8}"
        if row.micro_sequences is not None:
            line += f"{row.micro_sequences:>13}{row.layers:>8}"
        lines.append(line)
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every figure, in bytes."""
    return [
        {
            "system": row.system.name,
            "zero_stage": row.system.stage,
            "precision": row.system.precision,
            "world_size": row.system.world_size,
            "micro_sequences": row.system.micro_sequences,
            "seq_len": row.system.config.data.seq_len,
            "activation_checkpointing": row.system.config.train.activation_checkpointing,
            "accumulates": row.system.accumulates,
            "parameters": row.prediction.parameters,
            "predicted": {"live": row.prediction.live, "peak": row.prediction.peak, "largest": row.prediction.largest},
            "measured": None if row.measurement is None else asdict(row.measurement),
            "largest_micro_batch": row.micro_sequences,
            "most_layers": row.layers,
        }
        for row in rows
    ]
