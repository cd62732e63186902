"""What breaks a model's invariance is found by the guardian, and named."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.schema import ModelConfig
from pipeline.model import attention as attention_module
from pipeline.model import encoder as encoder_module
from pipeline.model.attention import scale_invariant_attention, softmax_attention
from pipeline.model.build import log_unigram
from pipeline.model.degrees import degrees
from pipeline.model.homogeneity import has_degree
from pipeline.model.invariance import (
    POWERS,
    TOLERANCES,
    check,
    quick_check,
)
from pipeline.model.pretraining import PretrainingModel
from tests.helpers.probed_models import ALL_EXACT, LENGTH, VOCAB, batch, make


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
