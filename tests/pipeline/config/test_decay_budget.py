"""lr · weight_decay · steps as one number of a recipe."""

from pathlib import Path

import pytest

from pipeline.config.load import as_dict, load_recipe
from pipeline.config.schema import RunConfig


def budget(config: RunConfig) -> float:
    return config.optim.lr * config.optim.weight_decay * config.train.steps


@pytest.mark.parametrize("steps", [15, 1500, 1_000_000])
def test_rate_and_decay_follow_from_the_budget_and_the_steps(steps: int) -> None:
    config = load_recipe("tiny", [f"train.steps={steps}", "optim.decay_budget=1.5"])
    assert budget(config) == pytest.approx(1.5)
    assert config.optim.lr / config.optim.weight_decay == pytest.approx(64)
    assert "decay_budget" not in as_dict(config)["optim"]  # a run stores what it does


@pytest.mark.parametrize("steps", [1, 2, 14])
def test_a_trial_of_a_few_steps_takes_a_tenth_of_the_weights_in_each(steps: int) -> None:
    config = load_recipe("tiny", [f"train.steps={steps}"])
    assert config.optim.lr * config.optim.weight_decay == pytest.approx(0.1)


def test_of_rate_and_decay_one_may_be_given() -> None:
    of_rate, of_decay = load_recipe("tiny", ["optim.lr=0.5"]), load_recipe("tiny", ["optim.weight_decay=0.01"])
    assert (of_rate.optim.lr, of_decay.optim.weight_decay) == (0.5, 0.01)
    assert budget(of_rate) == pytest.approx(2)
    assert budget(of_decay) == pytest.approx(2)


def test_both_by_hand_outdo_a_budget_below_and_a_budget_outdoes_both_below(tmp_path: Path) -> None:
    by_hand = load_recipe("tiny", ["optim.lr=0.5", "optim.weight_decay=0.01"])
    assert (by_hand.optim.lr, by_hand.optim.weight_decay) == (0.5, 0.01)
    assert budget(load_recipe("tiny-untied", ["optim.decay_budget=3"])) == pytest.approx(3)
    recipe = tmp_path / "mine.toml"
    recipe.write_text('extends = "tiny-untied"\noptim.decay_budget = 3\n', encoding="utf-8")
    assert budget(load_recipe(str(recipe))) == pytest.approx(3)
    assert load_recipe(str(recipe), ["optim.decay_budget=0", "optim.lr=1", "optim.weight_decay=0.1"]).optim.lr == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optim.decay_budget=-1"], "optim.decay_budget = -1: expected a number from 0"),
        (["optim.decay_budget=inf"], "optim.decay_budget = inf: expected a number from 0"),
        (["optim.decay_budget=much"], "optim.decay_budget = 'much': expected a number from 0"),
        (["optim.decay_budget=2", "optim.lr=1", "optim.weight_decay=1"], "beside lr = 1, weight_decay = 1: any two give"),
        (["optim.rule=adamw"], "is of optim.rule = 'sgd': give lr and weight_decay with adamw"),
        (["train.steps=0"], "train.steps = 0"),
        (["optim.lr=fast"], "optim.lr = 'fast'"),
        (["optim.weight_decay=-1"], "optim.weight_decay = -1"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError) as refusal:
        load_recipe("tiny", overrides)
    assert str(refusal.value).startswith("recipe tiny.toml with --set: ")
    assert words in str(refusal.value)
