"""Does a head on an encoder learn, by each of the rules? Tasks that a small model masters in seconds, without DeepSpeed."""

from functools import partial

import numpy as np
import pytest
import torch

from pipeline.config.load import changed, load_recipe
from pipeline.config.schema import RunConfig
from pipeline.data.batch import rank_indices
from pipeline.engine.local import LocalEngine
from pipeline.finetune.dev import logits_of
from pipeline.init.normal import init_weights
from pipeline.model.task_model import TaskModel
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.schedules import learning_rates
from pipeline.tasks.samples import Row, TaskData
from pipeline.train.state import TrainState
from pipeline.train.trainer import Trainer

SEED, VOCABULARY, LENGTH, BATCH = 20261128, 24, 12, 32
SMALL = {"model.layers": 1, "model.width": 32, "model.heads": 2, "model.ffn_width": 64, "model.init": "normal"}
RULES = {
    "lamb": {"optim.rule": "lamb", "optim.lr": 0.05, "model.dropout": 0.1},
    "sgd": {"optim.lr": 0.3, "optim.weight_decay": 3e-3, "task.head": "invariant"},
    "adamw": {"optim.rule": "adamw", "optim.lr": 0.01, "model.encoder": "bert", "model.head": "tied", "optim.clip_c": np.inf},
}


def rows(task: str) -> list[Row]:
    """MNLI: the class is that of the second part's first token. SQuAD: the answer is the two tokens from the 5 on."""
    draw = np.random.default_rng(SEED)
    found = []
    for _ in range(400):
        first, second = draw.integers(6, VOCABULARY, 2), draw.integers(6, VOCABULARY, 7)
        place = int(draw.integers(0, 5))
        if task != "mnli":
            second[place] = 5
        found.append(Row(first, second, (int(second[0]) % 3,) if task == "mnli" else (4 + place, 5 + place)))
    return found


def trained(config: RunConfig, data: TaskData) -> TaskModel:
    model = TaskModel(config, VOCABULARY, 3)
    init_weights(model, config.model, SEED)
    optimizer = PretrainingOptimizer(parameter_groups(model, config))
    trainer = Trainer(
        LocalEngine(model, optimizer),
        optimizer,
        TrainState.new(torch.device("cpu")),
        config.train,
        lambda step: [data.batch(rank_indices(step, 0, 0, 1, BATCH, BATCH))],
        partial(learning_rates, config),
    )
    assert trainer.run()
    return model


@pytest.mark.parametrize(
    ("task", "rule", "steps", "least"),
    [("mnli", "sgd", 120, 0.9), ("squad1", "adamw", 90, 0.9), ("mnli", "lamb", 120, 0.5)],  # by chance: 1/3, 1/5
)
def test_it_learns(task: str, rule: str, steps: int, least: float) -> None:
    values = {"task.name": task, "train.steps": steps, "batch.global_sequences": BATCH, "batch.micro_sequences": BATCH}
    config = changed(load_recipe("tiny-untied"), {**SMALL, **values, **RULES[rule]})
    seen = rows(task)
    model = trained(config, TaskData(seen[:300], LENGTH, SEED))
    found = logits_of(model, TaskData(seen[300:], LENGTH, SEED), 50)
    assert found is not None
    said = [logits.argmax(-1).flatten().tolist() for logits in found[0].values()]
    right = [list(row.labels) == one for row, one in zip(seen[300:], said, strict=True)]
    assert np.mean(right) > least, np.mean(right)
