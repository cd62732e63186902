"""The configuration of a fine-tuning: a recipe of config/recipes/finetune, on the shape of the pretrained run."""

import math
from collections.abc import Sequence
from typing import Any

from pipeline.config.load import as_dict, changed, from_dict, load_recipe
from pipeline.config.schema import RunConfig
from pipeline.tasks.examples import TaskName

DERIVED = ("train.steps", "optim.schedule.warmup_steps", "head_optim.schedule.warmup_steps")
OF_THE_RUN = "model."  # but for the dropout


def recipe_for(task: TaskName, pretrained: RunConfig) -> str:
    """The standard one: LAMB, or AdamW for BERT."""
    return f"finetune/{task}" + ("-bert" if pretrained.model.encoder == "bert" else "")


def finetune_config(task: TaskName, recipe: str, pretrained: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The recipe under `--set` overrides, with the pretrained run's model. ValueError for a recipe of another task, an override
    of what follows from something else, or a sequence longer than the run's learned positions."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in DERIVED:
            raise ValueError(f"--set {override}: {key} follows from task.epochs and task.warmup_fraction: set those")
        if key.startswith(OF_THE_RUN) and key != "model.dropout":
            raise ValueError(f"--set {override}: the model is the pretrained run's; of it model.dropout alone can be set")
    wanted = load_recipe(recipe, overrides)
    if wanted.task.name != task:
        raise ValueError(f"--recipe {recipe} is of {wanted.task.name}, not of --task {task}: give one of finetune/{task}")
    longest = pretrained.model.max_seq_len
    if wanted.data.seq_len > longest and pretrained.model.positions == "learned":
        raise ValueError(
            f"data.seq_len = {wanted.data.seq_len}, but the run has {longest} positions: --set data.seq_len={longest} "
            "(and a task.stride and task.question_tokens that leave room), or pretrain with a larger model.max_seq_len"
        )
    model = {**as_dict(pretrained)["model"], "init": "normal", "dropout": wanted.model.dropout}
    model["max_seq_len"] = max(longest, wanted.data.seq_len)  # rotary positions go on beyond those that were trained
    return from_dict({**as_dict(wanted), "model": model}, where=f"recipe {recipe} on this run")


def with_length(config: RunConfig, samples: int, seed: int) -> RunConfig:
    """For a training set of so many samples: the steps of its epochs, the last batch filled up from the next one."""
    steps = max(1, math.ceil(config.task.epochs * samples / config.batch.global_sequences - 1e-9))
    warmup = min(steps - 1, round(config.task.warmup_fraction * steps))
    values: dict[str, Any] = {**dict.fromkeys(DERIVED, warmup), "train.steps": steps, "train.seed": seed}
    return changed(config, values)
