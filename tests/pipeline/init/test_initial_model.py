"""A run of a model that is not scale invariant does not start."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config.load import load_recipe
from pipeline.init.initial_model import check_invariance
from pipeline.init.normal import init_weights
from pipeline.model import encoder
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel

CONFIG = load_recipe("tiny")


CORPUS: Any = SimpleNamespace(vocab_size=50)


def model() -> PretrainingModel:
    built = build_model(CONFIG, 50)
    init_weights(built, CONFIG.model, seed=0)
    return built


def norm_with_eps(x_BLD: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(x_BLD, x_BLD.shape[-1:], eps=1e-5)


def test_an_eps_in_a_layer_norm_stops_the_run_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_invariance(model(), CONFIG, CORPUS)
    monkeypatch.setattr(encoder, "layer_norm", norm_with_eps)
    with pytest.raises(
        ValueError, match=r"not scale invariant: f\(0.00012207·x\) differs from f\(x\).*first: encoder.layers.0"
    ):
        check_invariance(model(), CONFIG, CORPUS)


def test_a_bias_on_an_output_projection_is_named() -> None:
    built = model()
    layer: Any = built.encoder.layers[1]
    layer.attention.output = torch.nn.Linear(CONFIG.model.width, CONFIG.model.width)
    with pytest.raises(ValueError, match=r"encoder.layers.1.attention.output.bias adds degree 1 to a stream of degree 2"):
        check_invariance(built, CONFIG, CORPUS)
