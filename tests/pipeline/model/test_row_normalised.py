"""The tied, row-normalised model: exact invariance as a whole, by matrix and by row; what its options do; BERT with rotary
positions."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.load import changed, load_recipe
from pipeline.config.schema import ModelConfig
from pipeline.data.batch import Batch
from pipeline.init.balanced import balance
from pipeline.init.normal import init_weights
from pipeline.model.attention import scale_invariant_attention
from pipeline.model.build import log_unigram
from pipeline.model.degrees import degrees
from pipeline.model.invariance import quick_check
from pipeline.model.invariant_groups import separately_invariant_groups
from pipeline.model.normalise import row_norms
from pipeline.model.positions import rotate, rotation
from pipeline.model.pretraining import PretrainingModel
from preprocessing.corpus.reader import MASK_ID
from tests.helpers.models import with_biases

VOCAB, LENGTH = 50, 12
SMALL = {"layers": 3, "width": 16, "heads": 2, "ffn_width": 32, "max_seq_len": LENGTH}
ROTARY = load_recipe("tiny").model.model_dump() | SMALL
LEARNED = ROTARY | {"positions": "learned"}
TYPED = ROTARY | {"token_types": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "rotary": ROTARY,
    "learned positions": LEARNED,
    "token types": TYPED,
    "power 1": ROTARY | {"attention_power": 1},
    "power 3": ROTARY | {"attention_power": 3},
    "final norm": LEARNED | {"final_norm": True},
    "untied": ROTARY | {"head": "invariant"},
    "summed": LEARNED | {"head": "invariant", "embedding": "summed"},
    "a": ROTARY
    | {"encoder": "sibert-a", "head": "paper", "embedding": "summed", "branch_scale": 1.0, "final_norm": True}
    | {"init": "normal"},
}


def make(settings: Mapping[str, Any], nsp: bool = False) -> PretrainingModel:
    """In float64, biases off zero."""
    config = ModelConfig(**settings)
    model = PretrainingModel(config, VOCAB, nsp, log_unigram(np.arange(VOCAB))).double()
    init_weights(model, config, seed=1)
    return with_biases(model)


def batch(nsp: bool = False) -> Batch:
    """With padding, a row of nothing else, and masked tokens."""
    generator = torch.Generator().manual_seed(3)
    labels_BL = torch.randint(5, VOCAB, (4, LENGTH), generator=generator)
    ids = labels_BL.masked_fill(torch.rand(4, LENGTH, generator=generator) < 0.3, MASK_ID)
    mask = torch.ones(4, LENGTH)
    mask[1, 7:] = 0
    mask[2, :] = 0
    positions = torch.randint(0, 7, (4, 3), generator=generator)
    types = (torch.arange(LENGTH) > 4).long().repeat(4, 1)
    nsp_labels = torch.tensor([0, 1, 0, 1]) if nsp else None
    return Batch(ids, types, positions, labels_BL.gather(1, positions), torch.ones(4, 3), mask, nsp_labels)


def gradient(model: PretrainingModel, nsp: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(batch(nsp)).loss
    loss.backward()
    names = model.scale_invariant_names()
    found = {n: p.grad for n, p in model.named_parameters() if n in names and p.grad is not None}
    return loss.item(), found


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_gradient_and_degrees_are_scale_invariant(name: str) -> None:
    model = make(VARIANTS[name])
    assert [row.problem for row in degrees(model) if row.problem] == []
    assert quick_check(model, batch()) == []
    loss, g = gradient(model)
    named = dict(model.named_parameters())
    product = sum(float((named[n].detach() * g[n]).sum()) for n in g)
    assert abs(product) <= 1e-12 * math.sqrt(sum(float(named[n].detach().square().sum()) for n in g))
    for c in (1e-4, 3.0, 1e4):
        with torch.no_grad():
            for n in model.scale_invariant_names():
                named[n].mul_(c)
        scaled_loss, scaled_g = gradient(model)
        assert scaled_loss == pytest.approx(loss, rel=1e-12)
        whole = torch.cat([t.flatten() for t in g.values()])
        assert (torch.cat([scaled_g[n].flatten() for n in g]) * c - whole).norm() <= 1e-10 * whole.norm()
        with torch.no_grad():
            for n in model.scale_invariant_names():
                named[n].div_(c)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_a_power_of_two_changes_no_bit(kind: torch.dtype, power: int) -> None:
    model = make(ROTARY | {"attention_power": power}).to(kind)
    loss, g = gradient(model)
    for c in (2.0**-13, 2.0**13):
        scaled = make(ROTARY | {"attention_power": power}).to(kind)
        with torch.no_grad():
            for parameter in scaled.parameters():
                parameter.mul_(c)
        scaled_loss, scaled_g = gradient(scaled)
        assert scaled_loss == loss
        assert all(torch.equal(scaled_g[n] * c, g[n]) for n in g)


@pytest.mark.parametrize("settings", [ROTARY, LEARNED, TYPED], ids=["rotary", "learned", "types"])
def test_each_row_of_each_table_and_each_matrix_is_invariant_by_itself(settings: dict[str, Any]) -> None:
    nsp = settings is TYPED
    model = make(settings, nsp)
    assert model.scale_invariant_names() == {n for n, _ in model.named_parameters()}
    loss, _ = gradient(model, nsp)
    generator = torch.Generator().manual_seed(4)
    for table in (m for m in model.encoder.embedding.children() if isinstance(m, torch.nn.Embedding)):
        rows = torch.randn(len(table.weight), 1, generator=generator, dtype=torch.float64).mul(3).exp()
        with torch.no_grad():
            table.weight.mul_(rows)
        assert model(batch(nsp)).loss.item() == pytest.approx(loss, rel=1e-12)
    for group in separately_invariant_groups(model):
        with torch.no_grad():
            for tensor in group:
                tensor.mul_(7.0)
        assert model(batch(nsp)).loss.item() == pytest.approx(loss, rel=1e-12)


def test_the_tied_model_has_no_more_parameters_than_bert_of_its_shape() -> None:
    sibert, bert = load_recipe("tiny"), load_recipe("tiny-bert")
    assert sibert.model.positions == bert.model.positions == "rotary"
    counts = [sum(p.numel() for p in PretrainingModel(c.model, 1024, nsp=False).parameters()) for c in (sibert, bert)]
    assert counts[0] < counts[1]


def test_a_mask_is_nothing_and_a_visible_token_reaches_the_head_at_full_length() -> None:
    model = make(ROTARY | {"branch_scale": 1e-9})
    ids = torch.tensor([[7, MASK_ID, 9]])
    states = model.encoder(ids, torch.zeros_like(ids), None)[0]
    assert states[1].norm() < 1e-6
    assert states[0].norm().item() == pytest.approx(16**0.5)
    logits = model.mlm_head(states, model.encoder.embedding.token.weight) - model.mlm_head.bias_bits.view(torch.float32)
    assert logits[0].argmax() == 7
    assert logits[0, 7].item() == pytest.approx(16**0.5)  # τ·sqrt(D): the cosine with itself
    assert logits[1].abs().max() < 1e-6


def test_a_mask_alone_in_its_sequence_has_a_finite_loss_and_gradient() -> None:
    model = make(ROTARY)
    ids = torch.full((1, LENGTH), MASK_ID)
    loss = model(Batch(ids, torch.zeros_like(ids), ids * 0, ids * 0 + 7, torch.ones(1, LENGTH))).loss
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_learned_positions_are_taken_away_again_before_the_head() -> None:
    model = make(LEARNED | {"branch_scale": 1e-9})
    ids = torch.tensor([[7, 7, 7]])
    a, b, c = model.encoder(ids, torch.zeros_like(ids), None)[0]
    assert torch.allclose(a, b)
    assert torch.allclose(b, c)


@pytest.mark.parametrize("encoder", ["sibert", "bert"])
def test_with_rotary_positions_only_distances_count(encoder: str) -> None:
    settings = ROTARY if encoder == "sibert" else load_recipe("tiny-bert").model.model_dump() | SMALL
    model = make(settings)
    ids = torch.randint(5, VOCAB, (1, LENGTH), generator=torch.Generator().manual_seed(5))
    mask = torch.ones(1, LENGTH)
    mask[:, LENGTH - 3 :] = 0
    early = model.encoder(ids, torch.zeros_like(ids), mask)[0, : LENGTH - 3]
    late = model.encoder(ids.roll(3, 1), torch.zeros_like(ids), mask.roll(3, 1))[0, 3:]
    assert torch.allclose(early, late, atol=1e-12)
    swapped = ids.clone()
    swapped[0, [1, 2]] = ids[0, [2, 1]]
    assert not torch.allclose(model.encoder(swapped, torch.zeros_like(ids), mask)[0, 0], early[0], atol=1e-6)


def test_a_rotation_keeps_lengths_and_turns_by_the_distance() -> None:
    q, k = torch.randn(2, 1, 1, LENGTH, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    q, k = q[:, :, :1].expand_as(q), k[:, :, :1].expand_as(k)  # one query and one key everywhere
    angles = rotation(LENGTH, 8, torch.device("cpu"), torch.float64)
    turned_q, turned_k = rotate(q, *angles), rotate(k, *angles)
    assert torch.allclose(row_norms(turned_q), row_norms(q))
    scores = (turned_q @ turned_k.transpose(-1, -2))[0, 0]
    for distance in range(-3, 4):
        assert torch.allclose(scores.diagonal(distance), scores.diagonal(distance)[0].expand(LENGTH - abs(distance)))
    far = rotation(8193, 64, torch.device("cpu"), torch.float32)
    assert far[0][8192, 0].item() == pytest.approx(math.cos(8192), abs=1e-7)  # an angle in float32 would be off by 1e-4


@pytest.mark.parametrize("power", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_powers_of_the_weights_are_the_formula_at_any_size_of_the_scores(power: int, size: float) -> None:
    generator = torch.Generator().manual_seed(7)
    q, k, v = (torch.randn(2, 2, 9, 8, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3))
    weights = torch.relu(q @ k.transpose(-1, -2)) ** power
    expected = weights @ v / weights.sum(-1, keepdim=True)
    found = scale_invariant_attention((q * size).float(), (k * size).float(), v.float(), None, power)
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad(expected.square().sum(), (q, k, v))
    exact = torch.autograd.grad(scale_invariant_attention(q, k, v, None, power).square().sum(), (q, k, v))
    for one, other in zip(exact, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_balanced_start_averages_square_norms_over_its_batches() -> None:
    model, lr, weight_decay = make(ROTARY), 0.3, 0.02
    one = batch()
    other = Batch(one.input_ids.flip(0), one.token_type_ids, one.positions, one.labels.flip(1), one.weights, None)
    squares = torch.zeros(len(groups := separately_invariant_groups(model)), dtype=torch.float64)
    for b in (one, other):
        model.zero_grad()
        model(b).loss.backward()
        now = [sum(float(t.grad.square().sum()) for t in g if t.grad is not None) for g in groups]
        squares += torch.tensor(now, dtype=torch.float64)
    x = [math.sqrt(sum(float(t.detach().square().sum()) for t in g)) for g in groups]
    balance(model, lambda i: model((one, other)[i]).loss.backward(), 2, lr, weight_decay)
    for g, before, square in zip(groups, x, squares.tolist(), strict=True):
        after = math.sqrt(sum(float(t.detach().square().sum()) for t in g))
        expected = (lr / (weight_decay * (2 - lr * weight_decay))) ** 0.25 * (before**2 * square / 2) ** 0.25
        assert after == pytest.approx(expected if square else before, rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model.encoder": "sibert-a"}, "only sibert-d can have it"),
        ({"model.embedding": "summed"}, "breaks SIBERT's invariance"),
        ({"model.heads": 128}, "turns pairs"),
        ({"model.attention_power": 5}, "model.attention_power = 5"),
        (
            {"model.encoder": "bert", "model.embedding": "summed", "model.branch_scale": 1.0, "model.final_norm": True},
            "softmax",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        changed(load_recipe("tiny"), settings | {"model.init": "normal"})
