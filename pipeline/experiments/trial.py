"""One training of an experiment: the Trainer with a local engine in this process, and all that it logged.

A finished trial is kept in OUT/trials, so that an experiment that was stopped goes on with the next one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.config.batch import batch_arithmetic
from pipeline.config.load import as_dict
from pipeline.config.schema import RunConfig
from pipeline.data.pretraining import heldout_data, training_data
from pipeline.distributed.launch import world_from
from pipeline.engine.local import LocalEngine
from pipeline.experiments.found import plain
from pipeline.init.balanced import balance, gradient_sums, put_mean_gradient
from pipeline.init.initial_model import initial_model
from pipeline.init.measured import MEASURED, apply, measure, to_the_end
from pipeline.model.pretraining import PretrainingLoss, PretrainingModel
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.schedules import learning_rates
from pipeline.run.records import norm_record
from pipeline.train.evaluate import evaluate
from pipeline.train.micro_batches import MicroBatches, micro_batches
from pipeline.train.state import TrainState
from pipeline.train.token_frequency import frequency_bins
from pipeline.train.trainer import Trainer
from preprocessing.base.json_file import read_object, write_object
from preprocessing.corpus.reader import Corpus

Record = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """What is trained: a configuration; by how much its loss is multiplied before it is differentiated; by how much its scale
    invariant parameters are, once they have their start, balanced or not. (Before a balanced start there is model.init_std.)
    `what` says what else is special, where a `change` of the model is."""

    name: str
    config: RunConfig
    loss_scale: float = 1.0
    start_scale: float = 1.0
    what: str = ""


@dataclass(frozen=True)
class Outcome:
    """Records of the steps that were logged (`pipeline.run.records`) and of the evaluations, both with "step"; `problem` says
    why the training ended before its last step, None where it did not."""

    steps: list[Record] = field(default_factory=list)
    evaluations: list[Record] = field(default_factory=list)
    problem: str | None = None
    time_s: float = 0.0
    start: Record | None = None  # what a measured start found (`init.measured.Start`)

    @property
    def heldout_loss(self) -> float:
        """At the end; infinite if it did not get there."""
        loss = self.evaluations[-1]["heldout_loss"] if self.evaluations and self.problem is None else None
        return float("inf") if loss is None else float(loss)


class Notes:
    """The Trainer's log: records in memory. `observe` adds to each record of a step what an experiment wants to know."""

    def __init__(self, config: RunConfig, observe: Callable[[], Mapping[str, Any]]) -> None:
        self.config, self.observe = config, observe
        self.outcome = Outcome()

    def train(self, state: TrainState, optimizer: PretrainingOptimizer) -> None:
        """The mean loss of the window, the norms of its last step."""
        loss_sum, count = state.window.loss.tolist()
        norms = norm_record(self.config, optimizer, state.statistics)
        self.outcome.steps.append({"step": state.step, "loss": loss_sum / count, **norms, **self.observe()})

    def evaluation(self, step: int, figures: Mapping[str, Any]) -> None:
        """The held-out figures."""
        self.outcome.evaluations.append({"step": step, **figures})

    def has_evaluation(self, step: int) -> bool:
        """Was this one made already?"""
        return bool(self.outcome.evaluations) and self.outcome.evaluations[-1]["step"] == step


def settings_of(trials: Sequence[Trial]) -> dict[str, Any]:
    """What result.json says was tried."""
    return {
        t.name: {"loss_scale": t.loss_scale, "start_scale": t.start_scale, "what": t.what, **as_dict(t.config)} for t in trials
    }


def outcome_of(
    trial: Trial,
    corpus: Corpus,
    out: Path,
    change: Callable[[PretrainingModel], None] = lambda model: None,
    observer: Callable[[PretrainingModel], Callable[[], Mapping[str, Any]]] = lambda model: dict,
) -> Outcome:
    """Train, or read what an earlier call with the same OUT and the same settings has kept.

    change(model): after it got its weights and before they are balanced. observer(model)() is added to each record of a step.
    """
    path = out / "trials" / f"{trial.name}.json"
    made_from = plain({**settings_of([trial])[trial.name], "corpus_sha256": corpus.manifest_sha256})
    if path.exists():
        kept = read_object(path, required=("made_from", "outcome"))
        if kept["made_from"] == made_from:
            return Outcome(**kept["outcome"])
    outcome = train(trial, corpus, change, observer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_object(path, plain({"made_from": made_from, "outcome": asdict(outcome)}))
    end = f"{outcome.heldout_loss:.3f}" if outcome.problem is None else outcome.problem
    print(f"{trial.name}: held-out loss {end} ({outcome.time_s:.1f} s)", flush=True)
    return outcome


def train(
    trial: Trial,
    corpus: Corpus,
    change: Callable[[PretrainingModel], None] = lambda model: None,
    observer: Callable[[PretrainingModel], Callable[[], Mapping[str, Any]]] = lambda model: dict,
) -> Outcome:
    """The whole training, on this process's GPU if there is one."""
    began_s, config = time.perf_counter(), trial.config
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = batches_of(corpus, config, device)
    model = starting_model(trial, corpus, device, batches, change)
    start = measured_start(model, config, corpus, device)
    optimizer = PretrainingOptimizer(parameter_groups(model, config))
    accumulation = batch_arithmetic(config.batch, world_size=1).accumulation_steps
    notes = Notes(config, observer(model))
    trainer = Trainer(
        LocalEngine(model, optimizer, accumulation),
        optimizer,
        TrainState.new(device),
        config.train,
        batches,
        partial(learning_rates, config),
        log=notes,
        evaluate=_evaluation(model, corpus, config),
    )
    problem = None
    try:
        trainer.run()
    except ValueError as error:  # norms that are not finite, several steps in a row
        problem = str(error).split(":")[0]
    return Outcome(notes.outcome.steps, notes.outcome.evaluations, problem, time.perf_counter() - began_s, start)


def batches_of(corpus: Corpus, config: RunConfig, device: torch.device) -> MicroBatches:
    """Those of the global batch of a step, all on this process: a run of any number of ranks reads the same samples."""
    return micro_batches(training_data(corpus, config), world_from({}), batch_arithmetic(config.batch, world_size=1), device)


def starting_model(
    trial: Trial,
    corpus: Corpus,
    device: torch.device,
    batches: MicroBatches,
    change: Callable[[PretrainingModel], None],
) -> PretrainingModel:
    """As a run has it, but of the multiplied loss, of which a balanced start measures the gradients."""
    config = trial.config
    model = initial_model(config, corpus, device)
    change(model)
    if trial.loss_scale != 1:
        model.register_forward_hook(partial(_scaled, trial.loss_scale))
    if config.model.init == "balanced":
        count = batch_arithmetic(config.batch, world_size=1).accumulation_steps

        def gradient(step: int) -> None:
            put_mean_gradient(model, gradient_sums(model, batches(step)), count)

        balance(model, gradient, config.model.balance_batches, config.optim.lr, config.optim.weight_decay)
    invariant = model.scale_invariant_names()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in invariant:
                parameter.mul_(trial.start_scale)
    return model


def measured_start(model: PretrainingModel, config: RunConfig, corpus: Corpus, device: torch.device) -> Record | None:
    """Give the model Admin's or GradInit's start, if that is its configuration's; what was found."""
    if config.model.init not in MEASURED:
        return None
    start = to_the_end(measure(config, model, training_data(corpus, config), device, lambda line: None))
    apply(model, start)
    return {**start}


def _scaled(scale: float, model: Any, inputs: Any, output: PretrainingLoss) -> PretrainingLoss:
    return output._replace(loss=scale * output.loss)  # what is reported, token_loss_N, stays as it is


def _evaluation(model: PretrainingModel, corpus: Corpus, config: RunConfig) -> Callable[[int, bool], Mapping[str, Any] | None]:
    data, bins = heldout_data(corpus, config), frequency_bins(corpus.unigram_counts("train"))

    def evaluation(step: int, last: bool) -> Mapping[str, Any] | None:
        return evaluate(model, data, config.train.eval_sequences, config.batch.micro_sequences, bins=bins)

    return evaluation
