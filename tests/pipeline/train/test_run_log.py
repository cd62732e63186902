"""What a run says of its steps: one that stops being scale invariant is an alarm."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.config.load import load_recipe
from pipeline.optim.decision import Decision
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.train.run_log import RunLog
from pipeline.train.state import LossWindow, TrainState

CONFIG = load_recipe("tiny")


class Recorder:
    """Stands where the Monitor stands."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.messages: list[str] = []

    def train(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def message(self, text: str) -> None:
        self.messages.append(text)


def logged(cosine: float | None, precision: str, steps: int) -> Recorder:
    """So many steps, each with this cosine, through a RunLog of one rank."""
    monitor: Any = Recorder()
    log = RunLog(CONFIG, precision, 1, lambda t: t, monitor, attempt=3, evaluated_step=None)
    settings = {"name": "all", "names": ["w"], "rule": "sgd", "lr": 0.1, "weight_decay": 0.01, "clip_c": 2.0}
    optimizer = PretrainingOptimizer([{"params": [torch.ones(4)], "clip_set": "all", **settings}])
    state = TrainState(LossWindow(torch.tensor([6.0, 3.0], dtype=torch.float64), time_s=2.0, steps=4))
    for step in range(1, steps + 1):
        state.step = step
        optimizer.last_decision = replace(Decision(finite=True, x_norm=2.0, g_norm=1.0), cosine=cosine)
        log.train(state, optimizer)
    return monitor


@pytest.mark.parametrize(
    ("cosine", "precision", "alarms"),
    [
        (1e-9, "fp32", 0),
        (-1e-9, "fp32", 0),
        (None, "fp32", 0),
        (2e-5, "fp32", 1),
        (-2e-5, "fp32", 1),
        (2e-5, "bf16", 0),
        (2e-2, "bf16", 1),
    ],
)
def test_a_gradient_along_the_parameters_is_one_alarm_an_attempt(cosine: float | None, precision: str, alarms: int) -> None:
    monitor = logged(cosine, precision, steps=2)
    assert len(monitor.records) == 2
    assert len(monitor.messages) == alarms
    assert all("ALARM at step 1" in text and "not scale invariant" in text for text in monitor.messages)


def test_a_record_holds_the_mean_loss_and_the_rate_of_its_window() -> None:
    (record,) = logged(None, "fp32", steps=1).records
    tokens = CONFIG.batch.global_sequences * CONFIG.data.seq_len
    assert (record["step"], record["attempt"], record["loss"]) == (1, 3, 2.0)
    assert (record["tokens"], record["tokens_per_s"]) == (tokens, 2 * tokens)
