"""What a run writes down while it trains: records of steps and evaluations, and alarms. Rank 0 has the Monitor that writes."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pipeline.config.schema import RunConfig
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.run.monitor import Monitor
from pipeline.run.records import cosine_alarm, norm_record
from pipeline.run.summary import peak_memory_bytes
from pipeline.train.state import TrainState


def say(text: str) -> None:
    """A line on standard output, which may be a log on a disk that is full."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


class RunLog:
    """One on every rank, because a record's loss is summed over all; `monitor` is rank 0's alone.

    attempt: how many starts the run has had. evaluated_step: where this start begins, if an earlier one has logged the
    evaluation after that step already.
    """

    def __init__(
        self,
        config: RunConfig,
        precision: str,
        world_size: int,
        sum_over_ranks: Callable[[Tensor], Tensor],
        monitor: Monitor | None,
        attempt: int,
        evaluated_step: int | None,
    ) -> None:
        self.config, self.precision, self.world_size = config, precision, world_size
        self.sum_over_ranks, self.monitor, self.attempt = sum_over_ranks, monitor, attempt
        self.evaluated_step = evaluated_step
        self.alarmed = False

    def train(self, state: TrainState, optimizer: PretrainingOptimizer) -> None:
        """The record of the steps since the last one."""
        window = state.window
        loss_sum, count = self.sum_over_ranks(window.loss).tolist()
        tokens = self.config.batch.global_sequences * self.config.data.seq_len
        if self.monitor is None:
            return
        record = {
            "kind": "train",
            "step": state.step,
            "attempt": self.attempt,
            "loss": loss_sum / count if count else None,
            **norm_record(self.config, optimizer, state.statistics),
            "tokens": state.step * tokens,
            "tokens_per_s": window.steps * tokens / window.time_s,
            "memory_bytes": peak_memory_bytes(),
            "world_size": self.world_size,
            "time_s": window.time_s,
        }
        self.monitor.train(record)
        alarm = cosine_alarm(state.step, record["param_grad_cosine"], self.precision)
        if alarm and not self.alarmed:
            self.alarmed = True  # once in an attempt: the metrics hold the rest
            self.monitor.message(alarm)

    def evaluation(self, step: int, figures: Mapping[str, Any]) -> None:
        """The record of an evaluation."""
        self.evaluated_step = step
        if self.monitor is not None:
            self.monitor.evaluate({"kind": "eval", "step": step, "attempt": self.attempt, **figures})

    def has_evaluation(self, step: int) -> bool:
        """Is the evaluation of the present step logged?"""
        return step == self.evaluated_step

    def position(self) -> int:
        """The bytes of metrics.jsonl with everything said so far; 0 on the ranks that do not write it."""
        return self.monitor.position() if self.monitor else 0

    def say(self, text: str) -> None:
        """A line for the reader, from rank 0."""
        if self.monitor:
            say(text)

    def close(self) -> None:
        """Nothing is told after this. OSError if records could not be written to the end."""
        if self.monitor:
            self.monitor.close()
