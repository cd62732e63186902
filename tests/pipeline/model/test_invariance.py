"""The guardian holds the models to f(cx) = f(x)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.data.batch import Batch
from pipeline.model.degrees import degrees
from pipeline.model.invariance import (
    TOLERANCES,
    Figures,
    check,
    first_deviation,
    measured,
    probe_batch,
    quick_check,
)
from pipeline.model.pretraining import PretrainingModel
from tests.helpers.probed_models import ALL_EXACT, LENGTH, VOCAB, batch, make

BIT_EQUAL = Figures(0.0, 0.0, 1e-2, 0.0)  # <x, g> is a sum of rounded products
MODELS = settings(deadline=None, derandomize=True, max_examples=40)


@torch.no_grad()
def make_scores_negative(model: PretrainingModel, layer: int) -> None:
    """Every query of the layer is (1, …), every key (-1, …): all its attention rows are empty."""
    attention = model.encoder.layers[layer].attention
    for linear, value in ((attention.query, 1.0), (attention.key, -1.0)):
        linear.weight.zero_()
        linear.bias.fill_(value)


@st.composite
def cases(draw: Callable[..., Any]) -> tuple[PretrainingModel, Batch, float]:
    """A model, inputs and a scale: both wirings and heads, NSP or not, any padding, perhaps a layer of empty rows."""
    nsp, layers = draw(st.booleans()), draw(st.integers(1, 3))
    encoder, head = draw(st.sampled_from(["sibert-a", "sibert-d"])), draw(st.sampled_from(["paper", "invariant"]))
    seed = draw(st.integers(0, 999))
    model = make(encoder, head, nsp, layers, draw(st.sampled_from([1, 2, 4])), seed)
    if draw(st.booleans()):
        make_scores_negative(model, draw(st.integers(0, layers - 1)))
    length, sequences = draw(st.integers(2, LENGTH)), draw(st.integers(1, 4))
    some_batch = probe_batch(VOCAB, LENGTH, nsp, sequences, length, seed)
    kept = draw(st.none() | st.lists(st.integers(0, length), min_size=sequences, max_size=sequences))
    mask = None if kept is None else (torch.arange(length) < torch.tensor(kept)[:, None]).float()
    return model, replace(some_batch, attention_mask=mask), 10 ** draw(st.floats(-4, 4))


@given(cases())
@MODELS
def test_float64_is_invariant_orthogonal_and_homogeneous_to_1e_12(case: tuple[PretrainingModel, Batch, float]) -> None:
    model, some_batch, c = case
    found = check(model.double(), some_batch, [c], ALL_EXACT)
    assert not found.problems
    assert found.worst.gradient > 0 or c == 1  # something was compared


@given(cases())
@MODELS
def test_float32_to_1e_5_and_bf16_to_its_tolerance(case: tuple[PretrainingModel, Batch, float]) -> None:
    model, some_batch, c = case
    assert not check(model, some_batch, [c], TOLERANCES["float32"][0]).problems  # 1e-5 of the gradient, too
    bf16 = replace(TOLERANCES["bf16 autocast"][1], hidden=0.1, gradient=0.5)
    assert not check(model, some_batch, [c], bf16, bf16_autocast=True).problems


@given(cases(), st.integers(-13, 13), st.sampled_from(["float64", "float32", "bf16 autocast", "bfloat16"]))
@MODELS
def test_powers_of_two_are_bit_equal(case: tuple[PretrainingModel, Batch, float], power: int, precision: str) -> None:
    model, some_batch, _ = case
    model = {"float64": model.double, "bfloat16": model.bfloat16}.get(precision, model.float)()
    assert not check(model, some_batch, [2.0**power], BIT_EQUAL, bf16_autocast=precision == "bf16 autocast").problems


@given(cases())
@settings(MODELS, max_examples=10)
def test_the_modules_measured_have_the_degrees_derived(case: tuple[PretrainingModel, Batch, float]) -> None:
    model, some_batch, _ = case
    assert [row for row in degrees(model) if row.problem] == []
    found = measured(model.double(), some_batch, 3.0)
    assert first_deviation(found, 1e-12) is None
    assert {m.name for m in found} >= {name for name, _ in model.encoder.named_modules(prefix="encoder") if "." not in name}
    assert all(np.isnan(m.degree) or abs(m.degree - m.derived) < 1e-9 for m in found)  # NaN: zeros have no degree
    assert quick_check(model, some_batch) == []


def test_every_parameter_of_the_encoder_and_every_layer_has_a_row() -> None:
    for encoder in ("sibert-a", "sibert-d"):
        model = make(encoder, "invariant", nsp=True)
        rows = {row.name: row for row in degrees(model)}
        assert {name.rpartition(".")[0] for name, _ in model.named_parameters()} <= set(rows)
        assert rows["encoder"].degree_out == 0
        at_sum = rows["encoder.layers.3.join"]
        assert (at_sum.degree_in, at_sum.degree_out) == ((2, 2) if encoder == "sibert-a" else (0, 0))
    paper = [row for row in degrees(make("sibert-a", "paper")) if row.name == "mlm_head"]
    assert "LAMB" in paper[0].what
    assert paper[0].problem is None


@pytest.mark.parametrize("encoder", ["sibert-a", "sibert-d"])
@pytest.mark.parametrize("head", ["paper", "invariant"])
def test_zero_rows_and_zero_weights_give_zeros_and_finite_gradients(encoder: str, head: str) -> None:
    model = make(encoder, head, nsp=True, layers=2)
    embedding, outputs = model.encoder.embedding, list[Tensor]()
    model.encoder.register_forward_hook(lambda module, args, out: outputs.append(out))
    with torch.no_grad():  # token 0 at position 0 is embedded as zeros
        for table in (embedding.token, embedding.position, embedding.token_type):
            table.weight[0] = 0
    some_batch = batch(nsp=True)
    some_batch.input_ids[:, 0] = 0
    model(some_batch).loss.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e6 for p in model.parameters())  # not 1/σ of a row without a σ
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.zero_grad()
    loss = model(some_batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert (outputs[1] == 0).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_nothing_of_the_model_is_changed() -> None:
    model = make("sibert-a", "invariant", nsp=True)
    before = {name: (p.data_ptr(), p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    quick_check(model, batch(nsp=True))
    measured(model, batch(nsp=True), 3.0)
    check(model, batch(nsp=True), [3.0], ALL_EXACT)
    for name, parameter in model.named_parameters():
        pointer, value, requires_grad = before[name]
        assert (parameter.data_ptr(), parameter.requires_grad, parameter.grad) == (pointer, requires_grad, None)
        assert torch.equal(parameter, value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_probe_batch_has_padding_and_a_fully_padded_row_and_knows_its_length() -> None:
    probe = probe_batch(VOCAB, LENGTH, False, 4, 8, seed=0)
    assert probe.attention_mask is not None
    assert probe.attention_mask.sum(1).tolist() == [8, 4, 8, 0]
    assert probe.positions.shape == probe.labels.shape == (4, 2)
    with pytest.raises(ValueError, match="max_seq_len = 12"):
        probe_batch(VOCAB, LENGTH, False, 4, 13, seed=0)
