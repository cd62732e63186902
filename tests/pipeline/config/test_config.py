"""The configuration is typed and strict: what is wrong is named, and so is the way out."""

import json
import math

import pytest

from pipeline.config.batch import batch_arithmetic
from pipeline.config.load import as_dict, from_dict, load_recipe, recipe_names
from pipeline.config.schema import BatchConfig


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_says_what_it_is_and_survives_json(name: str) -> None:
    config = load_recipe(name)
    assert len(config.description) > 30
    assert from_dict(json.loads(json.dumps(as_dict(config), allow_nan=False)), "round trip") == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.learning_rate=1", ["'optim.learning_rate'", "legal: ", "lr"]),
        ("optim.clip=3", ["did you mean 'clip_c'"]),
        ("optm.lr=1", ["did you mean 'optim'"]),
        ("optim.lr=fast", ["optim.lr = 'fast'", "expected float"]),
        ("optim.lr=true", ["optim.lr = True", "expected float"]),
        ("model.layers=2.5", ["model.layers = 2.5", "expected int"]),
        ("model.encoder=sibert_a", ["did you mean 'sibert-a'"]),
        ("model.heads=5", ["model.width", "not divisible", "5"]),
        ("data.seq_len=4096", ["exceeds model.max_seq_len"]),
        ("optim.clip_c=1", ["C must exceed 1"]),
        ("optim.weight_decay=0", ["clip_c = inf"]),
        ("optim.lr=-1", ["optim.lr = -1.0", "above zero"]),
        ("optim.lr=nan", ["optim.lr = nan"]),
        ("optim.lr=1e6", ["erase the weights"]),
        ("model.head=paper", ["model.init = 'balanced'", "use 'normal'"]),
        ("optim.rule=adamw", ["equilibrium of SGD"]),
        ("model.head=tied", ["breaks SIBERT's invariance"]),
        ("optim.schedule.milestones=[1.5]", ["fractions of the run"]),
        ("optim.betas=[0.9, 1.0]", ["optim.betas", "below 1"]),
        ("optim.betas=[0.9]", ["optim.betas = [0.9]"]),
        ("optim.schedule.warmup_steps=100000", ["not below train.steps"]),
        ("optim", ["section.key=value"]),
        ("optim.lr.x=1", ["is a value, not a section"]),
    ],
)
def test_a_bad_override_is_refused_by_name(override: str, words: list[str]) -> None:
    overrides = [override, "optim.schedule.decay=step"] if "milestones" in override else [override]
    with pytest.raises(ValueError) as refusal:
        load_recipe("tiny", overrides)
    for word in words:
        assert word in str(refusal.value)


def test_overrides_reach_every_kind_of_value() -> None:
    config = load_recipe(
        "tiny",
        [
            "optim.lr=1",
            "optim.clip_c=inf",
            "train.ds_config=zero2",
            "optim.betas=[0.8, 0.9]",
            "model.unigram_bias=false",
        ],
    )
    assert config.optim.lr == 1.0
    assert isinstance(config.optim.lr, float)
    assert math.isinf(config.optim.clip_c)
    assert config.train.ds_config == "zero2"
    assert config.optim.betas == (0.8, 0.9)
    assert config.model.unigram_bias is False


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        load_recipe("tinny")


def test_accumulation_follows_from_the_world_size() -> None:
    for world_size, accumulation in ((1, 8), (2, 4), (4, 2), (8, 1)):
        assert batch_arithmetic(BatchConfig(64, 8), world_size).accumulation_steps == accumulation


def test_an_indivisible_batch_names_all_numbers_and_a_batch_that_would_do() -> None:
    with pytest.raises(ValueError) as refusal:
        batch_arithmetic(BatchConfig(64, 8), 3)
    for word in ("64", "8", "world size 3", "24", "48 or 72"):
        assert word in str(refusal.value)
    assert batch_arithmetic(BatchConfig(48, 8), 3).accumulation_steps == 2
