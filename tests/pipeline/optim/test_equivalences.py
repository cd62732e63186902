"""What theory says must not matter, does not: the equivalences of SGD + weight decay on scale invariant functions.

(Li & Arora 2019; the paper's section 2.) In float64, with the product's optimiser and model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pipeline.config.schema import ModelConfig
from pipeline.data.batch import Batch
from pipeline.init.normal import init_weights
from pipeline.model.pretraining import PretrainingModel
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.partitions import replicated

VOCAB, LENGTH, STEPS = 23, 8, 12
LR, WEIGHT_DECAY = 0.2, 0.05
START = 6.5  # times the usual initialisation: near the equilibrium norm, where some steps are clipped and others not


@dataclass
class Path:
    """Iterates x_t as one vector each, and the clip coefficients."""

    x: list[Tensor]
    coefficients: list[float]


def small_model(encoder: str) -> PretrainingModel:
    config = ModelConfig(
        encoder=encoder,  # type: ignore[arg-type]
        head="invariant",
        layers=1,
        width=8,
        heads=2,
        ffn_width=12,
        max_seq_len=LENGTH,
        score_offset=1.5,
    )
    model = PretrainingModel(config, VOCAB, nsp=False)
    init_weights(model, config, seed=0)
    return model.double()


def batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(5, VOCAB, (4, LENGTH), generator=generator)
    positions = torch.randint(0, LENGTH, (4, 2), generator=generator)
    labels = torch.randint(5, VOCAB, (4, 2), generator=generator)
    return Batch(ids, torch.zeros_like(ids), positions, labels, torch.ones(4, 2))


def train(
    encoder: str,
    lr: Callable[[int], float],
    weight_decay: float,
    clip_c: float,
    scale: float = 1.0,
    loss_scale: float = 1.0,
) -> Path:
    model = small_model(encoder)
    named = list(model.named_parameters())
    with torch.no_grad():
        for _, parameter in named:
            parameter.mul_(START * scale)
    group = {"name": "x", "names": [n for n, _ in named], "params": [p for _, p in named], "rule": "sgd", "clip_set": "x"}
    optimizer = PretrainingOptimizer([{**group, "lr": lr(0), "weight_decay": weight_decay, "clip_c": clip_c}])
    optimizer.attach(replicated(named, optimizer.all_groups))
    path = Path([], [])
    for step in range(STEPS):
        optimizer.all_groups[0]["lr"] = lr(step)
        model.zero_grad()
        (loss_scale * model(batch(step)).loss).backward()
        optimizer.prepare()
        optimizer.step()
        optimizer.finish()
        path.x.append(torch.cat([p.detach().flatten() for _, p in named]))
        path.coefficients.append(optimizer.last_decision.coefficient)
    return path


def largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True))


def directions(path: Path) -> list[Tensor]:
    return [x / x.norm() for x in path.x]


@pytest.fixture(scope="module", params=["sibert-a", "sibert-d"])
def plain(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, train(request.param, lambda _: LR, WEIGHT_DECAY, clip_c=1.1)


def test_both_kinds_of_step_are_among_them(plain: tuple[str, Path]) -> None:
    """Otherwise the tests below would say nothing of the clip rule."""
    clipped = [c < 1 for c in plain[1].coefficients]
    assert True in clipped
    assert False in clipped


@pytest.mark.parametrize("c", [1e-3, 7.0, 1e3])
def test_the_scale_of_the_loss_goes_into_lr_and_weight_decay(plain: tuple[str, Path], c: float) -> None:
    """(L, η, λ) -> (cL, η/c, cλ) leaves every iterate unchanged."""
    encoder, reference = plain
    ours = train(encoder, lambda _: LR / c, c * WEIGHT_DECAY, clip_c=1.1, loss_scale=c)
    assert largest_difference(ours.x, reference.x) <= 1e-11
    assert ours.coefficients == pytest.approx(reference.coefficients, rel=1e-11)


@pytest.mark.parametrize("c", [1e-2, 7.0, 1e2])
def test_the_scale_of_the_start_goes_into_lr_and_weight_decay(plain: tuple[str, Path], c: float) -> None:
    """(η, λ, x0) -> (c²η, λ/c², c·x0) leaves every direction unchanged."""
    encoder, reference = plain
    ours = train(encoder, lambda _: c * c * LR, WEIGHT_DECAY / (c * c), clip_c=1.1, scale=c)
    assert largest_difference(directions(ours), directions(reference)) <= 1e-11
    assert largest_difference(ours.x, [c * x for x in reference.x]) <= 1e-11
    assert ours.coefficients == pytest.approx(reference.coefficients, rel=1e-11)


@pytest.mark.parametrize("encoder", ["sibert-a", "sibert-d"])
def test_weight_decay_is_a_growing_learning_rate(encoder: str) -> None:
    """SGD + WD at η is SGD without it at η_t = η(1 - ηλ)^(-2t-1), in directions; the offset of the exponent is exact."""
    shrink = 1 - LR * WEIGHT_DECAY
    decayed = train(encoder, lambda _: LR, WEIGHT_DECAY, clip_c=math.inf)
    growing = train(encoder, lambda t: LR * shrink ** (-2 * t - 1), 0.0, clip_c=math.inf)
    assert largest_difference(directions(growing), directions(decayed)) <= 1e-11
    off_by_one = train(encoder, lambda t: LR * shrink ** (-2 * t), 0.0, clip_c=math.inf)
    assert largest_difference(directions(off_by_one), directions(decayed)) > 1e-6
