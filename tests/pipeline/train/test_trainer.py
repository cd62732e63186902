"""The loop by itself: a model, its optimiser and a list of batches; no engine of DeepSpeed, no run directory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.config.load import changed, load_recipe
from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.random_batch import random_batch
from pipeline.engine.local import LocalEngine
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.schedules import learning_rates
from pipeline.train.state import TrainState
from pipeline.train.trainer import Trainer

VOCABULARY, LENGTH, SEED = 50, 16, 20261128
SMALL = ("model.layers=1", "model.width=32", "model.heads=2", "model.ffn_width=48", "model.init='normal'", "train.steps=6")
RHYTHM = ("train.log_every_steps=2", "train.eval_every_steps=3", "train.checkpoint_every_steps=4")
CONFIG = load_recipe("tiny-untied", [*SMALL, *RHYTHM])


def model() -> PretrainingModel:
    built = build_model(CONFIG, VOCABULARY)
    init_weights(built, CONFIG.model, SEED)
    return built


def batch(seed: int) -> Batch:
    return random_batch(torch.Generator().manual_seed(seed), 4, LENGTH, 2, VOCABULARY, nsp=False)


BATCHES = [[batch(2 * step), batch(2 * step + 1)] for step in range(CONFIG.train.steps)]


class Events:
    """Log and checkpoints at once: what was called after which step."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.losses: list[float] = []
        self.evaluated: set[int] = set()

    def train(self, state: TrainState, optimizer: PretrainingOptimizer) -> None:
        loss_sum, count = state.window.loss.tolist()
        self.losses.append(loss_sum / count)
        self.told.append(("log", state.step, state.window.steps))

    def evaluation(self, step: int, figures: Any) -> None:
        self.evaluated.add(step)
        self.told.append(("evaluated", step))

    def has_evaluation(self, step: int) -> bool:
        return step in self.evaluated

    def save(self, state: TrainState, wait: bool, probe_now: bool) -> None:
        self.told.append(("save", state.step, wait, probe_now))

    def saw(self, batch: Batch, output: Any) -> None:
        pass

    def report(self) -> None:
        pass


def trainer(config: RunConfig = CONFIG, **collaborators: Any) -> Trainer:
    built = model()
    optimizer = PretrainingOptimizer(parameter_groups(built, config))
    engine, state = LocalEngine(built, optimizer, accumulation_steps=2), TrainState.new(torch.device("cpu"))
    rates: Callable[[int], dict[str, float]] = lambda step: learning_rates(config, step)  # noqa: E731
    return Trainer(engine, optimizer, state, config.train, BATCHES.__getitem__, rates, **collaborators)


def test_it_trains_what_the_reference_trains() -> None:
    """Six steps of two micro batches, against Algorithm 1 in float64 with gradients of its own."""
    trained = trainer()
    assert trained.run()
    assert trained.state.step == 6
    exact = model().double()
    names = {name for name, _ in exact.named_parameters()}
    assert exact.scale_invariant_names() == names, "the reference below is SGD alone"
    x = {name: p.detach().clone() for name, p in exact.named_parameters()}
    optim = CONFIG.optim
    for step, batches in enumerate(BATCHES):
        gradients = {name: torch.zeros_like(p) for name, p in x.items()}
        for batch in batches:
            leaves = {name: p.clone().requires_grad_() for name, p in x.items()}
            loss = torch.func.functional_call(exact, leaves, (batch,)).loss / 2
            for name, g in zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True):
                gradients[name] += 0 if g is None else g
        lr = learning_rates(CONFIG, step)["sgd"]
        x_norm, g_norm = (torch.cat([t.flatten() for t in d.values()]).norm() for d in (x, gradients))
        coefficient = min(1.0, (2 * optim.clip_c * optim.weight_decay / lr) ** 0.5 * float(x_norm / g_norm))
        x = {name: (1 - lr * optim.weight_decay) * p - lr * coefficient * gradients[name] for name, p in x.items()}
    for name, p in trained.engine.module.named_parameters():  # type: ignore[attr-defined]
        torch.testing.assert_close(p.detach().double(), x[name], rtol=1e-4, atol=1e-5)


def test_what_is_due_comes_in_its_order() -> None:
    events = Events()
    assert trainer(log=events, checkpoints=events, evaluate=lambda step, last: {"last": last}).run()
    assert events.told == [
        ("log", 2, 2),
        ("evaluated", 3),
        ("log", 4, 2),
        ("save", 4, False, False),
        ("log", 6, 2),
        ("save", 6, True, True),  # on disk before the last evaluation begins
        ("evaluated", 6),
    ]
    assert len(set(events.losses)) == 3
    assert all(2 < loss < 6 for loss in events.losses)


def test_a_wish_to_stop_ends_after_its_step_with_a_save() -> None:
    events = Events()
    asked = iter([False, True])
    assert not trainer(log=events, checkpoints=events, asked_to_stop=lambda: next(asked)).run()
    assert events.told == [("log", 2, 2), ("save", 2, True, True)]


def test_an_evaluation_that_is_broken_off_ends_with_a_save() -> None:
    events = Events()
    assert not trainer(log=events, checkpoints=events, evaluate=lambda step, last: None).run()
    assert events.told == [("log", 2, 2), ("save", 3, True, True)]


def test_the_last_step_is_saved_once_when_its_evaluation_is_broken_off_and_the_next_start_evaluates() -> None:
    events = Events()
    trained = trainer(log=events, checkpoints=events, evaluate=lambda step, last: None if last else {})
    assert not trained.run()
    assert events.told[-1] == ("save", 6, True, True)
    trained.evaluate = lambda step, last: {"last": last}
    assert trained.run()
    assert events.told[-2:] == [("save", 6, True, True), ("evaluated", 6)]
    assert trained.run()  # everything is done
    assert events.told[-1] == ("evaluated", 6)


def test_a_checkpoint_and_an_evaluation_after_the_same_step_are_made_up_for() -> None:
    """A run that was killed between the two starts from the checkpoint and evaluates before it goes on."""
    config = changed(CONFIG, {"train.checkpoint_every_steps": 3})
    events = Events()
    trained = trainer(config, log=events, checkpoints=events, evaluate=lambda step, last: {})
    for _ in range(3):
        trained.train_step()
    assert trained.run()
    assert [told for told in events.told if told[0] == "evaluated"] == [("evaluated", 3), ("evaluated", 6)]


def test_steps_without_finite_norms_end_the_run() -> None:
    broken = [[replace(batch, weights=batch.weights * float("nan")) for batch in batches] for batches in BATCHES]
    trained = trainer()
    trained.micro_batches = broken.__getitem__
    with pytest.raises(ValueError, match="non-finite norms in 5 steps in a row, up to step 5"):
        trained.run()
