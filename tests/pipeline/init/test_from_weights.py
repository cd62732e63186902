"""What a run takes from trained weights, and what it refuses."""

import pytest
import torch
from torch import Tensor

from pipeline.config.load import changed, load_recipe
from pipeline.init.from_weights import POSITIONS, check_shapes, repeated_rows, take_weights
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel, parameter_shapes
from tests.helpers.running import SMALL

SEED = 20261121
CONFIG = load_recipe("tiny-untied", SMALL[1::2])


def model(seed: int = SEED, **model_settings: object) -> PretrainingModel:
    config = changed(CONFIG, {f"model.{key}": value for key, value in model_settings.items()})
    made = build_model(config, 50)
    init_weights(made, config.model, seed)
    return made


def stored(made: PretrainingModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in made.named_parameters()}


def test_all_tensors_are_taken_as_they_are() -> None:
    source, target = model(), model(seed=1)
    take_weights(target, stored(source).__getitem__, trained_positions=32, seq_len=32)
    for name, parameter in target.named_parameters():
        assert torch.equal(parameter, stored(source)[name]), name


@pytest.mark.parametrize(("rows", "trained", "seq_len"), [(160, 64, 160), (160, 32, 128), (64, 32, 64)])
def test_positions_beyond_the_trained_ones_repeat_them(rows: int, trained: int, seq_len: int) -> None:
    """Also where the table has them already, but no training has read them."""
    source, target = model(), model(seed=1, max_seq_len=rows)
    take_weights(target, stored(source).__getitem__, trained_positions=trained, seq_len=seq_len)
    table, before = stored(target)[POSITIONS], stored(source)[POSITIONS]
    assert all(torch.equal(table[p], before[p % trained]) for p in range(rows))
    others = stored(target).keys() - {POSITIONS}
    assert all(torch.equal(stored(target)[name], stored(source)[name]) for name in others)


def test_the_rule_as_a_picture() -> None:
    assert repeated_rows(torch.arange(5)[:, None], 3, 8).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("here", "name"),
    [
        ({"layers": 3}, "encoder.layers.2.attention.key.bias is missing there"),
        ({"layers": 1}, "encoder.layers.1.attention.key.bias is [32] there, missing here"),
        ({"width": 16}, "encoder.embedding.position.weight is [64, 32] there, [64, 16] here"),
        ({"max_seq_len": 48}, f"{POSITIONS} is [64, 32] there, [48, 32] here"),
    ],
)
def test_anything_else_is_refused_by_the_parameters_name(here: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=r"^--from R: parameter ") as refusal:
        check_shapes(parameter_shapes(model()), parameter_shapes(model(**here)), "--from R")
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)
    check_shapes(parameter_shapes(model()), parameter_shapes(model(max_seq_len=65)), "--from R")
