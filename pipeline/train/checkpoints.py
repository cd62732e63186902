"""Checkpoints of a training: what goes into one, its probe, and what is said of how a save went."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.checkpoint import probe
from pipeline.checkpoint.progress import Progress, manifest_of
from pipeline.checkpoint.snapshot import WINDOW, owned_tensors, rng_states
from pipeline.checkpoint.writer import Saved, Saver
from pipeline.data.batch import Batch
from pipeline.distributed.ranks import Ranks
from pipeline.model.pretraining import PretrainingLoss, on_device
from pipeline.model.task_model import TaskLoss
from pipeline.optim.groups import Model
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.train.run_log import RunLog
from pipeline.train.state import TrainState


@dataclass(frozen=True)
class RunFacts:
    """What all checkpoints of one start say alike. `mechanics`: world size, ZeRO stage, precision, ds_config, versions."""

    made_from: Mapping[str, Any]
    shapes: Mapping[str, list[int]]
    mechanics: Mapping[str, Any]
    global_sequences: int
    encoder_lr: Callable[[int], float]  # in the step of this number


class TrainingCheckpoints:
    """All ranks copy what they own; their writers go on beside the training.

    A save that fails beside the training is an alarm: the run goes on, and older checkpoints stay. One that the run waits for,
    because it ends there, raises ValueError on every rank.
    micro_batches(s): this rank's of step s; the first of the next step is the probe's.
    """

    def __init__(
        self,
        saver: Saver,
        model: Model,
        optimizer: PretrainingOptimizer,
        facts: RunFacts,
        ranks: Ranks,
        log: RunLog,
        micro_batches: Callable[[int], Iterator[Batch]],
    ) -> None:
        self.saver, self.model, self.optimizer, self.facts = saver, model, optimizer, facts
        self.ranks, self.log, self.micro_batches = ranks, log, micro_batches

    def save(self, state: TrainState, wait: bool, probe_now: bool) -> None:
        """See `trainer.Checkpoints`."""
        tensors = {
            **owned_tensors(self.optimizer, self.ranks.rank),
            WINDOW: state.window.loss,
            **rng_states(on_device(self.model)),
        }
        self._tell(self.saver.start(state.step, tensors, self._manifest(state)))
        if probe_now:
            rows = probe.rows(next(self.micro_batches(state.step)))
            loss = probe.loss(self.model, rows)  # on every rank: ZeRO 3 gathers weights
            if self.saver.wants_probe:
                self.saver.give_probe(probe.as_tensors(rows), torch.tensor(loss))
        if wait:
            self._insist(self.saver.wait())

    def saw(self, batch: Batch, output: PretrainingLoss | TaskLoss) -> None:
        """The first forward pass after a save is made with the saved weights: it gives the probe."""
        if self.saver.wants_probe:
            self.saver.give_probe(probe.as_tensors(probe.rows(batch)), probe.loss_of_rows(batch, output))

    def report(self) -> None:
        """Say how the last save went, once it has ended."""
        self._tell(self.saver.finished())

    def _manifest(self, state: TrainState) -> dict[str, Any]:
        progress = Progress(
            samples=state.step * self.facts.global_sequences,
            updates=self.optimizer.updates,
            attempt=self.log.attempt,
            lr=self.facts.encoder_lr(state.step),
            metrics_bytes=self.log.position(),
            window_time_s=state.window.time_s,
            window_steps=state.window.steps,
            statistics=state.statistics.state_dict(),
        )
        return manifest_of(progress, dict(self.facts.made_from), dict(self.facts.shapes), **self.facts.mechanics)

    def _tell(self, saved: Saved | None) -> None:
        if saved is not None and saved.problem is not None:
            self.log.say(f"ALARM: no checkpoint of step {saved.step}: {saved.problem}; older ones are whole, training goes on")
        elif saved is not None and saved.untidy is not None:
            self.log.say(f"ALARM: checkpoint of step {saved.step}: whole, but latest or old ones are as before: {saved.untidy}")

    def _insist(self, saved: Saved | None) -> None:
        """A save without which the run cannot end."""
        assert saved is not None
        problems = [problem for problem in self.ranks.gather(saved.problem) if problem is not None]
        if problems:
            raise ValueError(f"checkpoint at step {saved.step}: {problems[0]}; older ones are whole; mend that and start again")
        self._tell(saved)
