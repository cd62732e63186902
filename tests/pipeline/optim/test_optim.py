"""The rule, its pieces and the optimiser against a float64 reference, in one process."""

import math

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.load import load_recipe
from pipeline.config.schema import ScheduleConfig
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model, skeleton
from pipeline.optim.groups import check_groups, parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.partitions import replicated
from pipeline.optim.relative_clip import clip_coefficient, clip_threshold, equilibrium_norm
from pipeline.optim.schedules import lr_at
from pipeline.optim.statistics import NormStatistics

SGD = {"rule": "sgd", "lr": 0.1, "weight_decay": 0.05, "clip_c": 2.0, "clip_set": "all"}
LAMB = {"rule": "lamb", "lr": 0.01, "weight_decay": 0.02, "betas": (0.9, 0.999), "eps": 1e-6}


def test_threshold_is_the_paper_s_and_c_1_is_the_equilibrium_gradient() -> None:
    assert clip_threshold(3.0, 0.1, 0.05, 2.0) == pytest.approx(math.sqrt(2 * 2 * 0.05 / 0.1) * 3.0)
    lr, weight_decay, sigma = 1e-3, 1e-3, 7.0
    x = equilibrium_norm(sigma, lr, weight_decay)
    assert sigma / x == pytest.approx(clip_threshold(x, lr, weight_decay, 1.0), rel=1e-6)
    assert ((1 - lr * weight_decay) * x) ** 2 + (lr * sigma / x) ** 2 == pytest.approx(x**2, rel=1e-12)


def test_edges_of_the_rule() -> None:
    assert clip_threshold(3.0, 0.1, 0.05, math.inf) == math.inf
    assert clip_threshold(3.0, 0.1, 0.0, math.inf) == math.inf
    assert clip_threshold(3.0, 0.0, 0.05, 2.0) == math.inf  # the end of a decay
    assert clip_coefficient(0.0, 1.0) == 1.0
    assert clip_coefficient(0.0, 0.0) == 1.0
    assert clip_coefficient(2.0, 0.0) == 0.0  # x = 0: no direction to keep
    assert clip_coefficient(4.0, 1.0) == 0.25


def test_schedules() -> None:
    linear = ScheduleConfig(decay="linear", warmup_steps=10)
    assert [lr_at(s, 1.0, linear, 110) for s in (0, 9, 10, 60, 109, 110)] == pytest.approx([0.1, 1, 1, 0.5, 0.01, 0])
    step = ScheduleConfig(decay="step", milestones=(0.6, 0.9))
    assert [lr_at(s, 1.0, step, 1000) for s in (0, 599, 600, 899, 900)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert lr_at(7, 1.0, ScheduleConfig(decay="constant"), 10) == 1.0
    square = ScheduleConfig(decay="polynomial", warmup_steps=10)
    assert [lr_at(s, 1.0, square, 110) for s in (0, 9, 10, 60, 109, 110)] == pytest.approx([0.1, 1, 1, 0.25, 1e-4, 0])
    assert lr_at(60, 1.0, ScheduleConfig(decay="polynomial", power=3.0), 120) == pytest.approx(0.125)


def optimizer_over(groups: list[dict]) -> tuple[PretrainingOptimizer, list[Tensor]]:
    for index, group in enumerate(groups):
        group["names"] = [f"{index}.{i}" for i in range(len(group["params"]))]
        group["name"] = str(index)
    optimizer = PretrainingOptimizer(groups)
    named = [(n, p) for g in groups for n, p in zip(g["names"], g["params"], strict=True)]
    optimizer.attach(replicated(named, optimizer.all_groups))
    return optimizer, [p for _, p in named]


def take_step(optimizer: PretrainingOptimizer, gradients: list[Tensor], parameters: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.prepare()
    optimizer.step()
    optimizer.finish()


def random_tensors(shapes: list[tuple[int, ...]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_sgd_is_algorithm_1_over_all_tensors_together_clipped_and_not() -> None:
    parameters = [nn.Parameter(t) for t in random_tensors([(4, 5), (7,), (3, 3)], 0)]
    optimizer, _ = optimizer_over([{"params": parameters, **SGD}])
    x = torch.cat([p.detach().double().flatten() for p in parameters])
    clipped = []
    for step, size in enumerate((0.1, 10.0, 1.0, 100.0)):
        gradients = [size * t for t in random_tensors([tuple(p.shape) for p in parameters], step + 1)]
        g = torch.cat([t.double().flatten() for t in gradients])
        limit = math.sqrt(2 * 2.0 * 0.05 / 0.1) * x.norm() / g.norm()
        x = (1 - 0.1 * 0.05) * x - 0.1 * min(limit.item(), 1.0) * g
        take_step(optimizer, gradients, parameters)
        assert torch.allclose(torch.cat([p.detach().double().flatten() for p in parameters]), x, rtol=1e-5, atol=1e-6)
        decided = optimizer.last_decision
        assert decided.coefficient == pytest.approx(min(limit.item(), 1.0), rel=1e-6)
        clipped.append(decided.coefficient < 1)
    assert set(clipped) == {True, False}


def test_lamb_is_the_paper_s_with_one_ratio_a_tensor() -> None:
    parameters = [nn.Parameter(t) for t in random_tensors([(4, 5), (3, 3)], 0)]
    optimizer, _ = optimizer_over([{"params": parameters, **LAMB}])
    reference = [(p.detach().double().clone(), torch.zeros_like(p).double(), torch.zeros_like(p).double()) for p in parameters]
    for t in range(1, 6):
        gradients = random_tensors([tuple(p.shape) for p in parameters], t)
        take_step(optimizer, gradients, parameters)
        for (w, m, v), gradient, parameter in zip(reference, gradients, parameters, strict=True):
            g = gradient.double()
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6) + 0.02 * w
            w.sub_(0.01 * w.norm() / r.norm() * r)
            assert torch.allclose(parameter.detach().double(), w, rtol=1e-5, atol=1e-6)


def test_adamw_is_torch_s_with_clipping_over_all_groups() -> None:
    shapes = [(4, 5), (7,)]
    mine, theirs = ([nn.Parameter(t) for t in random_tensors(shapes, 0)] for _ in range(2))
    settings = {"rule": "adamw", "lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-6, "max_grad_norm": 1.0, "clip_set": "all"}
    optimizer, _ = optimizer_over(
        [{"params": mine[:1], "weight_decay": 0.1, **settings}, {"params": mine[1:], "weight_decay": 0.0, **settings}]
    )
    decayed, not_decayed = {"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}
    reference = torch.optim.AdamW([decayed, not_decayed], lr=0.01, betas=(0.9, 0.99), eps=1e-6)
    for step, size in enumerate((0.01, 1.0, 30.0)):
        gradients = [size * t for t in random_tensors(shapes, step + 1)]
        take_step(optimizer, gradients, mine)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        nn.utils.clip_grad_norm_(theirs, 1.0)
        reference.step()
        for a, b in zip(mine, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_gradient_anywhere_changes_nothing_and_is_counted(bad: float) -> None:
    parameters = [nn.Parameter(t) for t in random_tensors([(4, 5), (3, 3)], 0)]
    optimizer, _ = optimizer_over([{"params": parameters[:1], **SGD}, {"params": parameters[1:], **LAMB}])
    gradients = random_tensors([(4, 5), (3, 3)], 1)
    take_step(optimizer, gradients, parameters)
    before = [p.detach().clone() for p in parameters]
    moments = [t.clone() for t in optimizer.state[parameters[1]].values()]
    gradients[1][0, 0] = bad  # in the head: the encoder waits, too
    take_step(optimizer, gradients, parameters)
    assert not optimizer.last_decision.finite
    assert optimizer.updates == 1
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(moments, optimizer.state[parameters[1]].values(), strict=True))
    statistics = NormStatistics()
    statistics.update(optimizer.last_decision)
    assert (statistics.skipped_steps, statistics.skipped_in_a_row) == (1, 1)


def test_a_parameter_without_gradient_only_decays() -> None:
    parameters = [nn.Parameter(t) for t in random_tensors([(4,), (3,)], 0)]
    optimizer, _ = optimizer_over([{"params": parameters, **SGD}])
    before = parameters[1].detach().clone()
    parameters[0].grad = torch.ones(4)
    optimizer.prepare()
    optimizer.step()
    assert torch.allclose(parameters[1], before * (1 - 0.1 * 0.05))


def test_before_it_is_attached_step_does_nothing() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = PretrainingOptimizer([{"params": [parameter], "name": "x", "names": ["x"], **SGD}])
    parameter.grad = torch.zeros(3)
    optimizer.step()  # DeepSpeed's wrappers step on zero gradients while they are built, which would decay the weights
    assert torch.equal(parameter, torch.ones(3))


@pytest.mark.parametrize("recipe", ["tiny", "tiny-untied", "tiny-bert", "base", "base-paper"])
def test_every_parameter_is_in_exactly_one_group(recipe: str) -> None:
    config = load_recipe(recipe, ["model.layers=2"])
    model = skeleton(config, 100)
    groups = parameter_groups(model, config)
    grouped = [name for group in groups for name in group["names"]]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())
    invariant = [name for group in groups if group["rule"] == "sgd" for name in group["names"]]
    assert set(invariant) == (set() if recipe == "tiny-bert" else model.scale_invariant_names())


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ({**SGD, "clip_c": 1.0}, "clip_c = 1.0: C must exceed 1"),
        ({**SGD, "clip_c": math.nan}, "clip_c = nan: C must exceed 1"),
        ({**SGD, "weight_decay": 0.0}, "weight_decay = 0 makes the clip threshold 0 and no step would move: set clip_c = inf"),
        ({**SGD, "lr": 20.0}, "lr * weight_decay = 1: at 1 or more a step would erase the weights"),
        ({**LAMB, "lr": -1.0}, "lr = -1.0, weight_decay = 0.02: expected neither below 0"),
        ({**LAMB, "lr": math.nan}, "lr = nan, weight_decay = 0.02: expected neither below 0"),
        ({**LAMB, "rule": "adamw", "lr": 50.0}, "lr * weight_decay = 1: at 1 or more a step would erase the weights"),
    ],
)
def test_numbers_that_no_update_has_are_refused_with_their_group(group: dict, text: str) -> None:
    with pytest.raises(ValueError) as refusal:
        PretrainingOptimizer([{**group, "name": "the first", "names": ["a"], "params": [nn.Parameter(torch.ones(1))]}])
    assert str(refusal.value).startswith(f"group 'the first': {text}")


def test_a_group_may_stand_still_or_not_decay() -> None:
    for group in ({**SGD, "lr": 0.0}, {**SGD, "weight_decay": 0.0, "clip_c": math.inf}, {**LAMB, "weight_decay": 0.0}):
        optimizer_over([{**group, "params": [nn.Parameter(torch.ones(1))]}])


def test_a_parameter_in_no_group_or_in_two_is_named() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    group = {"name": "sgd", "names": ["a"], "params": [a]}
    with pytest.raises(ValueError, match="no group trains b"):
        check_groups({"a": a, "b": b}, [group])
    with pytest.raises(ValueError, match="parameter a is in two groups"):
        check_groups({"a": a}, [group, group])


def test_statistics_predict_the_norm_that_sgd_settles_at() -> None:
    """A random direction orthogonal to x as the gradient of a scale invariant loss: the norm goes where it is predicted."""
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(10 * torch.randn(50, generator=generator))
    optimizer, _ = optimizer_over([{"params": [parameter], **SGD}])
    statistics = NormStatistics()
    for _ in range(1500):
        noise = torch.randn(50, generator=generator)
        x = parameter.detach()
        noise -= (noise @ x) / (x @ x) * x
        take_step(optimizer, [noise / noise.norm() / x.norm()], [parameter])
        statistics.update(optimizer.last_decision)
    assert parameter.norm().item() == pytest.approx(statistics.equilibrium(0.1, 0.05), rel=1e-3)


def test_truncated_normal_is_the_seed_s_and_cut_at_two_deviations() -> None:
    config = load_recipe("tiny-untied", ["model.layers=1"])
    models = [build_model(config, 500) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        init_weights(model, config.model, seed)
    weights = [m.encoder.embedding.token.weight for m in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].abs().max() <= 0.04
    assert weights[0].std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)  # of a normal cut at ±2σ
    assert (models[0].encoder.layers[0].ffn.inner.bias == 0).all()
    assert (models[0].encoder.embedding.token_type.weight == 0).all()
