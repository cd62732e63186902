"""One configuration makes one model, with storage or without."""

import numpy as np
import pytest
import torch

from pipeline.config.load import load_recipe
from pipeline.model.build import MOST_LAYERS, build_model, build_task_model, log_unigram, skeleton
from pipeline.model.pretraining import parameter_shapes


@pytest.mark.parametrize("is_on", [False, True])
def test_the_heads_and_checkpointing_are_the_configuration_s(is_on: bool) -> None:
    objective = "mlm+nsp" if is_on else "mlm"
    settings = [f"data.objective={objective}", f"train.activation_checkpointing={str(is_on).lower()}"]
    config = load_recipe("tiny", [*settings, "model.layers=1"])
    for model in (build_model(config, 50), skeleton(config, 50)):
        assert (model.nsp_head is not None) == is_on
        assert model.encoder.activation_checkpointing == is_on


def test_a_skeleton_is_the_model_without_storage() -> None:
    config = load_recipe("tiny-bert")
    assert parameter_shapes(skeleton(config, 50)) == parameter_shapes(build_model(config, 50))
    assert {p.device.type for p in skeleton(config, 50).parameters()} == {"meta"}
    tuned = load_recipe("finetune/squad1", ["model.layers=1"])
    assert parameter_shapes(skeleton(tuned, 50)) == parameter_shapes(build_task_model(tuned, 50))


def test_counts_are_the_decoder_s_bias_and_none_are_all_alike() -> None:
    config = load_recipe("tiny-bert", ["model.layers=1"])
    counts_V = np.arange(50)
    assert torch.equal(build_model(config, 50, counts_V).mlm_head.bias, log_unigram(counts_V))
    assert not build_model(config, 50).mlm_head.bias.any()


def test_too_many_layers_and_too_large_a_tensor_are_named() -> None:
    with pytest.raises(ValueError, match=r"model\.layers = 1,001: expected at most 1,000; choose"):
        skeleton(load_recipe("tiny", [f"model.layers={MOST_LAYERS + 1}"]), 50)
    with pytest.raises(ValueError, match=r"model\.width = 100,000,000,000, vocabulary 50: too large for a tensor"):
        skeleton(load_recipe("tiny", ["model.width=100000000000", "model.heads=1"]), 50)
