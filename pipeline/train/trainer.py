"""The Trainer: one step, and the loop around it.

    learning rates -> micro batches: forward, backward, engine step -> statistics -> what is due: log, checkpoint, evaluation

It owns the engine, the optimiser in it, and the state. Where batches come from and what a run directory gets is handed in, so
that pretraining, fine-tuning and a test with a list of batches use the same loop.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor

from pipeline.config.schema import TrainConfig
from pipeline.data.batch import Batch
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.train.state import LossWindow, TrainState

Figures = Mapping[str, Any]


class Engine(Protocol):
    """A model that trains: DeepSpeed's engine, or `engine.local.LocalEngine`."""

    def __call__(self, batch: Batch) -> Any:
        """The forward pass of a micro batch: its `loss`, to be differentiated, and `token_loss_N`, to be reported."""

    def backward(self, loss: Tensor) -> Any:
        """Add this micro batch's gradient."""

    def step(self) -> Any:
        """Update, if this was the last micro batch of the step."""


class Log(Protocol):
    """Who is told how the training goes; called on every rank."""

    def train(self, state: TrainState, optimizer: PretrainingOptimizer) -> None:
        """After a step that is to be logged; the window since the last one is full."""

    def evaluation(self, step: int, figures: Figures) -> None:
        """After an evaluation."""

    def has_evaluation(self, step: int) -> bool:
        """Was the evaluation after this step, the present one, logged, if only by an earlier start? The same on every rank."""


class Checkpoints(Protocol):
    """Who saves the state; called on every rank."""

    def save(self, state: TrainState, wait: bool, probe_now: bool) -> None:
        """Save what there is now; `wait` until it is on disk. `probe_now`: no training step follows at once."""

    def saw(self, batch: Batch, output: Any) -> None:
        """A forward pass of the training."""

    def report(self) -> None:
        """Tell how a save beside the training went, if one has ended."""


class Trainer:
    """Trains until `train.steps`, each step one update from one global batch.

    micro_batches(s): this rank's micro batches of the global batch of step s, counted from 0, on the model's device.
    learning_rates(s): of each rule ("sgd", "lamb", "adamw") in step s.
    evaluate(s, last): figures after s finished steps, on every rank alike; None if it was broken off by a wish to stop.
    beat(where): a sign of progress, equally often on all ranks. asked_to_stop: is this process to end after this step?

    Its eleven attributes are the engine, the optimiser and the state, two functions that give, and six that are told or asked.
    """

    def __init__(
        self,
        engine: Engine,
        optimizer: PretrainingOptimizer,
        state: TrainState,
        train: TrainConfig,
        micro_batches: Callable[[int], Iterable[Batch]],
        learning_rates: Callable[[int], Mapping[str, float]],
        *,
        log: Log | None = None,
        checkpoints: Checkpoints | None = None,
        evaluate: Callable[[int, bool], Figures | None] | None = None,
        beat: Callable[[str], None] = lambda where: None,
        asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.engine, self.optimizer, self.state, self.train = engine, optimizer, state, train
        self.micro_batches, self.learning_rates = micro_batches, learning_rates
        self.log, self.checkpoints, self.evaluate = log, checkpoints, evaluate
        self.beat, self.asked_to_stop = beat, asked_to_stop

    def run(self) -> bool:
        """All remaining steps. True: they are done. False: some rank was asked to stop; then all of them have saved.

        A checkpoint comes before the evaluation of the same step: what ends the process in the evaluation costs no step. So a
        run that starts from a checkpoint may owe an evaluation first.
        """
        if self.state.step and not self._evaluate_if_due():
            return False
        while self.state.step < self.train.steps:
            self.train_step()
            last, stop = self._is_last(), self.optimizer.last_decision.stop
            if self._is_due(self.train.log_every_steps):
                self._log()
            saved = self._is_due(self.train.checkpoint_every_steps) or stop
            if saved:
                self._save(wait=last or stop)
            if stop and not last:
                return False
            if not self._evaluate_if_due():
                if not saved:
                    self._save(wait=True)
                return False
            if self.checkpoints:
                self.checkpoints.report()
        return True

    def train_step(self) -> None:
        """One update from one global batch, whatever number of micro batches and ranks it takes. ValueError, on every rank
        alike, after `train.max_nonfinite_steps` steps in a row without finite norms."""
        began_s, step = time.perf_counter(), self.state.step
        rates = self.learning_rates(step)
        for group in self.optimizer.all_groups:
            group["lr"] = rates[group["rule"]]
        self.optimizer.with_cosine = self._is_due(self.train.log_every_steps, after=step + 1)
        self.optimizer.asks_to_stop = self.asked_to_stop()
        for batch in self.micro_batches(step):
            self.beat(f"step {step + 1}")
            output = self.engine(batch)
            self.beat(f"the backward pass of step {step + 1}")
            if self.checkpoints:
                self.checkpoints.saw(batch, output)  # these are still the weights of the last save
            self.engine.backward(output.loss)
            self.engine.step()
            self.state.window.add(output.token_loss_N, batch.weights)
        self.state.step += 1
        self.state.statistics.update(self.optimizer.last_decision)
        self._check_finite()
        self.state.window.end_step(time.perf_counter() - began_s)

    def _is_last(self) -> bool:
        return self.state.step == self.train.steps

    def _is_due(self, every_steps: int, after: int | None = None) -> bool:
        step = self.state.step if after is None else after
        return step % every_steps == 0 or step == self.train.steps

    def _check_finite(self) -> None:
        """Every rank decided the same from the same sums, so every rank stops here together."""
        in_a_row = self.state.statistics.skipped_in_a_row
        if in_a_row >= self.train.max_nonfinite_steps:
            raise ValueError(
                f"non-finite norms in {in_a_row} steps in a row, up to step {self.state.step}: "
                "start another --run with a lower optim.lr or head_optim.lr"
            )

    def _log(self) -> None:
        if self.log:
            self.log.train(self.state, self.optimizer)
        self.state.window = LossWindow.empty(self.state.window.loss.device)

    def _save(self, wait: bool) -> None:
        if self.checkpoints:
            self.checkpoints.save(self.state, wait, probe_now=wait or self._owes_evaluation())

    def _owes_evaluation(self) -> bool:
        if self.evaluate is None or not self._is_due(self.train.eval_every_steps):
            return False
        return self.log is None or not self.log.has_evaluation(self.state.step)

    def _evaluate_if_due(self) -> bool:
        """False if the evaluation was broken off."""
        if self.evaluate is None or not self._owes_evaluation():
            return True
        figures = self.evaluate(self.state.step, self._is_last())
        if figures is not None and self.log:
            self.log.evaluation(self.state.step, figures)
        return figures is not None
