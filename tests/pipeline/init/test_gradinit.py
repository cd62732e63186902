"""GradInit on a loss that can be done by hand, and on a small BERT whose gradients of gradients can be measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.load import changed, load_recipe
from pipeline.data.batch import Batch
from pipeline.data.random_batch import random_batch
from pipeline.init.gradinit import STEPS, Search, Settings, Step, gradient_of, norm, norm_gradient
from pipeline.init.measured import Start, measure, said, settings_of
from pipeline.init.normal import init_weights
from pipeline.model import token_loss
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel
from tests.helpers.running import SMALL

VOCAB_SIZE = 40
CONFIG = load_recipe(
    "tiny-bert",
    [
        *SMALL[1::2],
        "optim.schedule.warmup_steps=0",
        "model.init='gradinit'",
        "model.init_tokens=256",
        "model.gradinit.iterations=4",
        "model.width=16",
    ],
)
PLAIN = Step(2, list, 1000.0)  # A(g) = g
BY_HAND = Settings(PLAIN, eta=0.1, gamma=1000.0, lr=0.05, betas=(0.9, 0.98), least=0.01)


def quadratic(settings: Settings) -> tuple[Search, Callable[[], Tensor]]:
    """L = ½(θ - 3)² at θ = 1."""
    theta = torch.tensor([1.0])
    parameter = torch.nn.Parameter(theta)
    return Search({"theta": parameter}, settings), lambda: 0.5 * (parameter - 3).square().sum()


@pytest.mark.parametrize(
    ("step", "slope"), [(PLAIN, -18.0), (STEPS["adamw"], -19.0), (STEPS["sgd"], -19.0)], ids=["plain", "sign", "normalised"]
)
def test_the_step_is_a_constant(step: Step, slope: float) -> None:
    """g = θ - t = -2. The plain step leads to θ' = 1 + .1·2 = 1.2, where dL/dθ' = -1.8; the sign's and, of one number, the
    normalised one to 1.1, where it is -1.9. dL/dm = dL/dθ'·θ, over η = .1: -18, -19. Through the plain step dθ'/dm would be
    1 - η = .9, the slope -16.2."""
    search, loss = quadratic(replace(BY_HAND, step=step))
    gradient, value = gradient_of([loss], search.parameters)
    assert (gradient[0].item(), value) == (-2.0, 2.0)
    slopes, after = search.slopes_after_step(gradient, [loss])
    assert slopes.tolist() == [pytest.approx(slope, rel=1e-6)]
    assert after == pytest.approx(0.5 * (slope / 10) ** 2, rel=1e-6)
    assert search.parameters[0].item() == 1.0


def test_adams_first_change_is_the_learning_rate() -> None:
    search, loss = quadratic(BY_HAND)
    seen = search.iterate([loss], [loss])
    assert (seen.norm, seen.constrained, seen.loss) == (2.0, False, pytest.approx(0.5 * 1.8**2))
    assert search.multipliers() == {"theta": pytest.approx(1.05, rel=1e-6)}


def test_a_norm_above_gamma_is_lowered_alone() -> None:
    """d|g|/dm = d|m - 3|/dm = -1: m grows though the loss is never looked at."""
    search, loss = quadratic(replace(BY_HAND, gamma=1.0))

    def never() -> Tensor:
        raise AssertionError("the loss after the step")

    seen = search.iterate([loss], [never])
    assert (seen.norm, seen.constrained, seen.loss) == (2.0, True, None)
    assert search.multipliers() == {"theta": pytest.approx(1.05, rel=1e-6)}
    before = search.parameters[0].item()
    search.settings = replace(BY_HAND, gamma=1000.0)
    search.iterate([loss], [loss])  # its own mean: no momentum from the other kind; the second moment is shared
    second = 0.98 * 0.02 * 1.0 + 0.02 * (slope := 0.9 * (before - 3) / 0.1) ** 2
    expected = before - 0.05 * slope * before / before / (second / (1 - 0.98**2)) ** 0.5
    assert search.parameters[0].item() == pytest.approx(expected, rel=1e-3)


def test_no_multiplier_goes_below_the_least() -> None:
    search, _ = quadratic(replace(BY_HAND, lr=0.3, least=0.5))
    up = partial(torch.mul, search.parameters[0], 5.0)
    for _ in range(4):
        search.iterate([lambda: up().sum()], [lambda: up().sum()])
    assert search.multipliers() == {"theta": 0.5}
    assert search.parameters[0].item() == 0.5


def bert(dtype: torch.dtype = torch.float32) -> PretrainingModel:
    model = build_model(CONFIG, VOCAB_SIZE, np.arange(VOCAB_SIZE, 0, -1))
    init_weights(model, CONFIG.model, seed=1)
    return model.to(dtype)


class Data:
    """Random samples by number, each always the same."""

    n_predictions, vocab_size = 3, VOCAB_SIZE

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def batch(self, samples: np.ndarray) -> Batch:
        self.asked.append(samples.tolist())
        rows = [
            random_batch(torch.Generator().manual_seed(int(i)), 1, 16, 3, VOCAB_SIZE, nsp=False, shortest=9) for i in samples
        ]
        return Batch(**{name: torch.cat([row.tensors()[name] for row in rows]) for name in rows[0].tensors()})


def found(model: PretrainingModel, data: Data, lines: list[str] | None = None, **settings: Any) -> Start:
    config = changed(CONFIG, {f"model.gradinit.{key}": value for key, value in settings.items()})
    say = (lambda line: None) if lines is None else lines.append
    measuring = measure(config, model, data, torch.device("cpu"), say)  # type: ignore[arg-type]
    while True:
        try:
            next(measuring)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


@pytest.mark.parametrize("order", [1, 2])
def test_the_gradient_of_the_norm_is_that_of_differences(order: int) -> None:
    """In float64, along a random direction, over two micro batches: what makes double differentiation wrong anywhere in the
    model would show here."""
    model = bert(torch.float64)
    parameters = list(model.parameters())
    with torch.no_grad():
        for p in parameters:
            p.add_(0.05 * torch.randn(p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(p.numel())))
    batches = [Data().batch(np.arange(3) + 3 * k).map(lambda t: t.double() if t.is_floating_point() else t) for k in range(2)]
    losses = [lambda batch=batch: 0.5 * model(batch).loss for batch in batches]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        slopes = norm_gradient(losses, parameters, gradient_of(losses, parameters)[0], order)
    direction = [torch.randn(p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) for p in parameters]

    def at(h: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=h)
        value = norm(gradient_of(losses, parameters)[0], order)
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(d, alpha=h)
        return value

    h = 1e-7
    expected = (at(h) - at(-h)) / (2 * h)
    assert sum(float((s * d).sum()) for s, d in zip(slopes, direction, strict=True)) == pytest.approx(expected, rel=1e-4)


def test_weights_are_the_same_bits_again_and_each_tensor_has_one_number() -> None:
    model, fresh = bert(), dict(bert().named_parameters())
    start = found(model, Data(), gamma=1e9)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, fresh[name]), name
    assert model.training
    zero = {name for name, p in fresh.items() if not p.any()}
    assert {name for name in zero if name.endswith("query.bias")}
    assert start["multipliers"].keys() == fresh.keys() - zero
    assert "encoder.embedding.token.weight" in start["multipliers"], "tied to the decoder: once"
    assert "mlm_head.bias" in start["multipliers"], "it starts at the log frequencies"
    assert all(abs(m - 1) > 1e-4 for m in start["multipliers"].values())
    assert start["figures"]["constrained"] == 0


def test_during_the_search_each_tensor_is_its_start_times_its_number() -> None:
    model, fresh = bert(), dict(bert().named_parameters())
    search = Search(dict(model.named_parameters()), replace(settings_of(CONFIG), gamma=1e9))
    batch = Data().batch(np.arange(4))
    for _ in range(3):
        search.iterate([lambda: model(batch).loss], [lambda: model(batch).loss])
        numbers = search.multipliers()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, fresh[name] * numbers[name] if name in numbers else fresh[name]), name
    assert len(set(search.multipliers().values())) > 5


def test_batches_overlap_by_half_and_micro_batches_do_not_matter() -> None:
    """S = thirds 1 and 2, S̃ = 2 and 3, an iteration after the other; in parts of any size."""
    data, seen = Data(), []
    model = bert()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    start = found(model, data, gamma=1e9, iterations=2)
    third = 256 // CONFIG.data.seq_len // 2
    assert [i for part in data.asked for i in part] == list(range(2 * 3 * third))
    per_iteration = 4 * third // CONFIG.batch.micro_sequences
    one = seen[:per_iteration]
    half = per_iteration // 2
    assert [b is c for b, c in zip(one[half // 2 : half], one[half : half + half // 2], strict=True)] == [True] * (half // 2)
    assert len({id(b) for b in one}) == 3 * half // 2
    assert len(seen) == 2 * per_iteration
    whole = changed(CONFIG, {"batch.micro_sequences": 16, "model.gradinit.gamma": 1e9, "model.gradinit.iterations": 2})
    again = list(_run(measure(whole, bert(), Data(), torch.device("cpu"), print)))  # type: ignore[arg-type]
    assert again[-1]["multipliers"] == {name: pytest.approx(m, abs=1e-4) for name, m in start["multipliers"].items()}


def _run(measuring: Any) -> Sequence[Start]:
    while True:
        try:
            next(measuring)
        except StopIteration as end:
            return [end.value]


def test_many_logits_are_taken_in_parts_that_can_be_differentiated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found(bert(), Data(), gamma=1e-3, iterations=2)["multipliers"]
    monkeypatch.setattr(token_loss, "MOST_LOGITS", 2 * 3 * VOCAB_SIZE)
    data = Data()
    assert found(bert(), data, gamma=1e-3, iterations=2)["multipliers"] == {
        name: pytest.approx(m, abs=1e-4) for name, m in whole.items()
    }
    assert {len(part) for part in data.asked} == {2}


def test_the_search_says_what_it_saw_and_what_it_cost() -> None:
    lines: list[str] = []
    start = found(bert(), Data(), lines, gamma=1e-3)
    figures = start["figures"]
    assert (figures["constrained"], figures["iterations"], figures["first_loss"], figures["order"]) == (4, 4, None, 1)
    assert figures["last_norm"] < figures["first_norm"]
    assert lines[0].startswith("GradInit 1/4: ‖g‖_1 = ")
    assert "set a higher model.gradinit.gamma" in lines[-1]
    assert "in 4 iterations of 8 sequences, " in said(start)
    assert "above γ = 0.001 in 4 of them" in said(start)


def test_settings_that_are_0_are_what_they_say() -> None:
    adam, sgd = settings_of(CONFIG), settings_of(changed(CONFIG, {"optim.rule": "sgd"}))
    assert (adam.eta, adam.gamma, adam.step.order) == (CONFIG.optim.lr, 1000.0, 1)
    assert (sgd.eta, sgd.gamma, sgd.step.order) == (CONFIG.optim.lr, 1.0, 2)
    set_ = settings_of(changed(CONFIG, {"model.gradinit.eta": 0.5, "model.gradinit.gamma": 7.0}))
    assert (set_.eta, set_.gamma) == (0.5, 7.0)


def test_gradients_that_are_not_finite_are_refused() -> None:
    search, _ = quadratic(BY_HAND)
    with pytest.raises(ValueError, match=r"a gradient is not finite: lower model.init_std"):
        search.iterate([lambda: (search.parameters[0] * float("inf")).sum()], [])
