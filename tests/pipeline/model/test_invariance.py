"""The guardian holds the models to f(cx) = f(x), and finds and names what breaks it.

One file, longer than others, because each kind of breach is one small model.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.load import load_recipe
from pipeline.config.schema import DataConfig, ModelConfig, RunConfig
from pipeline.data.batch import Batch
from pipeline.model import attention as attention_module
from pipeline.model import encoder as encoder_module
from pipeline.model.attention import scale_invariant_attention, softmax_attention
from pipeline.model.build import log_unigram
from pipeline.model.degrees import degrees
from pipeline.model.homogeneity import has_degree
from pipeline.model.invariance import (
    POWERS,
    TOLERANCES,
    Figures,
    check,
    first_deviation,
    measured,
    probe_batch,
    quick_check,
)
from pipeline.model.pretraining import PretrainingModel
from pipeline.verify.invariance_report import probe_model, report

VOCAB, LENGTH = 50, 12
ALL_EXACT = TOLERANCES["float64"][0]  # 1e-12 of everything
BIT_EQUAL = Figures(0.0, 0.0, 1e-2, 0.0)  # <x, g> is a sum of rounded products
MODELS = settings(deadline=None, derandomize=True, max_examples=40)


def make(encoder: str, head: str, nsp: bool = False, layers: int = 4, heads: int = 2, seed: int = 1) -> PretrainingModel:
    """Of width 16, with scores well above 0: gradients through nearly empty attention rows are ill-conditioned, and that
    would be measured instead (score_offset in init/normal.py). Rows that are wholly empty are none such."""
    sizes = {"layers": layers, "width": 16, "heads": heads, "ffn_width": 24, "max_seq_len": LENGTH}
    model = ModelConfig(encoder=encoder, head=head, score_offset=1.5, **sizes)
    config = RunConfig(model=model, data=DataConfig(objective="mlm+nsp" if nsp else "mlm", seq_len=LENGTH))
    return probe_model(config, VOCAB, seed)


def batch(nsp: bool = False) -> Batch:
    return probe_batch(VOCAB, LENGTH, nsp, sequences=3, length=LENGTH, seed=2)


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


# --- each kind of break is found and named ---------------------------------------------------------------------------------


def assert_broken(model: PretrainingModel, *said: str) -> None:
    """By the derivation or the measurement, in words; and by the loss or gradient, in fp32 as the quick form sees it."""
    problems = quick_check(model, batch())
    for words in said:
        assert any(words in problem for problem in problems), problems
    assert any("·x) differs from f(x) by" in problem for problem in problems), problems
    found = check(model.double(), batch(), POWERS, ALL_EXACT)
    assert {problem.split(" ")[0] for problem in found.problems} == {"loss", "hidden", "orthogonality", "gradient"}


def with_bias(linear: nn.Linear) -> None:
    linear.bias = nn.Parameter(0.02 * torch.randn(linear.out_features, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("encoder", ["sibert-a", "sibert-d"])
def test_a_bias_on_an_output_projection_is_named(encoder: str) -> None:
    model = make(encoder, "invariant")
    with_bias(model.encoder.layers[3].attention.output)
    rows = [row.problem for row in degrees(model) if row.problem]
    assert rows == ["encoder.layers.3.attention.output.bias adds degree 1 to a stream of degree 2"]
    assert_broken(model, rows[0], "first: encoder.layers.3.attention.output: output of degree 2 is off by")


def test_a_bias_on_the_second_linear_and_on_the_lift_is_named() -> None:
    model = make("sibert-a", "paper")
    with_bias(model.encoder.layers[0].ffn.output)
    with_bias(model.encoder.lift)
    assert_broken(
        model,
        "encoder.lift.bias adds degree 1 to a stream of degree 2",
        "encoder.layers.0.ffn.output.bias adds degree 1 to a stream of degree 2",
        "first: encoder.lift: output of degree 2 is off by",
    )


@pytest.mark.parametrize("eps", [1e-5, 1e-12])
@pytest.mark.parametrize(("encoder", "first"), [("sibert-a", "encoder.layers.0.attention"), ("sibert-d", "encoder.layers.0")])
def test_an_eps_in_the_layer_norm_is_measured(monkeypatch: pytest.MonkeyPatch, encoder: str, first: str, eps: float) -> None:
    monkeypatch.setattr(encoder_module, "layer_norm", lambda x: functional.layer_norm(x, x.shape[-1:], eps=eps))
    assert_broken(make(encoder, "invariant"), f"first: {first}: input of degree 0 is off by")


def row_sum_with_eps(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    weights_BHLL = torch.relu(q_BHLK @ k_BHLK.transpose(-1, -2))
    if mask_BL is not None:
        weights_BHLL = weights_BHLL * mask_BL[:, None, None, :].to(weights_BHLL.dtype)
    return (weights_BHLL @ v_BHLK) / (weights_BHLL.sum(dim=-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize(
    ("attend", "said"),
    [(row_sum_with_eps, "is row_sum_with_eps, whose degree is not known"), (softmax_attention, "is softmax of degree 2")],
)
@pytest.mark.parametrize("encoder", ["sibert-a", "sibert-d"])
def test_another_attention_is_named_and_measured(
    monkeypatch: pytest.MonkeyPatch, encoder: str, attend: Callable[..., Tensor], said: str
) -> None:
    monkeypatch.setattr(attention_module, "scale_invariant_attention", attend)
    first = "first: encoder.layers.0.attention.output: input of degree 1 is off by"
    assert_broken(make(encoder, "paper"), f"encoder.layers.2.attention.attend {said}", first)


def test_another_attention_that_declares_its_degree_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    @has_degree("fused N(ReLU(Q Kᵀ)) V", is_homogeneous=True)
    def fused(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None) -> Tensor:
        return scale_invariant_attention(q_BHLK, k_BHLK, v_BHLK, mask_BL)

    monkeypatch.setattr(attention_module, "scale_invariant_attention", fused)
    model = make("sibert-a", "paper", layers=1)
    assert quick_check(model, batch()) == []
    row = {row.name: row for row in degrees(model)}["encoder.layers.0.attention.attend"]
    assert (row.what, row.degree_in, row.degree_out) == ("fused N(ReLU(Q Kᵀ)) V", 2, 1)


def test_gelu_is_named() -> None:
    model = make("sibert-d", "paper")
    model.encoder.layers[1].ffn.activation = functional.gelu
    assert_broken(model, "encoder.layers.1.ffn.activation is GeLU of degree 1: not homogeneous", "first: encoder.layers.1.ffn")


def test_raw_embeddings_without_the_lift_are_named() -> None:
    model = make("sibert-a", "paper")
    model.encoder.lift = nn.Identity()
    said = "encoder.layers.0.attention joins with degree 2 a stream of degree 1"
    assert_broken(model, said, "first: encoder.layers.0.ffn: input of degree 0")


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_an_affine_layer_norm_is_named(eps: float) -> None:
    model = make("sibert-a", "paper")
    norm = nn.LayerNorm(16, eps=eps)
    model.encoder.lift = nn.Sequential(model.encoder.lift, norm)
    said = ["encoder.layers.0.attention joins with degree 2 a stream of degree 1"]
    said += [f"encoder.lift.1 adds an eps of {eps:g} to a variance of degree 4"] * bool(eps)
    assert_broken(model, *said)


def test_a_tied_decoder_is_named() -> None:
    sizes = {"layers": 1, "width": 16, "heads": 2, "ffn_width": 24, "max_seq_len": LENGTH}
    config = ModelConfig.model_construct(encoder="sibert-a", head="tied", **sizes)  # not validated: it would be refused
    model = PretrainingModel(config, VOCAB, False, log_unigram(np.ones(VOCAB)))
    problems = quick_check(model, batch())
    assert problems[0] == "mlm_head decodes by encoder.embedding.token.weight: logits of degree 1"
    assert "first: mlm_head: output of degree 1 is off by" in problems[1]
    assert any("loss is off" in problem for problem in check(model, batch(), POWERS, ALL_EXACT).problems)


def test_an_unknown_module_or_parameter_is_named() -> None:
    model = make("sibert-a", "paper")
    model.encoder.layers[0].gain = nn.Parameter(torch.ones(1))
    model.encoder.layers[2].ffn.inner = nn.Tanh()
    problems = [row.problem for row in degrees(model) if row.problem]
    assert "encoder.layers.0.gain is in no known operation: its degree is not known" in problems
    assert "encoder.layers.2.ffn.inner is Tanh, whose degree is not known" in problems


def test_a_nan_is_a_problem() -> None:
    model = make("sibert-a", "paper")
    with torch.no_grad():
        model.encoder.lift.weight[0, 0] = torch.nan
    assert any("differs" in problem for problem in quick_check(model, batch()))
    assert len(check(model, batch(), POWERS, TOLERANCES["bf16 autocast"][1]).problems) == 4


# --- the report ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["tiny", "small"])
def test_the_report_passes_the_scale_invariant_recipes(recipe: str) -> None:
    text, passed = report(load_recipe(recipe), vocab_size=97)
    assert passed
    assert text.endswith("\nPASS")
    assert text.count("PASS\n") == 6  # three precisions, two sets of scales
    last = load_recipe(recipe).model.layers - 1
    assert f"encoder.layers.0…{last}.attention.output" in text


def test_the_report_fails_bert_and_lists_why() -> None:
    text, passed = report(load_recipe("tiny-bert"), vocab_size=97)
    assert not passed
    assert text.endswith("\nFAIL")
    for words in ("attention.attend is softmax", "ffn.activation is GeLU", "ffn_norm adds an eps", "query.bias adds degree 1"):
        assert any(line.startswith("problem: encoder.layers.0…1.") and words in line for line in text.splitlines()), words
    assert "problem: encoder ends at degree 1, not 0" in text


def test_a_probe_batch_has_padding_and_a_fully_padded_row_and_knows_its_length() -> None:
    probe = probe_batch(VOCAB, LENGTH, False, 4, 8, seed=0)
    assert probe.attention_mask is not None
    assert probe.attention_mask.sum(1).tolist() == [8, 4, 8, 0]
    assert probe.positions.shape == probe.labels.shape == (4, 2)
    with pytest.raises(ValueError, match="max_seq_len = 12"):
        probe_batch(VOCAB, LENGTH, False, 4, 13, seed=0)
