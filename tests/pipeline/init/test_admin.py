"""Admin's ω: what the profiling pass finds, what it does to a deep stack, and that it can be folded away."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.load import changed, load_recipe
from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.random_batch import random_batch
from pipeline.init.admin import omegas, profile, sub_layers_of
from pipeline.init.measured import apply
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.degrees import degrees
from pipeline.model.pretraining import PretrainingModel
from pipeline.model.shortcut import Shortcut, folded
from pipeline.optim.groups import parameter_groups
from tests.helpers.running import SMALL

WIDTH, TOKENS, EPSILON = 256, 64, 0.05
CONFIG = load_recipe("tiny-bert", [*SMALL[1::2], "optim.schedule.warmup_steps=0", "model.init='admin'", "model.init_std=0.3"])
VOCAB_SIZE = 50
Forward = Callable[[list[Tensor], Tensor], Tensor]


def norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])


def linear_branches(depth: int, generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(WIDTH, WIDTH, generator=generator) / math.sqrt(WIDTH) for _ in range(depth)]


def post_norm(omega: list[float]) -> Forward:
    def forward(weights: list[Tensor], x: Tensor) -> Tensor:
        for w, o in zip(weights, omega, strict=True):
            x = norm(o * x + x @ w)
        return x

    return forward


def pre_norm(weights: list[Tensor], x: Tensor) -> Tensor:
    for w in weights:
        x = x + norm(x) @ w
    return norm(x)


def profiled(weights: list[Tensor], x: Tensor) -> list[float]:
    """By the product's own pass, on modules."""
    sub_layers: list[tuple[nn.Module, nn.Module]] = []
    for w in weights:
        branch = nn.Linear(WIDTH, WIDTH, bias=False)
        branch.weight = nn.Parameter(w.t())
        sub_layers.append((branch, Shortcut(WIDTH)))

    def forward() -> None:
        h = x
        for branch, shortcut in sub_layers:
            of_branch = branch(h)
            h = norm(shortcut(h) + of_branch)

    return profile(sub_layers, forward)


@pytest.mark.parametrize("depth", [6, 24, 48])
def test_omega_is_the_root_of_the_sub_layers_number_where_every_branch_has_variance_1(depth: int) -> None:
    """W ~ N(0, 1/d) on rows of variance 1 gives Var[f_i] = 1, and x_{i-1} has variance 1 after its LayerNorm, so
    ω_{i+1}² = ω_i² + 1, ω_i² = i."""
    generator = torch.Generator().manual_seed(0)
    x = norm(torch.randn(TOKENS, WIDTH, generator=generator))
    found = profiled(linear_branches(depth, generator), x)
    assert found[0] == 1
    assert found == sorted(found)
    assert found == pytest.approx([math.sqrt(i) for i in range(1, depth + 1)], rel=0.01)


@pytest.mark.parametrize(
    ("depth", "seeds", "post", "admin", "pre"),
    [(6, 3, 2.98, 1.58, 1.59), (24, 3, 11.6, 2.75, 2.77), (48, 6, 25.5, 3.41, 3.43)],  # Post-LN varies by 11% at 48
)
def test_amplification_grows_with_the_depth_or_with_its_logarithm(
    depth: int, seeds: int, post: float, admin: float, pre: float
) -> None:
    """Var[F(x, W) - F(x, W*)]/ε², every W* = W + N(0, ε²/d). A difference of variance v before sub-layer i leaves it with
    (ω²v + v + ε²)/(ω² + 1), for ω·x, x·W and x·dW are not correlated: it gains ε²/(ω_i² + 1). Post-LN, ω = 1: N/2 in all.
    Admin, ω_i² = i: 1/2 + … + 1/(N + 1) ~ ln N; Pre-LN, whose stream has variance i before sub-layer i, the same."""
    found: dict[str, list[float]] = {"post": [], "admin": [], "pre": []}
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        x = norm(torch.randn(TOKENS, WIDTH, generator=generator))
        weights = linear_branches(depth, generator)
        moved = [w + EPSILON / math.sqrt(WIDTH) * torch.randn(w.shape, generator=generator) for w in weights]
        wirings = {"post": post_norm([1.0] * depth), "admin": post_norm(profiled(weights, x)), "pre": pre_norm}
        for name, forward in wirings.items():
            found[name].append(float((forward(moved, x) - forward(weights, x)).var(correction=0)) / EPSILON**2)
    means = {name: sum(values) / len(values) for name, values in found.items()}
    assert means == {name: pytest.approx(value, rel=0.1) for name, value in {"post": post, "admin": admin, "pre": pre}.items()}
    harmonic = sum(1 / (i + 1) for i in range(1, depth + 1))
    assert (means["post"], means["admin"]) == (pytest.approx(depth / 2, rel=0.1), pytest.approx(harmonic, rel=0.1))


def bert(config: RunConfig = CONFIG, **settings: Any) -> PretrainingModel:
    config = changed(config, {f"model.{key}": value for key, value in settings.items()})
    model = build_model(config, VOCAB_SIZE)
    init_weights(model, config.model, seed=3)
    return model


def padded_batch() -> Batch:
    return random_batch(torch.Generator().manual_seed(5), 6, 32, 4, VOCAB_SIZE, nsp=False, shortest=10)


def test_the_start_of_a_bert_is_the_fixed_point_of_its_own_recursion() -> None:
    """Run with the ω that were found: they are what the recursion gives from what is then seen, in float64, without padding."""
    model, batch = bert(), padded_batch()
    found = omegas(model, batch)
    apply(model, {"multipliers": found})
    seen: list[tuple[Tensor, Tensor]] = []
    branch_out: list[Tensor] = []
    for branch, shortcut in sub_layers_of(model).values():
        branch.register_forward_hook(lambda module, inputs, output: branch_out.append(output))
        shortcut.register_forward_hook(lambda module, inputs, output: seen.append((output, branch_out.pop())))
    with torch.no_grad():
        model(batch)
    assert batch.attention_mask is not None
    keep = batch.attention_mask.bool()
    assert not keep.all()
    square, expected = 1.0, []
    for shortcut_out, of_branch in seen:
        expected.append(math.sqrt(square))
        square = sum(float(t[keep].double().var(correction=0)) for t in (shortcut_out, of_branch))
    assert list(found.values()) == pytest.approx(expected, rel=1e-6)
    assert len(found) == 2 * CONFIG.model.layers
    assert list(found.values())[-1] > 1.5
    for name, value in found.items():
        omega = model.get_parameter(name)
        assert torch.equal(omega, torch.full_like(omega, value))


def test_the_profile_changes_no_weight() -> None:
    model, same = bert(), bert()
    omegas(model, padded_batch())
    for (name, a), b in zip(model.named_parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not model.encoder.layers[0].attention._forward_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_at_omega_1_it_is_the_baseline_bit_for_bit(positions: str) -> None:
    model, baseline, batch = bert(positions=positions), bert(positions=positions, init="normal"), padded_batch()
    losses = [m(batch).loss for m in (model, baseline)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    theirs = dict(baseline.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        if name in theirs:
            assert torch.equal(parameter.grad, theirs[name].grad), name  # type: ignore[arg-type]
        else:
            assert parameter.grad.any(), name
    assert len(theirs) == len(list(model.parameters())) - 2 * CONFIG.model.layers


@torch.no_grad()
def with_trained_omega(model: PretrainingModel) -> PretrainingModel:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("omega"):
            parameter.uniform_(0.3, 3, generator=generator).mul_(
                torch.rand(len(parameter), generator=generator).sub(0.2).sign()
            )
        elif "norm" in name:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_folded_it_is_a_plain_bert_with_the_same_output(positions: str) -> None:
    model, plain, batch = (
        with_trained_omega(bert(positions=positions)),
        bert(positions=positions, init="normal"),
        padded_batch(),
    )
    tensors = folded(model.encoder)
    assert tensors.keys() == dict(plain.encoder.named_parameters()).keys()
    rest = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}
    plain.load_state_dict({**{f"encoder.{name}": tensor for name, tensor in tensors.items()}, **rest})
    ours, theirs = (m.token_logits(batch)[0] for m in (model, plain))
    assert (ours - theirs).abs().max() <= 1e-5
    assert (ours - bert(positions=positions).token_logits(batch)[0]).abs().max() > 0.1
    assert all(tensors[name] is not None for name in folded(plain.encoder))
    for name, parameter in plain.encoder.named_parameters():
        assert torch.equal(folded(plain.encoder)[name], parameter)


def test_an_omega_of_0_is_not_folded() -> None:
    model = bert()
    with torch.no_grad():
        model.get_parameter("encoder.layers.1.ffn_shortcut.omega")[3] = 0
    with pytest.raises(ValueError, match=r"encoder.layers.1.ffn_shortcut.omega has an element that is 0"):
        folded(model.encoder)


@pytest.mark.parametrize("settings", [["optim.rule='adamw'"], ["optim.rule='sgd'", "optim.clip_c='inf'"]])
def test_omega_is_trained_and_not_decayed(settings: list[str]) -> None:
    config = load_recipe("tiny-bert", ["model.init='admin'", "optim.weight_decay=0.1", "train.update_elements=0", *settings])
    for group in parameter_groups(build_model(config, VOCAB_SIZE), config):
        omega = [name for name in group["names"] if name.endswith("omega")]
        assert group["weight_decay"] == 0.0 or not omega
        assert len(omega) in (0, 2 * config.model.layers)
    decayed_before = [g["names"] for g in parameter_groups(build_model(config, VOCAB_SIZE), config) if g["weight_decay"]]
    plain = changed(config, {"model.init": "normal"})
    assert decayed_before == [g["names"] for g in parameter_groups(build_model(plain, VOCAB_SIZE), plain) if g["weight_decay"]]


def test_every_omega_is_in_the_table_of_degrees() -> None:
    rows = degrees(build_model(CONFIG, VOCAB_SIZE))
    of_omega = [row for row in rows if row.what == "shortcut times ω"]
    assert [(row.degree_in + 1, row.problem) for row in of_omega] == [(row.degree_out, None) for row in of_omega]
    assert len(of_omega) == 2 * CONFIG.model.layers
    assert not any(row.problem and "no known operation" in row.problem for row in rows)


@pytest.mark.parametrize("init", ["admin", "gradinit"])
@pytest.mark.parametrize("recipe", ["tiny", "tiny-untied", "base-paper"])
def test_sibert_has_none_of_it(init: str, recipe: str) -> None:
    with pytest.raises(ValueError, match=rf"model.init = '{init}' with model.encoder = 'sibert-.'.*for the Post-LN baseline"):
        load_recipe(recipe, [f"model.init={init}"])


def test_a_start_of_another_model_is_named() -> None:
    with pytest.raises(ValueError, match=r"encoder.layers.7.ffn_shortcut.omega, which the model has not"):
        apply(bert(), {"multipliers": {"encoder.layers.7.ffn_shortcut.omega": 2.0}})
